"""Hill climbing with one step size for all genes, set by the 1/5 success rule (Rechenberg 1973)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss import Genome, Population, Stream

__all__ = ["HillClimber"]  # the one name that the registry takes


@dataclass(frozen=True)
class Climb:
    """Where the climb stands, and how far its next steps go."""

    best: Population
    sigma: float


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class HillClimber:
    """All children are mutants of the best candidate, which competes with them.

    Attributes:
        children: of a generation.
        sigma: the strength of the first mutations.
        factor: what the step size grows by where more than a fifth of the children are better than
            their parent.
    """

    children: Annotated[int, Field(ge=1, le=4096)] = 31
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    factor: Annotated[float, Field(gt=1, le=10)] = 1.2

    needs_vectors: ClassVar[bool] = False
    states: ClassVar[tuple[type, ...]] = (Climb,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Genome, key: Stream) -> Climb:
        """One sample."""
        return Climb(genome.sample(1, key.at("sample")), self.sigma)

    def ask(self, state: Climb, genome: Genome, key: Stream) -> tuple[Population, Climb]:
        """The parent and its children.

        This generation's tasks are new, so the parent's old fitness would not compare.
        """
        parents = state.best[torch.zeros(self.children, dtype=torch.int64)]
        strength = torch.full((self.children, parents.genes), state.sigma)
        return state.best.cat(genome.mutate(parents, strength, key.at("mutate"))), state

    def tell(self, state: Climb, population: Population, fitness: Float[Tensor, " P"]) -> Climb:
        """The fittest, the parent where none is fitter; a failure's -inf wins against nothing."""
        better = float((fitness[1:] > fitness[0]).float().mean())
        change = self.factor if better > 0.2 else self.factor**-0.25
        top = fitness.argsort(descending=True, stable=True)[:1]
        return Climb(population[top], state.sigma * change)

    def mean_candidate(self, state: Climb) -> Population:
        """The best so far."""
        return state.best
