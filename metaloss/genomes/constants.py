"""The constants of one formula, multiplied by factors.

A search for formulas leaves them to be tuned afterwards (as GLO does).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import ConfigDict, field_validator, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._prior import SeesPrior, adjusted_by, adjusted_formula
from metaloss.genomes._symbolic import FormulaGenome
from metaloss.genomes._vectors import RealVectors
from metaloss.losses import zoo
from metaloss.losses.base import Losses
from metaloss.losses.clock import HALFWAY
from metaloss.losses.language.expression import Expression, T, call, constant
from metaloss.losses.language.formula import NO_SCALE, NO_SHIFT, Formula
from metaloss.losses.tunable_formulas import TunableFormulas

__all__ = ["Constants"]

FAR = 20.0  # genes beyond it count as it: e^20 is further than any search should go
LARGEST = 1e300  # a constant stays a finite number, or its formula could not be read again


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Constants(SeesClock, SeesPrior, RealVectors, FormulaGenome):
    """The formula whose constants are tuned.

    Every place of a constant is a gene v: the constant c becomes c·exp(v), so that a step of 0.05
    is one of 5 % and no sign turns; 0 becomes v. All genes 0 are the formula as it is. Its
    reduction and temperature stay; the constants of its scale and shift are tuned as well.

    With `clock` there is a second gene w for every constant, which changes over a training: it is
    multiplied by exp(w·(t - 1/2)), t the share of the steps that is done.

    Attributes:
        formula: a published loss by name, with parameters or without, or a formula.
    """

    formula: str = "poly1"

    start_tau: ClassVar[float] = 0.0
    vector: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, Any]] = {"strategy": {"kind": "mu_plus_lambda"}, "generations": 80}
    reasons: ClassVar[tuple[str, ...]] = ("",)
    populations: ClassVar[tuple[type, ...]] = (Vectors,)

    @field_validator("formula")
    @classmethod
    def _has_constants(cls, formula: str) -> str:
        if not any(values(e) for e in zoo.read(formula).expressions):
            raise SettingsError(
                f"{formula} has no constants to tune; put some in, as in '1.1 * -y * logp'"
            )
        return formula

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.clock:
            # A course takes nodes, and a winner's text must be read again.
            genes = torch.ones_like(self.sample(1, Stream(0)).values)
            Formula.parse(str(self.formulas(Vectors(genes))[0]))
        return self

    @property
    def original(self) -> Formula:
        """The formula as it is."""
        return _read(self.formula)

    @property
    def originals(self) -> tuple[Formula, ...]:
        """The formula as it is: where nothing is better, it wins."""
        return (self.original,)

    def sample(self, n: int, key: Stream) -> Vectors:
        """n times the formula as it is."""
        genes = sum(len(values(e)) for e in self.original.expressions)
        return Vectors(torch.zeros(n, genes * self._genes_each + self.prior_genes))

    def formulas(self, population: Vectors) -> tuple[Formula, ...]:
        """The formula with every candidate's constants."""
        formula = self.original
        vectors = population.vectors()
        moved, courses = self._moved(vectors)
        rows = [[constant(x) for x in row] for row in moved.tolist()]
        if self.clock:
            pairs = [zip(*both, strict=True) for both in zip(rows, courses.tolist(), strict=True)]
            rows = [[with_course(c, constant(w)) if w else c for c, w in row] for row in pairs]
        formulas = [_rewritten(formula, row) for row in rows]
        if not self.prior:
            return tuple(formulas)
        moves = zip(*(x.tolist() for x in self.moves(vectors.double())), strict=True)
        return tuple(adjusted_formula(f, *move) for f, move in zip(formulas, moves, strict=True))

    def losses(self, population: Vectors) -> Losses:
        """The candidates as losses that run together."""
        vectors = population.vectors()
        # A number that is written into a formula is no part of autograd's graph.
        return self._tunable(vectors) if vectors.requires_grad else super().losses(population)

    def _tunable(self, vectors: Float[Tensor, "P D"]) -> TunableFormulas:
        """The candidates as one formula in which names stand for the constants.

        Raises:
            SettingsError: the formula reads the images' past, which no gradient goes through.
        """
        if self.original.reads_past:
            raise SettingsError(f"{self.formula} reads `past`, and no gradient goes through that")
        moved, courses = self._moved(vectors)
        numbers = dict(enumerate(torch.cat([moved, courses], 1).unbind(1)))
        names = [Expression(f"#{i}") for i in numbers]
        constants = names[: moved.shape[1]]
        if self.clock:
            pairs = zip(constants, names[moved.shape[1] :], strict=True)
            constants = [with_course(*pair) for pair in pairs]
        formula = _rewritten(self.original, constants)
        named = {name.head: x for name, x in zip(names, numbers.values(), strict=True)}
        if self.prior:
            tau, power = self.moves(vectors.double())
            named |= {"#tau": tau, "#exponent": -power}
            formula = adjusted_by(formula, Expression("#tau"), Expression("#exponent"))
        return TunableFormulas(formula, named)

    def _moved(self, vectors: Float[Tensor, "P D"]) -> tuple[Float[Tensor, "P K"], Tensor]:
        """Every candidate's K constants, and how each changes over a training, [P K] or [P 0]."""
        old = [value for e in self.original.expressions for value in values(e)]
        here, later = vectors[:, : len(old)], vectors[:, len(old) : len(old) * self._genes_each]
        return moved(torch.tensor(old, dtype=torch.float64), here), bounded(later)

    @property
    def _genes_each(self) -> int:
        """Genes of every constant."""
        return 2 if self.clock else 1


