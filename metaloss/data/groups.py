"""Groups of images that belong together, as those of one patient do, read from a file."""

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.formatting import counted
from metaloss.core.reading import read_text
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.errors import DataError

LIMIT = 64 << 20  # bytes of a file of groups
NAMED = 3  # images that a message names
HEADS = {"image", "file", "filename", "name", "path", "row"}  # of a first line that names columns

Data = TypeVar("Data", bound=Dataset | Files)


def with_groups(dataset: Data, path: str | Path) -> Data:
    """The data set, with the group of every image; as it is where the path is empty.

    Args:
        dataset: the images, or their files.
        path: of a CSV file: on each line an image and its group. An image is a file of the folder,
            as "scan1.png", "benign/scan1.png" or "train/benign/scan1.png", or the number of its
            row, from 0.

    Raises:
        DataError: the file cannot be read, names an image that is not there, leaves one out, or has
            a group with images in the official test split and out of it.
    """
    if not path:
        return dataset
    place = Path(path).expanduser()
    row_of = _rows_by_name(dataset)
    files = _file_names(dataset)
    n = len(dataset.labels)
    lines = _lines(place)
    # By name: the order of the lines must not decide which group is dealt out first.
    numbers = {group: i for i, group in enumerate(sorted({group for *_, group in lines}))}
    groups = torch.full((n,), -1)
    unknown = []
    for line, image, group in lines:
        row = row_of(image)
        if row is None:
            unknown.append(image)
        elif int(groups[row]) not in (-1, numbers[group]):
            raise DataError(f"{place}, line {line}: {image} is in two groups, expected one")
        else:
            groups[row] = numbers[group]
    if unknown:
        raise DataError(
            f"{place}: {counted(len(unknown), 'line')} of images that are not in {dataset.name} "
            f"({_some(unknown)}); an image is named as FILE or CLASS/FILE, or by its row from 0; "
            "where several files have one name, CLASS/ or the split's folder must stand before it"
        )
    if missing := torch.nonzero(groups < 0)[:, 0].tolist():
        names = [files[i] if files else f"row {i}" for i in missing]
        raise DataError(
            f"{place}: {len(missing)} of {n} images have no group ({_some(names)}); every image "
            "needs a line: its name, a comma, its group"
        )
    _check_split(dataset, groups, list(numbers), place)
    return replace(dataset, groups=groups)


def with_groups_of(dataset: Data, values: Any) -> Data:
    """The data set, with the group of every image as a caller hands it over.

    Args:
        dataset: the images, or their files.
        values: names or numbers, one an image, in the images' order.

    Raises:
        DataError: they are not one an image, or a group has images in the official test split and
            out of it.
    """
    n = len(dataset.labels)
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.shape != (n,):
        found = "x".join(map(str, array.shape)) or "a single one"
        raise DataError(f"groups: found {found}, expected one for each of the {n} images")
    names, numbers = np.unique(array, return_inverse=True)
    groups = torch.from_numpy(numbers).long()
    _check_split(dataset, groups, list(map(str, names)), "groups")
    return replace(dataset, groups=groups)


def _check_split(
    dataset: Dataset | Files, groups: Int64[Tensor, " N"], names: Sequence[str], place: Path | str
) -> None:
    """Raise a DataError where a group has images to train on and in the official test split."""
    both = set(groups[dataset.test].tolist()) & set(groups[~dataset.test].tolist())
    if both:
        which = _some([names[group] for group in sorted(both)])
        have = "has" if len(both) == 1 else "have"
        raise DataError(
            f"{place}: {counted(len(both), 'group')} ({which}) {have} images both in the official "
            f"test split of {dataset.name} and out of it, which would be no test on new ones: move "
            "the images of each group to one side"
        )


def digest_of_groups(groups: Int64[Tensor, " N"]) -> str:
    """A digest of which images belong together."""
    return hashlib.sha256(groups.numpy().astype("<i8").tobytes()).hexdigest()


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """The number, the image and the group of every line.

    Raises:
        DataError: the file cannot be read, or a line has no two columns.
    """
    try:
        text = read_text(path, LIMIT)
    except OSError as error:
        raise DataError(f"{path}: groups: {error.strerror}, expected a CSV file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: groups: found no text in UTF-8, expected a CSV file") from None
    found = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].casefold() in HEADS):
            continue
        if len(cells) < 2 or not all(cells[:2]):
            raise DataError(f"{path}, line {number}: expected an image, a comma and its group")
        found.append((number, cells[0], cells[1]))
    return found


def _file_names(dataset: Dataset | Files) -> tuple[str, ...]:
    return dataset.files if isinstance(dataset, Dataset) else dataset.file_names


def _rows_by_name(dataset: Dataset | Files) -> Callable[[str], int | None]:
    """From what a line calls an image to its row; None where there is no such image."""
    names = _file_names(dataset)
    n = len(dataset.labels)
    depth = names[0].count("/") + 1 if names else 0
    # From every ending of a name that begins at a folder or at the file.
    rows: dict[str, int | None] = {}
    for row, name in enumerate(names):
        for start in range(depth):
            ending = "/".join(name.split("/")[start:])
            # Two folders may have a file of one name: then the folder must be said.
            rows[ending] = None if ending in rows else row

    def row_of(image: str) -> int | None:
        name = "/".join(image.replace("\\", "/").split("/")[-depth:])
        if name in rows:
            return rows[name]
        return int(name) if name.isdecimal() and int(name) < n else None

    return row_of


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
