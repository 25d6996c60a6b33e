"""Outer algorithms: frozen settings, frozen state, ask and tell."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation


class Strategy(Protocol):
    """An outer algorithm: settings, no state."""

    needs_vectors: ClassVar[bool]
    states: ClassVar[tuple[type, ...]]  # what a checkpoint may hold

    def epoch(self, generation: int) -> int:
        """The task epoch of a generation (1, 2, ...).

        Scores of different epochs are never compared.
        """

    def init(self, genome: Variation, key: Stream) -> Any:
        """The state before the first generation.

        A frozen dataclass of tensors, populations and numbers.
        """

    def ask(self, state: Any, genome: Variation, key: Stream) -> tuple[Population, Any]:
        """The candidates to score, and the state that `tell` wants back."""

    def tell(self, state: Any, population: Population, fitness: Float[Tensor, " P"]) -> Any:
        """The state after these candidates got this fitness.

        Higher is better; -inf stands for a failure.
        """

    def mean_candidate(self, state: Any) -> Population:
        """The one candidate that stands for what the state has learned.

        The mean of the current candidates where a mean has a meaning, else the best of them.
        """


@runtime_checkable
class GradientStrategy(Strategy, Protocol):
    """What an outer algorithm is, too, that asks for gradients through trainings."""

    @property
    def unroll(self) -> int | None:
        """Steps of the trainings that gradients go through, from their start; None: all."""

    def follow(self, state: Any, gradient: Float[Tensor, "P D"]) -> Any:
        """The state after the gradients at the candidates, told of after their fitness.

        Of validation cross-entropy: less is better. A derivative that is not known is 0.
        """