def _rewritten(formula: Formula, constants: list[Expression]) -> Formula:
    """A formula with these constants, those of its scale and shift last."""
    left = iter(constants)

    def moved_constants(e: Expression, none: Expression | None = None) -> Expression:
        return e if e == none else rewritten(e, [next(left) for _ in values(e)])

    # In the order in which the genes stand.
    expression = moved_constants(formula.expression)
    scale = moved_constants(formula.scale, NO_SCALE)
    shift = moved_constants(formula.shift, NO_SHIFT)
    return replace(formula, expression=expression, scale=scale, shift=shift)


@lru_cache(maxsize=64)
def _read(text: str) -> Formula:
    return zoo.read(text)


def values(e: Expression) -> list[float]:
    """Its constants, in the order in which they are written."""
    return [node.value for node in e if node.is_constant]


def moved(old: Float[Tensor, " D"], genes: Float[Tensor, "P D"]) -> Float[Tensor, "P D"]:
    """Every candidate's constants.

    A gene that is not a number, which only step sizes without bounds bring about, leaves its
    constant as it is.
    """
    v = bounded(genes)
    return (old * v.exp()).where(old != 0, v).clamp(-LARGEST, LARGEST)


def bounded(genes: Float[Tensor, "P D"]) -> Float[Tensor, "P D"]:
    """The genes, no further from 0 than `FAR`; those that are no numbers as 0."""
    return genes.double().nan_to_num(nan=0.0, posinf=FAR, neginf=-FAR).clamp(-FAR, FAR)


def with_course(value: Expression, w: Expression) -> Expression:
    """A constant that is multiplied by exp(w·(t - 1/2))."""
    from_middle = call("sub", T, constant(HALFWAY))
    return call("mul", value, call("exp", call("mul", w, from_middle)))


def rewritten(e: Expression, constants: list[Expression]) -> Expression:
    """The same expression with these in place of its constants, in the order in which they are
    written.
    """
    left = iter(constants)

    def walk(node: Expression) -> Expression:
        if node.is_constant:
            return next(left)
        return (
            Expression(node.head, tuple(walk(a) for a in node.args), node.value)
            if node.args
            else node
        )

    return walk(e)
