"""Taylor polynomials in target and prediction, as a population of coefficients (TaylorGLO).

Gonzalez and Miikkulainen 2021 expand a loss in a class's target y and probability p, to the third
order, and leave out terms without p, which have no gradient. Facts are those of their code.
"""

import math
from collections.abc import Mapping
from functools import lru_cache, partial, reduce
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._compiled_polynomials import CompiledPolynomials
from metaloss.genomes._polynomials import Polynomials, polynomial, slopes_at_zero
from metaloss.genomes._prior import SeesPrior, adjusted_formula
from metaloss.genomes._situations import situations
from metaloss.genomes._symbolic import FormulaGenome
from metaloss.genomes._vectors import RealVectors
from metaloss.losses import zoo
from metaloss.losses.base import Losses, TrainingTargets
from metaloss.losses.clock import DEFAULT_LOGN
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import (
    LOGN,
    ZERO,
    Expression,
    P,
    T,
    Y,
    call,
    constant,
)
from metaloss.losses.language.formula import Formula

__all__ = ["TaylorPolynomial"]

POINT = 2  # θ0 and θ1
SETS = 3  # of coefficients with a clock: of the start, of the end, and what steps add
DIGITS = 6  # of a number in a formula
LARGEST = 1e300  # a constant stays a finite number, or its formula could not be read again
FITTED = (10, 5, 2, 20)  # numbers of classes of what the first polynomial is fitted to
SOFT = 1e-3  # what soft labels weigh in a fit: they decide what hard ones leave open


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TaylorPolynomial(SeesClock, SeesPrior, RealVectors, FormulaGenome):
    """The order of the polynomials, where the search starts, and which are not worth a training.

    A candidate is θ0, θ1 and the coefficients of Σ θ_ij (y - θ0)^i (p - θ1)^j over j >= 1 and
    i + j <= order, those with the lowest power of y first; the loss is the sum over the classes,
    negated. To the third order these are the published θ0 to θ7.

    With `clock` there are two sets of coefficients, for the start of a training and for its end,
    and between them they are mixed linearly in the share of the steps that is done. A third set is
    what is added for each unit of ln(N/50)/4, with N the number of steps.

    Attributes:
        order: the highest sum of the powers of y and p.
        start: a loss, by name or formula, whose gradient the first polynomial is fitted to; one
            that is a polynomial of this order itself, such as "mse", is hit exactly. "0*p" is the
            published start, where all numbers are 0.
        invariant: whether candidates that break the invariant of TaylorGLO's code are refused
            without a training; it looks at slopes where all classes are equally probable.
        invariant_classes: the number of those classes.
    """

    order: Annotated[int, Field(ge=2, le=4)] = 3
    start: str = "mse"
    invariant: bool = False
    invariant_classes: Annotated[int, Field(ge=2, le=1000)] = 10

    vector: ClassVar[bool] = True
    # Population and step size as published; the number of generations is the published limit.
    usual: ClassVar[Mapping[str, Any]] = {
        "strategy": {"kind": "cma_es", "population": 20, "sigma": 1.2},
        "generations": 100,
        "tasks_per_generation": 16,
    }
    reasons: ClassVar[tuple[str, ...]] = ("", "invariant")
    populations: ClassVar[tuple[type, ...]] = (Vectors,)

    @model_validator(mode="after")
    def _can_start(self) -> Self:
        best_fit(self.start, self.order)
        return self

    @property
    def size(self) -> int:
        """How many numbers a candidate is."""
        return self._polynomial_genes + self.prior_genes

    @property
    def _polynomial_genes(self) -> int:
        return POINT + self._sets * len(powers(self.order))

    @property
    def _sets(self) -> int:
        return SETS if self.clock else 1

    def sample(self, n: int, key: Stream) -> Vectors:
        """n times the polynomial that is nearest to the loss of the start."""
        fit = best_fit(self.start, self.order)
        sets = [fit, fit, torch.zeros_like(fit)] if self.clock else [fit]
        start = torch.cat([fit.new_zeros(POINT), *sets])
        return Vectors(self.with_prior_genes(start.repeat(n, 1)))

    def valid(self, population: Vectors) -> Int[Tensor, " P"]:
        """1 for what the invariant refuses, else 0."""
        if not self.invariant:
            return super().valid(population)
        point, coefficients = self._parts(population.vectors())
        return breaks_invariant(point, coefficients[:, 0], self.invariant_classes).long()

    def losses(self, population: Vectors) -> Losses:
        """The candidates, side by side."""
        vectors = population.vectors()
        kind = CompiledPolynomials if kernels.available() else Polynomials
        return kind(*self._parts(vectors), self._by_prior(vectors))

    def formulas(self, population: Vectors) -> tuple[Formula, ...]:
        """The candidates as formulas, their numbers with few digits."""
        vectors = population.vectors()
        rows = vectors[:, : self._polynomial_genes].tolist()
        formulas = [Formula(self._expression(row)) for row in rows]
        by_prior = self._by_prior(vectors)
        if by_prior is None:
            return tuple(formulas)
        moves = [[rounded(x) for x in row] for row in by_prior.tolist()]
        return tuple(adjusted_formula(f, *both) for f, both in zip(formulas, moves, strict=True))

    def _by_prior(self, vectors: Float[Tensor, "P D"]) -> Float[Tensor, "P 2"] | None:
        """τ and κ of every candidate; None where it sees no prior."""
        return torch.stack(self.moves(vectors), 1) if self.prior else None

    def _parts(
        self, vectors: Float[Tensor, "P D"]
    ) -> tuple[Float[Tensor, "P 2"], Float[Tensor, "P S K K"]]:
        """The point, and the coefficients by powers of y and p.

        With a clock these are of the start, of the end, and what the number of steps adds.
        """
        sets = vectors[:, POINT : self._polynomial_genes].unflatten(1, (self._sets, -1))
        return vectors[:, :POINT], by_powers(sets, self.order)

    def _expression(self, genes: list[float]) -> Expression:
        """One candidate's sum, negated; terms that are 0 are left out."""
        v, u = (_distance(x, rounded(theta)) for x, theta in zip((Y, P), genes, strict=False))
        count = len(powers(self.order))
        total: Expression | None = None
        for place, (i, j) in enumerate(powers(self.order)):
            factor = _factor(genes[POINT + place :: count])
            if factor == ZERO:
                continue
            # What is negative is subtracted, where something stands before it.
            negative = factor.is_constant and factor.value < 0 and total is not None
            factor = constant(-factor.value) if negative else factor
            term = reduce(partial(call, "mul"), [factor, *_power(v, i), *_power(u, j)])
            total = term if total is None else call("sub" if negative else "add", total, term)
        return call("mul", ZERO, P) if total is None else total


