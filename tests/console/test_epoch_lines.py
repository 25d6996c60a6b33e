"""Many quick epochs do not drown the table of the test."""

import itertools

import pytest

from metaloss.console.epoch_lines import EpochLines


def shown(epochs, seconds):
    lines = EpochLines()
    return [n for n in range(1, epochs + 1) if lines.due(n, epochs, seconds)]


@pytest.mark.parametrize(
    ("epochs", "seconds", "expected"),
    [
        (300, 0.001, [300]),
        (300, 0.1, list(range(30, 301, 30))),
        (10, 0.01, [10]),
        (10, 3.0, list(range(1, 11))),
        (25, 60.0, list(range(1, 26))),
        (1, 0.0, [1]),
    ],
)
def test_few_of_many_quick_epochs_get_a_line_and_slow_ones_all(epochs, seconds, expected):
    assert shown(epochs, seconds) == expected


def test_no_two_lines_are_closer_than_two_seconds_but_for_a_last_epoch():
    numbers = shown(1000, 0.05)
    assert numbers[-1] == 1000
    assert min(b - a for a, b in itertools.pairwise(numbers[:-1])) * 0.05 >= 2


def test_the_next_training_begins_anew():
    lines = EpochLines()
    assert lines.due(2, 2, 100.0)
    assert not lines.due(1, 2, 0.1)
