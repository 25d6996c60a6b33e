"""Which expressions are not worth a training, seen without one: by what they read, their curve and
their first pull.

The curve and the rule on it are those of Morgan 2024, as in the code of their searches: two
classes, 1000 predictions.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.losses.clock import DEFAULT_LOGN, HALFWAY
from metaloss.losses.language.expression import (
    COST,
    COUNT,
    LOGN,
    LOGP,
    LOGPRIOR,
    PAST,
    PRIOR,
    C,
    Expression,
    P,
    T,
    Y,
    call,
)
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.phenotype import grid

# A code is a place in it; 0: fine.
REASONS = ("", "reads too little", "is not finite", "range", "integrity", "gain")
_FINE, _READS, _FINITE, _RANGE, _INTEGRITY, _GAIN = range(len(REASONS))
_CENTRE = range(490, 510)  # an extremum here belongs to a curve that says the same of both classes
_FLAT = 10  # steps without a change that a curve may have
_STEP = 1e-6  # of a probability, for the gain
_ROUNDING = 1e-15

Bound = Annotated[float, Field(allow_inf_nan=False)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Filters:
    """What a candidate must be.

    Attributes:
        integrity: whether its curve must be simple and have no extremum in the middle, and is
            turned the right way up.
        span: the least and the most that its curve may span. Below the least, published curves are
            not normalised.
        gain: its first pull relative to cross-entropy's: more than the first number, at most the
            second. At 0 and below it anti-learns.
        classes: how many the gain is for.
    """

    integrity: bool = True
    span: tuple[Bound, Bound] = (1e-4, 1e4)
    gain: tuple[Bound, Bound] = (0.0, 100.0)
    classes: Annotated[int, Field(ge=2, le=1000)] = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in (("span", self.span), ("gain", self.gain)):
            if low >= high:
                raise ValueError(
                    f"{name} must be two numbers, the lower first, got {low} and {high}"
                )
        return self


@dataclass(frozen=True)
class Examination:
    """The result of the filters for one expression.

    Attributes:
        reason: a place in `REASONS`.
        expression: with the sign that makes it a loss to minimise.
        curve: its values where the wrong one of two classes has a probability from almost 0 to
            almost 1; None where they were not asked for or are not finite.
    """

    reason: int
    expression: Expression
    curve: Float[Tensor, " N"] | None = None


@lru_cache(maxsize=1 << 11)
def examine(e: Expression, filters: Filters) -> Examination:
    """The first reason against an expression, if there is one, and the expression the right way up.

    The sign is a function of the expression as it stands. In the published code a child inherits
    its parent's sign and the rule is then asked of a curve that is turned already. Where a curve
    has an extremum within and its sign would make the first pull negative, the pull decides (ours):
    the rule alone turns over a loss whose curve has a pole at its end, as six of the paper's own
    have.
    """
    if not (e.varies and e.reads_label):
        return Examination(_READS, e)
    curve, pull = measured(e, filters.classes)
    low, high = torch.stack(curve.aminmax()).tolist()  # NaN where one is NaN
    # Written so that NaN, which fails every comparison, is refused as well.
    if not high - low < torch.inf:
        return Examination(_FINITE, e)
    if not filters.span[0] <= high - low <= filters.span[1]:
        return Examination(_RANGE, e, curve)
    sign = orientation(curve) if filters.integrity else 1
    if sign == 0:
        return Examination(_INTEGRITY, e, curve)
    if sign * pull < 0 and filters.integrity and not monotone(curve):
        sign = -sign
    fine = filters.gain[0] < sign * pull <= filters.gain[1]
    return Examination(_FINE if fine else _GAIN, e if sign > 0 else _negative(e), sign * curve)


def orientation(curve: Float[Tensor, " N"]) -> int:
    """1 for a curve that is to be minimised, -1 for one to be maximised, 0 for neither.

    Reproduces the published rule, including two mistakes in its code: a curve with two inner
    extrema passes; a curve that rises at its third step is negated unless it rises at every step.
    Candidates negated wrongly are caught by the gain filter.

    Args:
        curve: over rising probabilities of the wrong class.
    """
    values = curve.numpy()
    if values.argmin() in _CENTRE or values.argmax() in _CENTRE:
        return 0
    step = np.sign(np.diff(values))
    rising = int((step > 0).sum())
    falling = int((step < 0).sum())
    if len(step) in (rising, falling):
        return 1 if rising else -1
    flat = len(step) - rising - falling
    if flat > _FLAT:
        return 0
    step = _filled(step) if flat else step
    turns = int((step != np.roll(step, 1)).sum())  # circular: one extremum within makes two
    return 0 if turns > 2 else 1 if step[2] < 0 else -1


def monotone(curve: Float[Tensor, " N"]) -> bool:
    """Whether a curve rises everywhere, or falls everywhere."""
    step = curve.diff()
    return bool((step > 0).all() | (step < 0).all())


def measured(e: Expression, classes: int) -> tuple[Float[Tensor, " N"], float]:
    """The curve of two classes over rising probabilities of the wrong one, and `phenotype.gain` of
    the sum.

    Both from one run of the expression: the gain is a central difference, two more predictions
    beside the curve's; at a kink it lies between the slopes on either side.

    Args:
        e: reads y or cost, and p or logp.
        classes: C, of the gain.
    """
    with torch.no_grad():
        value = _value(e, {**_situations(classes)})
    other, true = (_difference(*ends) for ends in value[:, -2:].tolist())
    return value[:, :-2].sum(0), (other - true) / (2 * _STEP * classes)


def _difference(before: float, after: float) -> float:
    """How much a value rises; 0 where rounding alone could make it so."""
    return 0.0 if math.isclose(before, after, rel_tol=_ROUNDING) else after - before


@lru_cache(maxsize=16)
def _situations(classes: int) -> dict[Expression, Tensor]:
    """The terminals of a class that is not the target and of one that is.

    First along the curve, then where all C classes are alike. All classes are equally frequent, all
    mistakes cost alike, and nothing was predicted before.
    """
    v = grid()
    unsure = torch.tensor([1 / classes - _STEP, 1 / classes + _STEP], dtype=torch.float64)
    p = torch.cat([torch.stack([v, 1 - v]), unsure.expand(2, 2)], 1)
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    c = torch.full_like(p[:1], 2.0).index_fill(
        1, torch.tensor([len(v), len(v) + 1]), float(classes)
    )
    # The curve is that of the middle of a training; the gain is a first pull, at its first step.
    t = torch.full_like(c, HALFWAY).index_fill(1, torch.tensor([len(v), len(v) + 1]), 0.0)
    clock = {T: t, LOGN: torch.full_like(c, DEFAULT_LOGN)}
    past = {PAST: 1 / c}
    even = {PRIOR: 1 / c, LOGPRIOR: torch.zeros_like(c), COUNT: torch.ones_like(c)}
    return {Y: y, COST: 1 - y, P: p, LOGP: p.log(), C: c, **even, **clock, **past}


def _value(e: Expression, known: dict[Expression, Tensor]) -> Tensor:
    """The value of an expression.

    What occurs in it twice is computed once, and stands in `known` behind its arguments.
    """
    if e not in known:
        row = PRIMITIVES.get(e.head)
        if row is None:
            known[e] = torch.tensor(e.value, dtype=torch.float64)
        else:
            known[e] = (row.plain or row.run)(*[_value(a, known) for a in e.args])
    return known[e]


def _filled(step: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Steps without zeros: a flat step takes the sign of the last one before it that is not flat.

    Flat steps at the start take the sign of the last step of all.
    """
    last = np.maximum.accumulate(np.where(step != 0, np.arange(len(step)), -1))
    return step[np.where(last < 0, last[-1], last)]


def _negative(e: Expression) -> Expression:
    return e.args[0] if e.head == "neg" else call("neg", e)
