"""The images of a training in three shares that never mix: no image, and no group, is in two."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaloss.core.formatting import counted
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.group_cuts import two_sides
from metaloss.data.pools import lacking_classes, pools
from metaloss.errors import DataError
from metaloss.training.sources import Rows

# What the images of a share are for.
TO_TRAIN, TO_VALIDATE, TO_TEST = "to train on", "to validate on", "to test on"


@dataclass(frozen=True, eq=False)
class Shares:
    """Rows of a data set: to train on, to choose by, and to look at once."""

    train: Rows
    validation: Rows
    test: Rows


def split_shares(dataset: Dataset | Files, share: float, key: Stream) -> Shares:
    """The official test split, or a fixed fifth of every class; and of the rest a drawn share of
    every class held out, which may be 0.

    Groups of images, such as those of one patient, are whole in one share, which makes the shares
    rougher.

    Raises:
        DataError: a class has too few images for that, or too few groups.
    """
    test = torch.cat(pools(dataset)["test"].rows)
    rest = torch.ones(len(dataset.labels), dtype=torch.bool)
    rest[test] = False
    classes = range(len(dataset.classes))
    rows = [(rest & (dataset.labels == label)).nonzero()[:, 0] for label in classes]
    if dataset.groups is not None:
        _check_groups(dataset, rows, share)
    needed = 2 if share else 1
    sizes = list(map(len, rows))
    if few := lacking_classes(dataset.classes, sizes, needed, " beside the test images"):
        raise DataError(f"{dataset.name}: {few}")
    if not len(test):
        raise DataError(f"{dataset.name}: no class has enough images for a test share")
    train, validation = _held_out_rows(dataset, rows, share, key)
    return Shares(*(torch.cat(x).sort().values for x in (train, validation, [test])))


def _held_out_rows(
    dataset: Dataset | Files, rows: Sequence[Rows], share: float, key: Stream
) -> tuple[list[Rows], list[Rows]]:
    """For each class the rows to train on, and those to validate on.

    Args:
        dataset: the images.
        rows: for each class those that are not to test on.
        share: to hold out.
        key: of the draw.

    Raises:
        DataError: groups leave a class without images on one side.
    """
    held = [held_out(share, len(x)) for x in rows]
    if dataset.groups is None or not share:
        mixed = [x[key.at(label).permutation(len(x))] for label, x in enumerate(rows)]
        return (
            [x[n:] for x, n in zip(mixed, held, strict=True)],
            [x[:n] for x, n in zip(mixed, held, strict=True)],
        )
    sides = two_sides(rows, dataset.groups, held, key)
    if sides is None:
        few = [label for label, x in enumerate(rows) if len(dataset.groups[x].unique()) < 2]
        lacking = few or range(len(rows))
        raise DataError(_few_groups(dataset, lacking, TO_VALIDATE, share))
    return sides


def held_out(share: float, images: int) -> int:
    """Images that a share holds out: at least one and at most all but one; none of a share of 0."""
    return min(max(1, round(share * images)), images - 1) if share else 0


def _check_groups(dataset: Dataset | Files, rows: Sequence[Rows], share: float) -> None:
    """Say which classes have no images to test on, or none beside them, because of their groups.

    Args:
        dataset: the images.
        rows: for each class those that are not to test on.
        share: to hold out for validation.

    Raises:
        DataError: names a class.
    """
    if none := [label for label, x in enumerate(rows) if not len(x)]:
        raise DataError(_few_groups(dataset, none, TO_TRAIN, share))
    # An official test split is as it is.
    images = dataset.labels.bincount(minlength=len(rows)).tolist()
    none = [label for label, x in enumerate(rows) if len(x) == images[label]]
    if none and not bool(dataset.test.any()):
        raise DataError(_few_groups(dataset, none, TO_TEST, share))


def _few_groups(dataset: Dataset | Files, labels: Sequence[int], use: str, share: float) -> str:
    """That groups leave a class no images of one use, and what helps.

    Args:
        dataset: the images.
        labels: the classes, of which that with the fewest groups is named.
        use: what there are no images for.
        share: to hold out for validation.
    """
    assert dataset.groups is not None
    official = bool(dataset.test.any())
    groups = {
        label: len(dataset.groups[(dataset.labels == label) & ~dataset.test].unique())
        for label in labels
    }
    label, n = min(groups.items(), key=lambda x: x[1])
    # Without an official split the pools of searches are three, whatever a training holds out.
    needed = (2 if share else 1) if official else 3
    helps = (
        f"at least {needed} are needed: add images of {needed - n} more, or leave the class out"
        if n < needed
        else "its groups also hold many images of other classes: give smaller groups"
    )
    none = ", or hold out none to validate on (--set validation=0)" if use == TO_VALIDATE else ""
    outside = " outside the official test split" if official else ""
    return (
        f"{dataset.name}: groups are whole in one share, and leave no image of "
        f"'{dataset.classes[label]}' {use}: its images{outside} are of {counted(n, 'group')}. "
        f"{helps[0].upper()}{helps[1:]}{none}"
    )
