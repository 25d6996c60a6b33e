import pytest

from metaloss.core import formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (89.4, "89s"), (91.0, "2m"), (240.0, "4m"), (5400.0, "1.5h"), (36000.0, "10.0h")],
)
def test_durations_are_told_in_their_largest_sensible_unit(seconds, text):
    assert formatting.clock(seconds) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1.000"),
        (0.5, ".500"),
        (0.0014, ".001"),
        (0.001, ".001"),
        (0.00099, "<.001"),
        (0.0, "<.001"),
    ],
)
def test_p_values_have_three_digits_and_are_never_nothing(p, text):
    assert formatting.probability(p) == text


def test_a_difference_has_its_sign_and_its_interval():
    assert (
        formatting.interval({"mean": -0.0123, "low": -0.02, "high": 0.001}) == "-1.2 [-2.0, +0.1]"
    )
    assert formatting.percent(0.6347) == "63.5 %"
