"""Outer algorithms: frozen settings, frozen state, ask and tell."""

from typing import Any, ClassVar, Protocol

from jaxtyping import Float
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream


class Genome(Protocol):
    """The part of a search space that an outer algorithm uses."""

    def sample(self, n: int, key: Stream) -> Population:
        """n candidates to start from."""

    def mutate(
        self, parents: Population, strength: Float[Tensor, "P ..."], key: Stream
    ) -> Population:
        """One child of each parent."""

    def crossover(self, a: Population, b: Population, key: Stream) -> Population:
        """One child of row i of `a` and row i of `b`, for every i."""


class Strategy(Protocol):
    """An outer algorithm: settings, no state."""

    needs_vectors: ClassVar[bool]
    states: ClassVar[tuple[type, ...]]  # what a checkpoint may hold

    def epoch(self, generation: int) -> int:
        """The task epoch of a generation (1, 2, ...): scores of different epochs are never compared."""

    def init(self, genome: Genome, key: Stream) -> Any:
        """The state before the first generation: a frozen dataclass of tensors, populations and numbers."""

    def ask(self, state: Any, genome: Genome, key: Stream) -> tuple[Population, Any]:
        """The candidates to score, and the state that `tell` wants back."""

    def tell(self, state: Any, population: Population, fitness: Float[Tensor, " P"]) -> Any:
        """The state after these candidates got this fitness (higher is better; -inf for a failure)."""

    def centre(self, state: Any) -> Population:
        """One candidate for what the state has learned: the mean of the living, where that means anything."""
