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


@pytest.mark.parametrize(
    ("difference", "text"),
    [(1.25, "+1.2"), (-1.23, "-1.2"), (0.04, "0.0"), (-0.04, "0.0"), (0.0, "0.0"), (0.06, "+0.1")],
)
def test_a_difference_has_its_sign_unless_it_rounds_to_nothing(difference, text):
    assert formatting.signed(difference, 1) == text


def test_a_difference_that_is_not_known_keeps_its_name():
    assert formatting.signed(float("nan"), 1) == "nan"


def test_a_share_is_shown_in_percent():
    assert formatting.percent(0.6347) == "63.5 %"
