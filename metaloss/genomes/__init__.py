"""Search spaces: how a loss is represented, sampled, varied, run and described."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jaxtyping import Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.variation import Variation
from metaloss.losses.base import Losses


class SearchSpace(Variation, Protocol):
    """What a search needs: candidates and their variation, and what they are as losses."""

    def losses(self, population: Any) -> Losses:
        """Return the candidates as losses that run together."""


class Genome(SearchSpace, Protocol):
    """A representation of losses: settings, no state. What varies it is `Variation`'s."""

    vector: ClassVar[bool]  # can be seen as real vectors
    usual: ClassVar[Mapping[str, Any]]  # settings of a run that suit it, where no others are given
    reasons: ClassVar[tuple[str, ...]]  # what the codes of `valid` mean
    populations: ClassVar[tuple[type, ...]]  # what a file may hold

    @property
    def classes(self) -> int | None:
        """The one number of classes its losses work for, or None for any."""

    def valid(self, population: Population) -> Int[Tensor, " P"]:
        """Return 0, or the code of the reason why a candidate is not worth a training."""

    def describe(self, population: Population, row: int) -> str:
        """Return one candidate in words or as a formula."""
