"""One checked `Dataset` from the official splits of a source."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._remarks import warn_of_poor_images
from metaloss.errors import DataError

NAMED = 3  # copies that a message names


# Shapes are not annotated: data from outside may have others, which `join_splits` reports.
@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one official split, not yet checked.

    Attributes:
        where: File or folder, for messages.
        pixels: Should be uint8 `[N K H W]`.
        labels: Should be int64 `[N]`.
        index: Each image's index in the official split; None where the split is complete:
            0 ... N-1.
        decoded: Digests of the images as their files hold them; None where they were not resized.
        files: Of each image the class's folder and the file's name, where it has a file of its own.
    """

    where: str
    pixels: Tensor
    labels: Tensor
    index: Tensor | None = None
    decoded: Tensor | None = None
    files: tuple[str, ...] = ()


def join_splits(
    name: str, train: Split, test: Split | None, classes: tuple[str, ...], origin: str
) -> Dataset:
    """One checked data set from its official splits.

    Args:
        name: What the user calls it.
        train: The official training split.
        test: The official test split; None where the source has none.
        classes: Their names.
        origin: Where the images come from, to be told to the user.

    Raises:
        DataError: Shapes, types, counts or labels are wrong.

    Warns:
        DataWarning: Images are constant, equal or of few grey levels.
    """
    splits = [train] if test is None else [train, test]
    for split in splits:
        _check(split, classes)
    if test is not None and test.pixels.shape[1:] != train.pixels.shape[1:]:
        raise DataError(
            f"{test.where}: images: found {_size(test.pixels)}, "
            f"expected {_size(train.pixels)} as in training"
        )
    # `cat` keeps a permuted layout, and images are read row by row.
    pixels = torch.cat([split.pixels for split in splits]).contiguous()
    warn_of_poor_images(name, pixels)
    return Dataset(
        name=name,
        pixels=pixels,
        labels=torch.cat([split.labels for split in splits]),
        classes=classes,
        index=torch.cat([_index(split) for split in splits]),
        test=torch.cat([torch.full((len(split.labels),), split is test) for split in splits]),
        origin=origin,
        decoded=None
        if train.decoded is None
        else torch.cat([x.decoded for x in splits if x.decoded is not None]),
        files=tuple(file for split in splits for file in split.files),
    )


def check_no_copies(dataset: Dataset) -> None:
    """Raise a DataError where an image is in the training split and in the official test split.

    It tests nothing new. Images of one colour are not counted: there is nothing to tell them by.
    """
    rows = dataset.informative(torch.arange(len(dataset.labels))).nonzero()[:, 0]
    test = dataset.test[rows]
    # Looked at only where there is a test split: digests of pixels take their time.
    if not test.any():
        return
    digests = dataset.digests[rows].tolist()
    of_training = {
        digest: row
        for digest, row, held_out in zip(digests, rows.tolist(), test.tolist(), strict=True)
        if not held_out
    }
    pairs = [
        f"{dataset.files[row]} = {dataset.files[of_training[digest]]}"
        for digest, row, held_out in zip(digests, rows.tolist(), test.tolist(), strict=True)
        if held_out and digest in of_training
    ]
    if pairs:
        what = "image to test on is a copy" if len(pairs) == 1 else "images to test on are copies"
        named = ", ".join(pairs[:NAMED]) + (", …" if len(pairs) > NAMED else "")
        raise DataError(
            f"{dataset.name}: {len(pairs)} {what} of one to train on ({named}), which tests "
            "nothing new: remove one of each pair"
        )


def _check(split: Split, classes: tuple[str, ...]) -> None:
    """Raise a DataError unless images and labels of a split fit each other and the classes."""
    pixels = split.pixels
    labels = split.labels
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        actual = f"{pixels.dtype} with {pixels.ndim} axes"
        raise DataError(f"{split.where}: images: found {actual}, expected torch.uint8 with 4 axes")
    if len(pixels) == 0 or pixels.numel() == 0:
        raise DataError(
            f"{split.where}: images: found none ({'x'.join(map(str, pixels.shape))}), "
            "expected at least 1"
        )
    for field, column in {"labels": labels, "indices": _index(split)}.items():
        if column.dtype != torch.int64 or column.shape != pixels.shape[:1]:
            actual = f"{column.dtype} {list(column.shape)}"
            raise DataError(
                f"{split.where}: {field}: found {actual}, "
                f"expected torch.int64 [{len(pixels)}], one an image"
            )
    low = int(labels.min())
    high = int(labels.max())
    if low < 0 or high >= len(classes):
        raise DataError(
            f"{split.where}: labels: found {low if low < 0 else high}, "
            f"expected 0 to {len(classes) - 1}"
        )
    if len(_index(split).unique()) != len(labels):
        raise DataError(f"{split.where}: indices: found one twice, expected each once")


def _index(split: Split) -> Tensor:
    """Each image's index in the official split."""
    return torch.arange(len(split.pixels)) if split.index is None else split.index


def _size(pixels: Tensor) -> str:
    """Channels, height and width as text, e.g. 1x28x28."""
    return "x".join(map(str, pixels.shape[1:]))
