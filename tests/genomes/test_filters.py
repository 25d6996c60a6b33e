"""Filters against the published rule by hand, the general curve and gain, and published losses."""

import math

import hypothesis
import pytest
import torch
from pydantic import ValidationError
from trees import expressions

from metaloss.core import registry
from metaloss.genomes._filters import REASONS, Filters, examine, measured, orientation
from metaloss.genomes._symbolic import seed
from metaloss.losses import phenotype
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import call
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import MORGAN_BINARY, MORGAN_UNARY
from metaloss.losses.zoo_entries import ENTRIES

# Searches start from losses of the network's own softmax.
NAMES = [name for name, entry in ENTRIES.items() if entry.text and entry.formula().plain_softmax]
# The first two points lie on either side of the pole of ŷ/(y + ε), and the rule reads the direction
# off the third.
TURNED_OVER_BY_THE_RULE = {"b0", "b0_softsign", "b1", "b2", "c0", "c1"}
PRINTED_UPSIDE_DOWN = {"c1_printed", "r1_printed"}
V = torch.linspace(0, 1, 1000, dtype=torch.float64)
every = pytest.mark.parametrize("name", NAMES)


def read(text):
    return Formula.parse(text).expression


def found(text, **changes):
    """The reason in words."""
    return REASONS[examine(read(text), Filters(**changes)).reason]


def with_steps(signs):
    """A curve that rises, stays or falls by these steps, and on as the last of them."""
    signs = torch.tensor(signs, dtype=torch.float64)
    return torch.cat([torch.zeros(1), signs, signs[-1].expand(999 - len(signs))]).cumsum(0).double()


# --- the published rule, on curves over the wrong class's probability ---


CURVES = {
    "rising": (V, 1),
    "falling": (-V, -1),
    "minimum": ((V - 0.3).square(), 1),
    "maximum": (-(V - 0.3).square(), -1),
    "late minimum": ((V - 0.8).square(), 1),
    "late maximum": (-(V - 0.8).square(), -1),
    "minimum in the middle": ((V - 0.4995).square(), 0),
    "maximum in the middle": (-(V - 0.4995).square(), 0),
    "two extrema, rising at first": ((7 * V).sin(), -1),
    "two extrema, falling at first": (-(7 * V).sin(), 1),
    "three extrema": ((10 * V).sin(), 0),
    "constant": (0 * V, 0),
}


@pytest.mark.parametrize(("curve", "sign"), CURVES.values(), ids=CURVES)
def test_a_curve_that_is_not_monotone_is_turned_so_that_it_falls_at_first(curve, sign):
    assert orientation(curve) == sign


@pytest.mark.parametrize("place", range(488, 512))
@pytest.mark.parametrize("sign", [1, -1])
def test_an_extremum_may_not_lie_among_the_twenty_points_in_the_middle(place, sign):
    curve = sign * (torch.arange(1000) - place).abs().double()
    assert orientation(curve) == (0 if 490 <= place <= 509 else sign)


@pytest.mark.parametrize(("flat", "sign"), [(10, 1), (11, 0)])
def test_ten_steps_may_be_flat(flat, sign):
    assert orientation(with_steps([-1] * 100 + [0] * flat + [1])) == sign


def test_flat_steps_go_on_as_the_curve_went_before_them_those_at_the_start_as_it_ends():
    assert orientation(with_steps([-1, -1, 0] + [-1] * 50 + [1])) == 1
    assert orientation(with_steps([0, 0, 0] + [-1] * 50 + [1])) == -1, (
        "the third step counts as rising"
    )


def test_a_curve_that_rises_with_flat_steps_is_turned_as_the_published_code_has_it():
    assert orientation(with_steps([1] * 100 + [0] + [1])) == -1
    assert orientation(with_steps([-1] * 100 + [0] + [-1])) == 1


# --- one reason after the other ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-y*logp", ""),
        ("-y*ln(p)", ""),
        ("p", "reads too little"),
        ("-logp*C", "reads too little"),
        ("y/(y - p + 1e-20) * exact_log(-p)", "is not finite"),
        ("y*exp(1/p)", "is not finite"),
        ("y*p*1e5", "range"),
        ("-y*p*1e-5", "range"),
        ("p - y", "range"),
        ("square(p - 0.5)*(y + 1)", "integrity"),
        ("y*sin(9*p)", "integrity"),
        ("-300*y*logp", "gain"),
    ],
)
def test_the_first_reason_against_a_loss_is_named(text, reason):
    assert found(text) == reason


def test_what_is_allowed_is_a_setting():
    assert found("y*p*1e5", span=(0.1, 1e6), gain=(0, 1e5)) == ""
    assert found("-1000*y*logp", gain=(0, 1000.5)) == "range"
    assert found("-1000*y*logp", gain=(0, 1000.5), span=(1, 1e6)) == ""
    assert found("y*sin(9*p)", integrity=False) == "gain", "its sign is its own"
    assert found("-y*sin(9*p)", integrity=False) == ""
    assert found("square(p - y)", gain=(0.1, 1), classes=10) == ""
    assert found("square(p - y)", gain=(0.1, 1), classes=100) == "gain"