def powers(order: int) -> list[tuple[int, int]]:
    """The powers of y and of p of every term, in the order of the coefficients."""
    return [(i, j) for i in range(order) for j in range(1, order - i + 1)]


def breaks_invariant(
    point: Float[Tensor, "P 2"], coefficients: Float[Tensor, "P K K"], classes: int
) -> Bool[Tensor, " P"]:
    """Whether TaylorGLO's code refuses polynomials without a training.

    With g the derivative by p of the sum that the loss negates, where all of n classes have
    p = 1/n: g of the label's class is below n - 1 times g of another. Published for the third
    order; for the others it is the same rule.
    """
    p = torch.tensor(1 / classes, dtype=torch.float64)
    slopes = -slopes_at_zero(point, coefficients[:, None])[:, 0]
    of_other, of_label = (
        polynomial(slopes, torch.full((1, 1), y, dtype=p.dtype), p.expand(len(slopes), 1, 1, 1))
        for y in (0.0, 1.0)
    )
    refused: Tensor = of_label < (classes - 1) * of_other
    return refused.flatten()


# Cached: every population starts from it.
@lru_cache(maxsize=64)
def best_fit(start: str, order: int) -> Float[Tensor, " D"]:
    """The coefficients whose gradient at random logits is nearest to a loss's, with the point at 0.

    Nearest by least squares. Hard labels cannot tell y from its square: soft ones, with next to no
    weight, decide between them.

    Raises:
        SettingsError: there is no such loss, or its gradient is not finite.
    """
    teacher = Formulas.of([zoo.read(start)])
    table = by_powers(torch.eye(len(powers(order)), dtype=torch.float64), order)
    terms = Polynomials(table.new_zeros(len(table), POINT), table[:, None])
    key = Stream(0).at("taylor")
    columns, wanted = [], []
    for classes in FITTED:
        logits, hard = situations(128, classes, key.at(classes))
        soft = key.at(classes, "soft").normal(1, 128, classes).softmax(-1)
        logits = logits.double()
        for target, weight in ((hard, 1.0), (soft, SOFT)):
            labels = TrainingTargets(target.double())
            of_terms = terms.bind(labels).logit_gradient(logits.expand(len(table), -1, -1, -1))
            columns.append(weight * of_terms.flatten(1).mT)
            wanted.append(weight * teacher.bind(labels).logit_gradient(logits).flatten())
    pulls = torch.cat(wanted)
    if not pulls.isfinite().all():
        raise SettingsError(f"start: the gradient of {start} is not finite, so nothing can fit it")
    return _least_squares(torch.cat(columns), pulls)


