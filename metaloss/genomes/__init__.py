"""Search spaces: how a loss is represented, sampled, varied, run and described."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.variation import Variation
from metaloss.genomes._filters import Filters
from metaloss.losses.base import Losses
from metaloss.losses.language.formula import Formula


class SearchSpace(Variation, Protocol):
    """What a search needs: candidates and their variation, and what they are as losses."""

    def losses(self, population: Any) -> Losses:
        """Return the candidates as losses that run together."""

    def valid(self, population: Any) -> Int[Tensor, " P"]:
        """Return 0, or the code of the reason why a candidate is not worth a training."""


class Genome(SearchSpace, Protocol):
    """A representation of losses: settings, no state. What varies it is `Variation`'s."""

    vector: ClassVar[bool]  # can be seen as real vectors
    usual: ClassVar[Mapping[str, Any]]  # settings of a run that suit it, where no others are given
    reasons: ClassVar[tuple[str, ...]]  # what the codes of `valid` mean
    populations: ClassVar[tuple[type, ...]]  # what a file may hold

    @property
    def classes(self) -> int | None:
        """The one number of classes its losses work for, or None for any."""

    def describe(self, population: Population, row: int) -> str:
        """Return one candidate in words or as a formula."""


# Whether a genome is of one of these kinds, `isinstance` asks by the names: a genome of a user's
# own need not inherit from anything.
@runtime_checkable
class FormulaSpace(Protocol):
    """What a genome has, too, whose candidates are formulas."""

    @property
    def originals(self) -> tuple[Formula, ...]:
        """The formulas that a search has to beat: they stand among the finalists."""

    def formulas(self, population: Any) -> tuple[Formula, ...]:
        """Return the candidates as formulas."""


@runtime_checkable
class SymbolicGenome(FormulaSpace, Protocol):
    """What a genome has, too, that searches for new formulas."""

    @property
    def filters(self) -> Filters:
        """What makes a formula not worth a training."""


@runtime_checkable
class Exportable(Protocol):
    """What a genome has, too, whose losses can be written as Python that needs torch alone."""

    def torch_source(self, population: Any) -> list[str]:
        """Return the lines of a function of logits z [N C] and targets y [N C].

        It returns the terms, [N C], of the one loss of a population.
        """
