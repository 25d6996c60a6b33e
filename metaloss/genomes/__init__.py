"""Search spaces: how a loss is represented, sampled, varied, run and described."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.losses.base import Losses


class Genome(Protocol):
    """A search space: settings, no state."""

    vector: ClassVar[bool]  # can be seen as real vectors
    usual: ClassVar[Mapping[str, Any]]  # settings of a run that suit it, where no others are given
    reasons: ClassVar[tuple[str, ...]]  # what the codes of `valid` mean
    populations: ClassVar[tuple[type, ...]]  # what a file may hold

    @property
    def classes(self) -> int | None:
        """The one number of classes its losses work for, or None for any."""

    def sample(self, n: int, key: Stream) -> Population:
        """n candidates to start from."""

    def mutate(
        self, parents: Population, strength: Float[Tensor, "P ..."], key: Stream
    ) -> Population:
        """One child of each parent."""

    def crossover(self, a: Population, b: Population, key: Stream) -> Population:
        """One child of row i of `a` and row i of `b`, for every i."""

    def valid(self, population: Population) -> Int[Tensor, " P"]:
        """0, or the code of the reason why a candidate is not worth a training."""

    def losses(self, population: Population) -> Losses:
        """The candidates as losses that run together."""

    def describe(self, population: Population, row: int) -> str:
        """One candidate in words or as a formula."""
