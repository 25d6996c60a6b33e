"""A table of features and labels, `file:PATH`: an `.npz` or a `.safetensors`, without images."""

from pathlib import Path

import torch

from metaloss.data.array_files import read_arrays
from metaloss.data.datasets import Table
from metaloss.errors import DataError


def load(path: str | Path) -> Table:
    """The rows of the file's arrays `features` [N, D] and `labels` [N].

    Where it has an array `test` [N] of truth values, these rows are the official test split.

    Raises:
        DataError: the file is missing or damaged, or its arrays are not what they should be.
    """
    arrays = read_arrays(Path(path).expanduser())
    if arrays.labels is None:
        raise DataError(
            f"{arrays.path}: found no array labels, expected one, one a row of features"
        )
    # The official training split comes first.
    order = arrays.test.long().argsort(stable=True)
    features = arrays.features[order]
    test = arrays.test[order]
    return Table(
        name=f"file:{arrays.path.stem}",
        pixels=torch.zeros(len(features), 0, 0, 0, dtype=torch.uint8),
        labels=arrays.labels[order],
        classes=arrays.classes,
        index=torch.cat([torch.arange(int((~test).sum())), torch.arange(int(test.sum()))]),
        test=test,
        origin=f"{len(features)} rows of {features.shape[1]} features, {arrays.path}",
        values=features,
    )
