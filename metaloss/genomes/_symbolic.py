"""What all genomes of formulas share.

Where they start, what they decode to, and which candidates are not worth a training.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Int
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._filters import REASONS, Filters, examine
from metaloss.genomes._past import SeesPast
from metaloss.losses import zoo
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import C, Expression, call
from metaloss.losses.language.formula import Formula

Row = TypeVar("Row")

RANDOM = "random"


class FormulaGenome:
    """A genome whose candidates are formulas."""

    classes: ClassVar[int | None] = None

    @property
    def originals(self) -> tuple[Formula, ...]:
        """What the search has to beat: it stands for election, however it fared."""
        return ()

    @property
    def reads_past(self) -> bool:
        """Whether a candidate may see what was predicted for an image before."""
        return any(formula.reads_past for formula in self.originals)

    def formulas(self, population: Any) -> tuple[Formula, ...]:
        """The candidates as losses."""
        raise NotImplementedError

    def losses(self, population: Any) -> Losses:
        """The candidates as losses that run together."""
        return Formulas.of(self.formulas(population))

    def describe(self, population: Population, row: int) -> str:
        """The formula."""
        return str(self.formulas(population[row : row + 1])[0])


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Symbolic(SeesPast, FormulaGenome):
    """Settings of every genome that searches for formulas.

    Attributes:
        start: where the search starts: "random", losses by published name or formula, or both, with
            commas between.
        filters: which candidates are not worth a training.
    """

    start: str = RANDOM
    filters: Filters = Field(default_factory=Filters)

    vector: ClassVar[bool] = False
    reasons: ClassVar[tuple[str, ...]] = REASONS

    @field_validator("start")
    @classmethod
    def _known(cls, start: str) -> str:
        for name in parts(start):
            if name != RANDOM and not ((e := seed(name)).varies and e.reads_label):
                raise SettingsError(
                    f"{name} reads too little to start from: a loss needs y or cost, and p or logp"
                )
        return start

    @property
    def seeds(self) -> tuple[Expression, ...]:
        """The losses that `start` names."""
        return tuple(seed(name) for name in parts(self.start) if name != RANDOM)

    @property
    def reads_past(self) -> bool:
        """Whether a candidate may see what was predicted for an image before."""
        return self.past or any(e.reads_past for e in self.seeds)

    def expressions(self, population: Any) -> list[Expression]:
        """What the candidates stand for, each with the sign that they have themselves."""
        raise NotImplementedError

    def started(
        self,
        seeds: Sequence[Row],
        n: int,
        key: Stream,
        fresh: Callable[[int, Random], Row],
        vary: Callable[[Row, Random], Row],
    ) -> list[Row]:
        """The seeds once each, then candidates that `fresh` draws.

        Where "random" is not wanted, mutants of the seeds, which `vary` makes.
        """
        start = list(seeds[:n])
        rows = range(len(seeds), n)
        if RANDOM in parts(self.start):
            return start + [fresh(i, key.at(i).python_rng()) for i in rows]
        return start + [vary(seeds[i % len(seeds)], key.at(i).python_rng()) for i in rows]

    def valid(self, population: Any) -> Int[Tensor, " P"]:
        """0, or the number in `reasons` of why a candidate is not worth a training."""
        return torch.tensor(
            [examine(e, self.filters).reason for e in self.expressions(population)],
            dtype=torch.int64,
        )

    def formulas(self, population: Any) -> tuple[Formula, ...]:
        """The candidates as losses; one whose phenotype stands upside down has its sign turned."""
        return tuple(
            Formula(examine(e, self.filters).expression) for e in self.expressions(population)
        )


def parts(start: str) -> list[str]:
    """What stands between the commas that are in no brackets."""
    names = []
    depth = 0
    first = 0
    for place, c in enumerate(start):
        depth += (c == "(") - (c == ")")
        if c == "," and not depth:
            names.append(start[first:place])
            first = place + 1
    return [part.strip() for part in (*names, start[first:])]


def seed(name: str) -> Expression:
    """A loss by name or formula as an expression that is summed over classes.

    Raises:
        SettingsError: there is none, or it is more than an expression.
    """
    formula = zoo.read(name)
    if not formula.plain_softmax:
        part = "temperature" if formula.temperature != 1 else "scale or shift"
        raise SettingsError(
            f"{name}: its {part} is no part of an expression, so no search can start from it"
        )
    e = formula.expression
    return call("div", e, C) if formula.reduction == "mean" else e
