"""What an outer algorithm needs of a search space: first candidates, and their variation."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream


class Variation(Protocol):
    """The part of a search space that an outer algorithm uses."""

    def sample(self, n: int, key: Stream) -> Population:
        """Return n candidates to start from."""

    def mutate(
        self, parents: Population, strength: Float[Tensor, "P ..."], key: Stream
    ) -> Population:
        """Return one child of each parent."""

    def crossover(self, a: Population, b: Population, key: Stream) -> Population:
        """Return one child of row i of `a` and row i of `b`, for every i."""
