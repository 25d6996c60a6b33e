"""Pools are disjoint, complete, of the stated sizes, and alike in the subset and the full set."""

import pytest
import torch

from metaloss.data.datasets import Dataset, fashionmnist
from metaloss.data.pools import (
    SALT,
    hashes,
    lacking_classes,
    least_images,
    pools,
    shortage,
)

MASK = 2**64 - 1
FULL = fashionmnist.SYSTEM  # before any test points it elsewhere


def splitmix64(position):
    """The reference, after Steele 2014, in Python's own integers.

    One step of the generator after the other.
    """
    state = SALT
    for _ in range(position + 1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def made(train, test=()):
    """A data set with so many images per class in its official splits."""
    counts = [*train, *test]
    labels = torch.cat(
        [
            torch.arange(len(split)).repeat_interleave(torch.tensor(split))
            for split in (train, test)
            if split
        ]
    )
    sizes = sum(train), sum(test)
    return Dataset(
        name="made",
        pixels=torch.zeros(sum(counts), 1, 2, 2, dtype=torch.uint8),
        labels=labels,
        classes=tuple("abcdef"[: len(train)]),
        index=torch.cat([torch.arange(size) for size in sizes]),
        test=torch.arange(sum(sizes)) >= sizes[0],
        origin="made",
    )


def sizes(dataset):
    return {name: [len(rows) for rows in pool.rows] for name, pool in pools(dataset).items()}


def test_hashes_follow_the_published_algorithm():
    assert hashes(torch.arange(20)).tolist() == [splitmix64(position) for position in range(20)]


def test_the_hash_never_changes():
    # Another order would hand images of meta-test to meta-training; this number is the guard.
    assert pools(made([9]))["test"].rows[0].tolist() == [4, 6]


@pytest.mark.parametrize("official", [(), (50, 50)])
@pytest.mark.parametrize("in_pool", [1, 2, 3, 6, 7, 20])
def test_the_least_number_of_images_is_just_enough_for_every_pool(in_pool, official):
    n = least_images(in_pool, bool(official))
    for images, enough in ((n, True), (n - 1, False), (n + 1, True)):
        found = made([images, 50 * in_pool], official)
        assert (min(min(own) for own in sizes(found).values()) >= in_pool) == enough
        assert (shortage(found, in_pool) == "") == enough


def test_too_few_images_of_either_official_split_are_said():
    assert shortage(made([3, 70, 80], [5, 1, 9]), 2) == (
        "a has 3 training images; every class needs at least 4: leave it out or add 1; "
        "b has 1 test image; every class needs at least 2: leave it out or add 1"
    )


def test_of_many_classes_with_too_few_images_five_are_named():
    counts = [3, 1, 2, 9, 4, 5, 6]
    assert lacking_classes("abcdefg", counts, 8) == (
        "b has 1 image, c 2, a 3, e 4, f 5 and 1 more; every class needs at least 8: "
        "add up to 7 to each"
    )
    assert "more" not in lacking_classes("abcde", counts[:5], 8)


def test_an_official_training_split_is_cut_four_to_three():
    assert sizes(made([70, 7], [5, 6])) == {"train": [40, 4], "validation": [30, 3], "test": [5, 6]}


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (9, (5, 2, 2)),
        (10, (6, 2, 2)),
        (100, (60, 20, 20)),
    ],
)
def test_without_a_test_split_the_cut_is_60_20_20(n, expected):
    assert tuple(counts[0] for counts in sizes(made([n])).values()) == expected


@pytest.mark.parametrize(
    "dataset", [made([23, 5, 9]), made([23, 5, 9], [4, 1, 3])], ids=["one split", "two splits"]
)
def test_every_image_lies_in_exactly_one_pool_under_its_own_class(dataset):
    cut = pools(dataset)
    rows = torch.cat([rows for pool in cut.values() for rows in pool.rows])
    assert rows.sort().values.tolist() == list(range(len(dataset.labels)))
    for pool in cut.values():
        for label, of_class in enumerate(pool.rows):
            assert (dataset.labels[of_class] == label).all()


def test_the_official_test_split_is_meta_test():
    dataset = made([23, 5], [4, 2])
    cut = pools(dataset)
    assert dataset.test[torch.cat(cut["test"].rows)].all()
    assert not dataset.test[torch.cat(cut["train"].rows + cut["validation"].rows)].any()


def test_rows_stand_in_the_order_of_their_hash():
    dataset = made([23], [6])
    for pool in pools(dataset).values():
        found = hashes(dataset.index[pool.rows[0]])
        assert (found[1:] > found[:-1]).all()


def test_a_class_without_images_has_empty_pools():
    assert sizes(made([5, 0])) == {"train": [3, 0], "validation": [1, 0], "test": [1, 0]}


def members(dataset):
    """Official split and index of the images in each pool."""
    cut = {name: torch.cat(pool.rows) for name, pool in pools(dataset).items()}
    return {
        name: set(zip(dataset.test[rows].tolist(), dataset.index[rows].tolist(), strict=True))
        for name, rows in cut.items()
    }


@pytest.fixture
def subset(tmp_path, monkeypatch):
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    monkeypatch.setattr(fashionmnist, "SYSTEM", tmp_path)
    return fashionmnist.load()


def test_the_embedded_subset_has_400_300_300_images_a_class(subset):
    assert sizes(subset) == {"train": [400] * 10, "validation": [300] * 10, "test": [300] * 10}


@pytest.mark.skipif(not FULL.exists(), reason="needs the full Fashion-MNIST")
def test_an_image_lies_in_the_same_pool_in_the_subset_as_in_the_full_set(subset, monkeypatch):
    monkeypatch.setattr(fashionmnist, "SYSTEM", FULL)
    full = fashionmnist.load()
    assert full.origin == f"full set, {FULL}"
    whole = members(full)
    part = members(subset)
    for name in whole:
        assert part[name] <= whole[name]
    where = {
        key: row
        for row, key in enumerate(zip(full.test.tolist(), full.index.tolist(), strict=True))
    }
    rows = torch.tensor(
        [where[key] for key in zip(subset.test.tolist(), subset.index.tolist(), strict=True)]
    )
    assert torch.equal(full.pixels[rows], subset.pixels)
    assert torch.equal(full.labels[rows], subset.labels)