def _least_squares(
    columns: Float[Tensor, "N D"], wanted: Float[Tensor, " N"]
) -> Float[Tensor, " D"]:
    """The shortest of the best factors of the columns, in float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several, it would round differently
    try:
        # One of the columns is 0: a term of p alone moves no logit. `gelsd` leaves its factor at 0.
        found = torch.linalg.lstsq(columns, wanted[:, None], driver="gelsd").solution[:, 0]
    finally:
        torch.set_num_threads(threads)
    # Rounded, so that a loss that is such a polynomial is hit exactly.
    exact: Tensor = found.round(decimals=9).float()
    return exact + 0.0  # never -0.0


def by_powers(coefficients: Float[Tensor, "... D"], order: int) -> Float[Tensor, "... K K"]:
    """The coefficients in a table: row i, column j - 1 for y^i p^j, 0 beyond the order."""
    of = dict(zip(powers(order), coefficients.unbind(-1), strict=True))
    none = torch.zeros_like(coefficients[..., 0])
    span = range(order)
    rows = [torch.stack([of.get((i, j + 1), none) for j in span], -1) for i in span]
    return torch.stack(rows, -2)


def rounded(x: float) -> float:
    """A finite number with few digits; 0 for what is no number."""
    return 0.0 if math.isnan(x) else max(-LARGEST, min(LARGEST, float(f"{x:.{DIGITS}g}")))


def _distance(x: Expression, theta: float) -> Expression:
    """x - θ."""
    if not theta:
        return x
    return call("add" if theta < 0 else "sub", x, constant(abs(theta)))


def _factor(genes: list[float]) -> Expression:
    """What a term is multiplied by, negated: a number, or one that changes over a training."""
    if len(genes) == 1:
        return constant(-rounded(genes[0]))
    first, last, rise = genes
    # first + t (last - first) + (logn - ln 50) / 4 · rise.
    numbers = (first - DEFAULT_LOGN * rise / 4, last - first, rise / 4)
    still, *changes = (-rounded(x) for x in numbers)
    factor = constant(still)
    for number, terminal in zip(changes, (T, LOGN), strict=True):
        if number:
            change = call("mul", constant(abs(number)), terminal)
            factor = call("add" if number > 0 else "sub", factor, change)
    return factor


def _power(x: Expression, n: int) -> list[Expression]:
    """Factors whose product is x to the power of 0 to 4."""
    square = call("square", x)
    return [[], [x], [square], [x, square], [call("square", square)]][n]