@pytest.mark.parametrize(
    "table", [{"gain": (1, 0)}, {"span": (0, float("inf"))}, {"classes": 1}, {"gians": (0, 1)}]
)
def test_settings_that_cannot_be_are_refused(table):
    with pytest.raises(ValidationError):
        Filters(**table)


def test_an_empty_range_is_refused_in_words():
    with pytest.raises(
        ValueError, match=r"gain must be two numbers, the lower first, got 1.0 and 0.0"
    ):
        registry.from_table(Filters, {"gain": [1, 0]}, "filters")


# --- the sign ---


def test_a_loss_upside_down_has_its_sign_turned():
    e = read("y*logp")
    verdict = examine(e, Filters())
    assert (verdict.reason, verdict.expression) == (0, call("neg", e))
    torch.testing.assert_close(verdict.curve, -phenotype_curve(e).flip(0), rtol=1e-7, atol=1e-9)


def test_a_sign_that_stands_first_is_taken_away():
    e = read("y*logp")
    upside_down = call("neg", call("neg", e))
    assert examine(upside_down, Filters()).expression == call("neg", e)


def test_the_sign_comes_from_the_expression_alone():
    """In the published code a child of a turned parent is judged with its parent's sign."""
    parent = read("y*logp")
    child = read("y*ln(p)")
    turned = examine(parent, Filters()).expression
    for _ in range(2):
        assert examine(child, Filters()).expression == call("neg", child)
        assert examine(turned, Filters()).expression == turned


def test_nothing_is_turned_where_integrity_is_not_asked_for():
    e = read("y*logp")
    verdict = examine(e, Filters(integrity=False))
    assert (REASONS[verdict.reason], verdict.expression) == ("gain", e)


# --- on the published losses ---


def phenotype_curve(e):
    return phenotype.curve(Formulas.of([Formula(e)]))


@every
def test_the_curve_is_that_of_the_phenotype_from_its_other_end(name):
    e = seed(name)
    curve = examine(e, Filters(integrity=False)).curve
    assert curve.dtype == torch.float64
    torch.testing.assert_close(curve, phenotype_curve(e).flip(0), rtol=1e-7, atol=1e-9)


@every
@pytest.mark.parametrize("classes", [2, 10])
def test_the_gain_is_that_of_the_phenotype(name, classes):
    e = seed(name)
    assert measured(e, classes)[1] == pytest.approx(
        phenotype.gain(Formulas.of([Formula(e)]), classes), rel=1e-6
    )


@every
def test_published_losses_pass_the_right_way_up(name):
    e = seed(name)
    verdict = examine(e, Filters())
    assert (verdict.expression != e) == (name in PRINTED_UPSIDE_DOWN)
    assert REASONS[verdict.reason] == ("range" if name == "baikal" else "")


@every
def test_the_rule_alone_would_turn_over_losses_with_a_pole(name):
    sign = orientation(examine(seed(name), Filters(integrity=False)).curve)
    assert (sign == -1) == (name in TURNED_OVER_BY_THE_RULE | PRINTED_UPSIDE_DOWN)


@every
def test_without_the_published_rule_only_what_anti_learns_is_refused(name):
    verdict = examine(seed(name), Filters(integrity=False, span=(1e-4, 1e7)))
    assert REASONS[verdict.reason] == ("gain" if name in PRINTED_UPSIDE_DOWN else "")


# --- on any expression ---

TREES = expressions(
    names=MORGAN_UNARY + MORGAN_BINARY, numbers=hypothesis.strategies.sampled_from([1.0, -1.0])
)


@hypothesis.given(TREES)
@hypothesis.settings(max_examples=200)
def test_what_passes_has_a_finite_curve_and_a_sign_that_makes_it_learn(e):
    verdict = examine(e, Filters())
    assert (verdict.curve is None) == (
        REASONS[verdict.reason] in ("reads too little", "is not finite")
    )
    if verdict.curve is not None:
        assert verdict.curve.isfinite().all()
    if verdict.reason == 0:
        assert measured(verdict.expression, 10)[1] > 0
        assert examine(verdict.expression, Filters(integrity=False)).reason == 0
        assert torch.equal(
            examine(verdict.expression, Filters(integrity=False)).curve, verdict.curve
        )


@hypothesis.given(TREES)
@hypothesis.settings(
    max_examples=100, suppress_health_check=[hypothesis.HealthCheck.filter_too_much]
)
def test_the_gain_of_any_expression_is_that_of_the_phenotype(e):
    hypothesis.assume(
        e.varies and e.terminals.isdisjoint(("C", "prior"))
    )  # p - 1/C is 0 there: kinks
    curve, ours = measured(e, 10)
    theirs = phenotype.gain(Formulas.of([Formula(e)]), 10)
    # Else rounding has the last word.
    hypothesis.assume(float(curve.abs().max()) < 1e3 and math.isfinite(theirs))
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
