"""Regularized evolution: the oldest dies, not the worst (Real 2019; for losses Morgan 2024)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation

__all__ = ["Regularized"]


@dataclass(frozen=True)
class RegularizedState:
    """The current population with its fitness (-inf for a failure) and its ages.

    `born` is the generation in which a candidate was made; `generations` counts those done.
    """

    living: Population
    fitness: Float[Tensor, " P"]
    born: Int[Tensor, " P"]
    generations: int


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Regularized:
    """Children are mutants of tournament winners, and each takes the place of the oldest.

    The papers train one child at a time; here a batch trains together, and its parents are chosen
    among those alive when it is asked for. Even the best dies of age: a run's own records keep it.

    Attributes:
        population: how many live (100 in the papers).
        initial: how many random candidates the first generation has, of which the best live on
            (1000 in Morgan 2024); where they are fewer than `population`, it grows before anyone
            dies.
        batch: the children of a generation.
        tournament: how many of the living, drawn with replacement, the fittest is taken from (20 in
            the papers).
        refresh: how many generations meet the same tasks, on the first of which the living are
            scored again; 0 means all, as in the papers.
        sigma: the strength of mutations, for genomes that have one.
    """

    population: Annotated[int, Field(ge=1, le=4096)] = 64
    initial: Annotated[int, Field(ge=1, le=65536)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    tournament: Annotated[int, Field(ge=1, le=4096)] = 13
    refresh: Annotated[int, Field(ge=0)] = 0
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05

    needs_vectors: ClassVar[bool] = False
    states: ClassVar[tuple[type, ...]] = (RegularizedState,)

    def epoch(self, generation: int) -> int:
        """One for the whole run, or a new one every `refresh` generations."""
        return 1 + (generation - 1) // self.refresh if self.refresh else 1

    def init(self, genome: Variation, key: Stream) -> RegularizedState:
        """The initial samples, all of one age, not yet scored."""
        living = genome.sample(self.initial, key.at("sample"))
        unknown = torch.full((self.initial,), -torch.inf, dtype=torch.float64)
        return RegularizedState(living, unknown, torch.zeros(self.initial, dtype=torch.int64), 0)

    def ask(
        self, state: RegularizedState, genome: Variation, key: Stream
    ) -> tuple[Population, RegularizedState]:
        """The living where an epoch begins; else a batch of mutants."""
        if self._begins(state):
            return state.living, state
        parents = state.living[self._choose(state.fitness, key.at("tournament"))]
        strength = torch.full((self.batch, parents.genes), self.sigma)
        return genome.mutate(parents, strength, key.at("mutate")), state

    def tell(
        self, state: RegularizedState, population: Population, fitness: Float[Tensor, " P"]
    ) -> RegularizedState:
        """The state after a generation.

        Where an epoch begins, the population gets its new fitness; else every child replaces the
        oldest.
        """
        # torch sorts NaN before all other numbers in descending order.
        fitness = fitness.double().masked_fill(fitness.isnan(), -torch.inf)
        if self._begins(state):
            return self._survivors(population, fitness, state.born, state.generations + 1)
        # A child that failed takes nobody's place.
        alive = fitness.isfinite()
        born = torch.cat([state.born, torch.full((int(alive.sum()),), state.generations)])
        fitness = torch.cat([state.fitness, fitness[alive]])
        return self._survivors(
            state.living.cat(population[alive]), fitness, born, state.generations + 1
        )

    def mean_candidate(self, state: RegularizedState) -> Population:
        """The fittest of the living."""
        return state.living[state.fitness.argmax()[None]]

    def _begins(self, state: RegularizedState) -> bool:
        """Whether the next generation is an epoch's first."""
        return state.generations == 0 or self.epoch(state.generations + 1) != self.epoch(
            state.generations
        )

    def _choose(self, fitness: Float[Tensor, " P"], key: Stream) -> Int[Tensor, " B"]:
        """The winner of a tournament for every child."""
        drawn = key.integers(len(fitness), self.batch, self.tournament)
        return drawn.gather(1, fitness[drawn].argmax(1, keepdim=True))[:, 0]

    def _survivors(
        self,
        living: Population,
        fitness: Float[Tensor, " P"],
        born: Int[Tensor, " P"],
        generations: int,
    ) -> RegularizedState:
        """The youngest; of one age the fittest."""
        # By fitness first, then by age: a stable sort keeps the fittest first within one age.
        rows = fitness.argsort(descending=True, stable=True)
        rows = rows[born[rows].argsort(descending=True, stable=True)][: self.population]
        return RegularizedState(living[rows], fitness[rows], born[rows], generations)
