"""Three disjoint pools of images: meta-training, meta-validation and meta-test."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt64
from torch import Tensor

from metaloss.core.formatting import counted
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.group_cuts import parts_of_groups
from metaloss.errors import DataError

# Never to be changed: another salt would move images between pools, and losses of earlier runs
# would have seen their test images.
SALT = 0x6D65_7461_6C6F_7373  # "metaloss"
NAMED = 5  # classes with too few images that a message names; of the others it gives the number


@dataclass(frozen=True, eq=False)
class Pool:
    """The images from which tasks may be drawn.

    Attributes:
        rows: Per class, rows of `dataset.pixels` in ascending order of their hash.
    """

    rows: tuple[Int64[Tensor, " _"], ...]


def pools(dataset: Dataset | Files) -> dict[str, Pool]:
    """The pools "train", "validation" and "test"; they do not depend on a run's seed.

    The images of each class are sorted by a hash of their official index. With an official test
    split, the first 4/7 of the training split are for meta-training and the rest for
    meta-validation. Without one, the shares are 60, 20 and 20 %. Groups of images stay whole, which
    makes the shares rougher.

    Raises:
        DataError: a group lies in the official test split and out of it.
    """
    if dataset.groups is not None:
        return _pools_of_groups(dataset, dataset.groups)
    order = torch.from_numpy(np.argsort(hashes(dataset.index), kind="stable"))
    per_class = [order[dataset.labels[order] == label] for label in range(len(dataset.classes))]
    parts = [_split_class(rows, dataset.test[rows], bool(dataset.test.any())) for rows in per_class]
    train, validation, test = zip(*parts, strict=True)
    return {"train": Pool(train), "validation": Pool(validation), "test": Pool(test)}


def _pools_of_groups(dataset: Dataset | Files, groups: Int64[Tensor, " N"]) -> dict[str, Pool]:
    """The pools, none of which shares a group with another."""
    if shared := set(groups[dataset.test].tolist()) & set(groups[~dataset.test].tolist()):
        raise DataError(
            f"{dataset.name}: {counted(len(shared), 'group')} have images in the official test "
            "split and in the training split, expected whole groups in either"
        )
    order = torch.from_numpy(np.argsort(hashes(dataset.index), kind="stable"))
    official = dataset.test[order]
    training, testing = (
        tuple(x[dataset.labels[x] == c] for c in range(len(dataset.classes)))
        for x in (order[~official], order[official])
    )
    shares = (4, 3) if bool(dataset.test.any()) else (3, 1, 1)
    parts = parts_of_groups(training, groups, shares, "pools")
    train, validation, test = parts if len(parts) == 3 else [*parts, testing]
    return {"train": Pool(train), "validation": Pool(validation), "test": Pool(test)}


def hashes(index: Int64[Tensor, " N"]) -> UInt64[np.ndarray, " N"]:
    """Output number `index` (from 0) of the generator splitmix64 with the seed SALT (Steele 2014).

    No two outputs are equal.
    """
    # Unsigned arrays wrap around silently, which is what the algorithm asks for.
    z = (index.numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    ) + np.uint64(SALT)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _split_class(rows: Tensor, official: Tensor, has_test: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of one class for training, validation and test.

    Args:
        rows: of the class.
        official: True for rows of the official test split.
        has_test: whether the data set has an official test split.
    """
    training = rows[~official]
    train, validation, *_ = _sizes(len(training), has_test)
    rest = rows[official] if has_test else training[train + validation :]
    return training[:train], training[train : train + validation], rest


def _sizes(images: int, has_test: bool) -> tuple[int, ...]:
    """The sizes of the pools that are made of a class's images.

    Images of an official test split are not counted: they are the test pool.
    """
    if has_test:
        n = round(images * 4 / 7)
        return n, images - n
    # What rounding leaves over goes to training.
    fifth = round(images / 5)
    return images - 2 * fifth, fifth, fifth


def least_images(in_pool: int, has_test: bool) -> int:
    """How many images a class needs so that the smallest of its pools has `in_pool`."""
    return next(n for n in itertools.count(in_pool) if min(_sizes(n, has_test)) >= in_pool)


def shortage(dataset: Dataset | Files, in_pool: int | Sequence[int], why: str = "") -> str:
    """Which classes have too few images for their pools, and what to do; empty where none has.

    Args:
        dataset: the images.
        in_pool: images of every class, or of each, that are needed in every pool.
        why: words for the message, on what needs so many.
    """
    classes = dataset.classes
    wanted = [in_pool] * len(classes) if isinstance(in_pool, int) else list(in_pool)
    has_test = bool(dataset.test.any())
    train, test = (
        dataset.labels[rows].bincount(minlength=len(classes)).tolist()
        for rows in (~dataset.test, dataset.test)
    )
    least = [least_images(n, has_test) for n in wanted]
    what = "training image" if has_test else "image"
    training = lacking_classes(classes, train, least, why, what)
    testing = lacking_classes(classes, test, wanted, why, "test image") if has_test else ""
    return "; ".join(text for text in (training, testing) if text)


def lacking_classes(
    classes: Sequence[str],
    counts: Sequence[int],
    needed: int | Sequence[int],
    why: str = "",
    what: str = "image",
) -> str:
    """Which classes have too few images, and what to do; empty where none has.

    >>> lacking_classes("abc", (100, 100, 3), 8)
    'c has 3 images; every class needs at least 8: leave it out or add 5'
    >>> lacking_classes("ab", (10, 3), (20, 5))
    'b has 3 images and needs 5, a 10 and 20: add 2, 10'

    Args:
        classes: their names.
        counts: how many images each has.
        needed: images of every class, or of each.
        why: words for the message, on what they are needed for.
        what: the kind of image, in the singular.
    """
    wanted = [needed] * len(classes) if isinstance(needed, int) else needed
    few = sorted(
        (n, name, least)
        for n, name, least in zip(counts, classes, wanted, strict=True)
        if n < least
    )
    if not few:
        return ""
    alike = len(set(wanted)) == 1
    named = ", ".join(
        (f"{name} has {counted(n, what)}" if i == 0 else f"{name} {n}")
        + ("" if alike else f" and {'needs ' if i == 0 else ''}{least}")
        for i, (n, name, least) in enumerate(few[:NAMED])
    )
    more = ", ".join(str(least - n) for n, _, least in few[:NAMED])
    if len(few) > NAMED:
        named += f" and {len(few) - NAMED} more"
        more = f"up to {max(least - n for n, _, least in few)} to each"
    leave = (
        f"leave {'it' if len(few) == 1 else 'them'} out or " if len(classes) - len(few) >= 2 else ""
    )
    need = f"; every class needs at least {wanted[0]}" if alike else ""
    return f"{named}{need}{why}: {leave}add {more}"
