"""Groups of images that belong together, as those of one patient do: read, and never torn apart.

A copy of what was learned is no test of it, and two images of one patient nearly are. So a group
lies in one fold, in one pool, and on one side of every task.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core.formatting import counted
from metaloss.core.reading import read_text
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.errors import DataError

LIMIT = 64 << 20  # bytes of a file of groups
NAMED = 3  # images that a message names
HEADS = {"image", "file", "filename", "name", "path", "row"}  # of a first line that names columns
TRIES = 20  # orders of the groups, before images are refused

Data = TypeVar("Data", bound=Dataset | Files)
Rows = tuple[Int64[Tensor, " _"], ...]  # for each class, rows of the images


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


def _check_split(
    dataset: Dataset | Files, groups: Int64[Tensor, " N"], names: Sequence[str], place: Path
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


def parts_of_groups(
    rows: Rows, groups: Int64[Tensor, " N"], shares: Sequence[int], salt: str
) -> list[Rows]:
    """Rows cut into parts, each group whole in one of them, classes as alike as groups allow.

    As in scikit-learn's `StratifiedGroupKFold`, groups are dealt out one after the other, those
    that are most uneven first, each to the part where it makes the classes' shares most even.

    Args:
        rows: for each class.
        groups: of every image of the data set.
        shares: how the images should be shared out, as (3, 1, 1).
        salt: decides between groups that are alike.
    """
    counts = _counts(rows, groups)
    best = None
    for number in range(TRIES):
        order = sorted(
            counts, key=lambda g: (-float(counts[g].std(correction=0)), _hash(salt, number, g))
        )
        place = _dealt(counts, order, torch.tensor(shares, dtype=torch.float64))
        parts = [
            tuple(x[torch.tensor([place[g] == p for g in groups[x].tolist()]).bool()] for x in rows)
            for p in range(len(shares))
        ]
        least = min(len(x) for part in parts for x in part)
        if best is None or least > best[0]:
            best = least, parts
        if least:
            break
    assert best is not None
    return best[1]


def _counts(rows: Rows, groups: Int64[Tensor, " N"]) -> dict[int, Float[Tensor, " C"]]:
    """How many images of every class each group has."""
    counts: dict[int, Float[Tensor, " C"]] = {}
    for c, of_class in enumerate(rows):
        for group in groups[of_class].tolist():
            counts.setdefault(group, torch.zeros(len(rows), dtype=torch.float64))[c] += 1
    return counts


def _hash(*what: object) -> bytes:
    return hashlib.blake2b(repr(what).encode(), digest_size=8).digest()


def _dealt(
    counts: Mapping[int, Float[Tensor, " C"]], order: Sequence[int], shares: Float[Tensor, " P"]
) -> dict[int, int]:
    """The part of every group."""
    total = sum(counts.values(), torch.zeros_like(next(iter(counts.values())))).clamp(min=1)
    # How many of each class a part should have.
    wanted = shares[:, None] / shares.sum() * total
    filled = torch.zeros_like(wanted)
    place = {}
    for group in order:
        ratio = filled / wanted  # [P C]
        added = (filled + counts[group]) / wanted
        costs = []
        for p in range(len(shares)):
            tried = ratio.clone()
            tried[p] = added[p]
            spread = float(tried.std(0, correction=0).mean())
            costs.append((round(spread, 12), float(filled[p].sum() / wanted[p].sum())))
        part = min(range(len(shares)), key=lambda p: costs[p])
        filled[part] += counts[group]
        place[group] = part
    return place


def two_sides(
    rows: Sequence[Int64[Tensor, " _"]],
    groups: Int64[Tensor, " N"],
    val: Sequence[int],
    key: Stream,
) -> tuple[list[Int64[Tensor, " _"]], list[Int64[Tensor, " _"]]]:
    """The rows of a task's classes that it may train on, and those that it may validate on.

    No group is on both sides. A class has at least one image on each side, and so many to validate
    on as it should, or fewer where its groups are too large.

    Args:
        rows: of each class of the task, in the order in which they are drawn.
        groups: of every image of the data set.
        val: how many images of each class to validate on.
        key: of the task.

    Raises:
        DataError: no such cut was found.
    """
    counts = {g: x.long().tolist() for g, x in _counts(tuple(rows), groups).items()}
    total = [len(x) for x in rows]
    known = sorted(counts)
    for number in range(TRIES):
        order = [known[i] for i in key.at("groups", number).permutation(len(known)).tolist()]
        held = _validating(counts, order, total, val)
        if held is not None:
            side = [torch.tensor([g in held for g in groups[x].tolist()]).bool() for x in rows]
            return (
                [x[~here] for x, here in zip(rows, side, strict=True)],
                [x[here] for x, here in zip(rows, side, strict=True)],
            )
    raise DataError(
        "groups: no task can be drawn with images of every class on both sides and no group on "
        "two: every class needs images of at least two groups, and groups that are not most of it"
    )


def _validating(
    counts: Mapping[int, Sequence[int]],
    order: Sequence[int],
    total: Sequence[int],
    val: Sequence[int],
) -> set[int] | None:
    """The groups to validate on; None where a class would be missing on one side."""
    held: set[int] = set()
    have = [0] * len(total)

    def take(group: int) -> None:
        held.add(group)
        for c, n in enumerate(counts[group]):
            have[c] += n

    for group in order:
        sizes = counts[group]
        if all(have[c] + n <= val[c] for c, n in enumerate(sizes)):
            take(group)
    # A class whose every group is larger than what it validates on: the smallest one will do.
    for c in range(len(total)):
        for group in sorted(order, key=lambda g: counts[g][c]):
            fits = all(have[k] + n < total[k] for k, n in enumerate(counts[group]) if n)
            if not have[c] and counts[group][c] and group not in held and fits:
                take(group)
    return held if all(0 < n < all_ for n, all_ in zip(have, total, strict=True)) else None


def first_rows(rows: Int64[Tensor, " _"], n: int) -> Int64[Tensor, " n"]:
    """The first n rows."""
    return rows[:n]


def repeated_rows(rows: Int64[Tensor, " _"], n: int) -> Int64[Tensor, " n"]:
    """The first n rows, from the start again where there are fewer."""
    return rows[torch.arange(n) % len(rows)]
