"""Random search: the control experiment.

Every other strategy has to beat it with the same number of trainings.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearchState:
    """The best candidate so far, as a population of one."""

    best: Population


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class RandomSearch:
    """Every generation draws fresh mutants of fresh samples.

    The best candidate is scored again beside them.
    """

    population: Annotated[int, Field(ge=2, le=4096)] = 32
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05

    needs_vectors: ClassVar[bool] = False
    states: ClassVar[tuple[type, ...]] = (RandomSearchState,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> RandomSearchState:
        """Draw one candidate, which the first ones have to beat."""
        return RandomSearchState(genome.sample(1, key.at("sample")))

    def ask(
        self, state: RandomSearchState, genome: Variation, key: Stream
    ) -> tuple[Population, RandomSearchState]:
        """The best so far and fresh candidates.

        They are mutated by step sizes spread over four octaves around `sigma`.
        """
        n = self.population - 1
        fresh = genome.sample(n, key.at("sample"))
        # Without adaptation no single step size would suit every genome.
        strength = self.sigma * 2 ** key.at("strength").uniform(n, 1, low=-2.0, high=2.0).expand(
            n, fresh.genes
        )
        return state.best.cat(genome.mutate(fresh, strength, key.at("mutate"))), state

    def tell(
        self, state: RandomSearchState, population: Population, fitness: Float[Tensor, " P"]
    ) -> RandomSearchState:
        """The best of this generation; the older of two equals."""
        # The old best is the first row, and a stable sort keeps it before its equals.
        top = fitness.argsort(descending=True, stable=True)[:1]
        return RandomSearchState(population[top])

    def mean_candidate(self, state: RandomSearchState) -> Population:
        """The best so far."""
        return state.best
