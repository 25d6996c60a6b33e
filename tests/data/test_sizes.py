"""Classes of a task have exactly the sizes that were asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from metaloss.core.streams import Stream
from metaloss.data.shapes import LongTail, ProportionalShots, ProportionalVal, Shots, Val
from metaloss.data.sizes import (
    EpisodeShape,
    fits,
    in_proportion,
    most_images,
    nearest,
    needed,
    reduced,
    sizes_vary,
    train_sizes,
    val_sizes,
)

AVAILABLE = (120, 45, 18, 60)
KEYS = [Stream(2).at("task", t) for t in range(300)]


def shape(shots, val=5, ways=4):
    return EpisodeShape(ways, shots, val, available=AVAILABLE)


# --- training images ---


def test_a_number_of_shots_is_that_of_every_class():
    assert train_sizes(shape(7), range(4), KEYS[0]) == [7, 7, 7, 7]


def test_shots_between_two_numbers_are_drawn_per_task_each_as_often():
    drawn = [train_sizes(shape((2, 6)), range(4), key) for key in KEYS]
    assert all(len(set(sizes)) == 1 for sizes in drawn)
    counts = [sum(sizes[0] == n for sizes in drawn) for n in range(8)]
    assert counts[:2] == [0, 0]
    assert counts[7] == 0
    assert all(35 < n < 85 for n in counts[2:7])


@given(most=st.integers(1, 200), least=st.integers(1, 200), ways=st.integers(2, 12))
def test_a_long_tail_falls_geometrically_from_the_most_to_the_least(most, least, ways):
    tail = LongTail(max(most, least), min(most, least))
    sizes = tail.sizes(ways)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (tail.most, tail.least)
    ratio = (tail.least / tail.most) ** (1 / (ways - 1))
    for i, n in enumerate(sizes):
        assert abs(n - tail.most * ratio**i) <= 0.5 + 1e-9


def test_every_class_of_a_long_tail_is_as_often_at_every_place():
    drawn = [train_sizes(shape(LongTail(50, 2)), range(4), key) for key in KEYS]
    assert all(sorted(sizes, reverse=True) == LongTail(50, 2).sizes(4) for sizes in drawn)
    for place in range(4):
        for size in LongTail(50, 2).sizes(4):
            # 75 expected, standard deviation 7.5.
            assert 45 < sum(sizes[place] == size for sizes in drawn) < 105


def test_shots_as_in_the_data_are_one_share_of_every_class():
    assert train_sizes(shape(ProportionalShots(share=0.5)), [2, 0], KEYS[0]) == [9, 60]
    assert train_sizes(shape(ProportionalShots(share=0.001)), [2, 0], KEYS[0]) == [1, 1]
    assert train_sizes(shape(ProportionalShots(share=0.999)), [2, 0], KEYS[0]) == [17, 119]


def test_whether_sizes_vary_is_a_matter_of_the_shape_alone():
    assert sizes_vary(shape((2, 3)))
    assert sizes_vary(shape(ProportionalShots(), ways=3))
    for even in (shape((3, 3)), shape(4), shape(LongTail(9, 2)), shape(ProportionalShots())):
        assert not sizes_vary(even)


# --- validation images ---


@given(weights=st.lists(st.integers(1, 500), min_size=2, max_size=12), mean=st.integers(1, 100))
def test_a_number_is_split_in_proportion(weights, mean):
    total = mean * len(weights)
    parts = in_proportion(weights, total)
    assert sum(parts) == total
    assert min(parts) >= 1
    quotas = [w * total / sum(weights) for w in weights]
    # Who is raised to 1 takes from the others; where nobody is, each gets its quota, rounded.
    if min(quotas) >= 1:
        assert all(abs(part - quota) < 1 for part, quota in zip(parts, quotas, strict=True))
    for i, one in enumerate(weights):
        for j, other in enumerate(weights):
            assert one <= other or parts[i] >= parts[j]


def test_validation_as_it_is_follows_the_long_tail_or_else_the_data():
    tail = shape(LongTail(20, 2), ProportionalVal(mean=10))
    assert val_sizes(tail, [3, 1, 0, 2], [20, 9, 4, 2]) == [23, 10, 5, 2]
    for shots in (3, (2, 3), ProportionalShots()):
        even = shape(shots, ProportionalVal(mean=10), ways=2)
        assert val_sizes(even, [0, 1], [3, 3]) == [15, 5]
        assert val_sizes(shape(shots, 6, 2), [0, 1], [3, 3]) == [6, 6]


# --- what the data must hold ---


def subsets(shape):
    """Every order of classes that a task may have, up to the order itself."""
    from itertools import combinations

    return combinations(range(len(AVAILABLE)), shape.ways)


@pytest.mark.parametrize("ways", [2, 3, 4])
@pytest.mark.parametrize("val", [3, ProportionalVal(mean=3), ProportionalVal(mean=9)], ids=str)
@pytest.mark.parametrize(
    "shots", [4, (1, 6), LongTail(9, 2), ProportionalShots(share=0.3)], ids=str
)
def test_what_is_needed_covers_every_task(shots, val, ways):
    episode = shape(shots, val, ways)
    need = needed(episode)
    largest = [0] * 4
    for classes in subsets(episode):
        for key in KEYS[:40]:
            train = train_sizes(episode, classes, key)
            for c, n, more in zip(classes, train, val_sizes(episode, classes, train), strict=True):
                largest[c] = max(largest[c], n + more)
    slack = int(isinstance(val, ProportionalVal) and ways < 4)
    if isinstance(shots, ProportionalShots) and isinstance(val, int):
        # What any class would need: those with more images take more.
        assert all(n <= max(have, n) for n, have in zip(largest, AVAILABLE, strict=True))
        assert need == [4] * 4
    else:
        assert all(n <= most <= n + slack for n, most in zip(largest, need, strict=True))


def test_validation_as_it_is_takes_as_many_images_as_fit():
    episode = reduced(shape(2, ProportionalVal()))
    assert fits(episode)
    more = EpisodeShape(4, 2, ProportionalVal(mean=episode.val.mean + 1), available=AVAILABLE)
    assert not fits(more)
    plenty = EpisodeShape(2, 2, ProportionalVal(), available=(5000, 5000))
    assert reduced(plenty).val.mean == 200
    assert reduced(shape(2, ProportionalVal(mean=3))).val.mean == 3
    assert reduced(shape(8, 200)).val == 10


@pytest.mark.parametrize(
    "shots", [4, (1, 6), LongTail(9, 2), ProportionalShots(share=0.3)], ids=str
)
def test_the_most_images_are_those_of_the_largest_task(shots):
    episode = shape(shots, ways=3)
    sizes = [
        sum(train_sizes(episode, classes, key)) for classes in subsets(episode) for key in KEYS[:60]
    ]
    assert most_images(episode) == max(sizes)


@pytest.mark.parametrize(
    "shots", [100, (50, 60), LongTail(100, 90), ProportionalShots(share=0.99)], ids=str
)
@pytest.mark.parametrize("val", [300, ProportionalVal(), ProportionalVal(mean=99)], ids=str)
def test_a_shape_that_is_proposed_fits(shots, val):
    episode = EpisodeShape(9, shots, val, available=AVAILABLE)
    assert not fits(episode)
    assert fits(nearest(episode))


# --- settings ---

SHOTS = TypeAdapter(Shots)
VAL = TypeAdapter(Val)


@pytest.mark.parametrize(
    ("adapter", "value", "table"),
    [
        (SHOTS, 5, 5),
        (SHOTS, [2, 20], [2, 20]),
        (SHOTS, {"most": 50, "least": 2}, {"most": 50, "least": 2}),
        (SHOTS, "as-is", {"kind": "as-is", "share": 0.5}),
        (SHOTS, {"kind": "as-is", "share": 0.2}, {"kind": "as-is", "share": 0.2}),
        (SHOTS, {"share": 0.2}, {"kind": "as-is", "share": 0.2}),
        (VAL, 5, 5),
        (VAL, "as-is", {"kind": "as-is"}),
        (VAL, {"kind": "as-is", "mean": 60}, {"kind": "as-is", "mean": 60}),
    ],
    ids=str,
)
def test_a_setting_is_read_and_written_as_it_was(adapter, value, table):
    read = adapter.validate_python(value)
    written = adapter.dump_python(read, mode="json", exclude_none=True)
    assert written == table
    assert adapter.validate_python(written) == read
    assert adapter.validate_python(read) == read


@pytest.mark.parametrize(
    ("adapter", "value", "line"),
    [
        (SHOTS, 0, "Input should be greater than or equal to 1, got 0"),
        (SHOTS, True, "expected a number of images, [fewest, most], { most = …, least = … } or"),
        (SHOTS, 2.5, "got 2.5"),
        (SHOTS, "as is", "got 'as is'"),
        (SHOTS, [20, 2], "expected two ascending whole numbers, at least 1, got [20, 2]"),
        (SHOTS, [2], "got [2]"),
        (SHOTS, [2.5, 3], "got [2.5, 3]"),
        (SHOTS, {"most": 2, "least": 5}, "least = 5 must not be above most = 2"),
        (SHOTS, {"most": 2}, "least: Field required"),
        (SHOTS, {"mosst": 2}, "unknown setting 'mosst'. Did you mean 'most'?"),
        (SHOTS, {"share": 1.0}, "share: Input should be less than 1, got 1.0"),
        (SHOTS, {"kind": "asis"}, "kind: Input should be 'as-is', got 'asis'"),
        (VAL, -1, "Input should be greater than or equal to 1, got -1"),
        (VAL, [2, 3], 'expected a number of images or "as-is", got [2, 3]'),
        (VAL, {"mean": 0}, "mean: Input should be greater than or equal to 1, got 0"),
    ],
    ids=str,
)
def test_one_line_says_what_sizes_may_not_be(adapter, value, line):
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(value)
    (error, *others) = caught.value.errors()
    assert not others
    assert line in error["msg"]
