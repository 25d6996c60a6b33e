"""Genetic programming with a success-history archive (Next Generation Loss, arXiv 2404.12948)."""

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

__all__ = ["Gp"]


@dataclass(frozen=True)
class GpState:
    """The μ parents, best first, and the archive.

    Between `ask` and `tell` it holds a random number in [0, 1) per candidate, too.
    """

    parents: Population
    archive: Population
    draws: Float[Tensor, " P"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Gp:
    """Each child is a cross or a mutant of tournament winners; the best μ of parents and children
    live on.

    An archive of at most μ candidates that once failed selection lends second parents to crosses.
    The paper prints none of these values: those here are ours, as are tournaments and parsimony.

    Attributes:
        mu: the number of parents.
        lambda_: the number of children.
        crossover: the probability that a child is a cross; else it is a mutant.
        tournament: how many parents, drawn with replacement, the best is taken from; 1 means any
            parent.
        store: the probability that a candidate which is not selected goes to the archive.
        recall: the probability that a cross's second parent comes from there.
        parsimony: the fitness that each further unit of size costs.
        sigma: the strength of mutations, for genomes that have one.
    """

    mu: Annotated[int, Field(ge=1, le=4096)] = 32
    lambda_: Annotated[int, Field(ge=1, le=4096)] = 32
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.7
    tournament: Annotated[int, Field(ge=1, le=4096)] = 2
    store: Annotated[float, Field(ge=0, le=1)] = 0.2
    recall: Annotated[float, Field(ge=0, le=1)] = 0.2
    parsimony: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05

    needs_vectors: ClassVar[bool] = False
    states: ClassVar[tuple[type, ...]] = (GpState,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> GpState:
        """μ samples and an empty archive."""
        parents = genome.sample(self.mu, key.at("sample"))
        # An empty slice has the parents' type and shapes, so that rows can be joined to it.
        return GpState(parents, parents[:0], torch.zeros(0))

    def ask(self, state: GpState, genome: Variation, key: Stream) -> tuple[Population, GpState]:
        """Parents and children together.

        This generation's tasks are new, so the parents' old fitness would not compare.
        """
        children = self._breed(state, genome, key)
        # `tell` draws nothing itself, and from an archive in random order it forgets at random by
        # dropping the end.
        archive = state.archive[key.at("forget").permutation(len(state.archive))]
        draws = key.at("luck").uniform(self.mu + self.lambda_)
        return state.parents.cat(children), GpState(state.parents, archive, draws)

    def tell(self, state: GpState, population: Population, fitness: Float[Tensor, " P"]) -> GpState:
        """The state with the μ best as parents.

        Of the others, those whose draw is below `store` enter the archive in place of random old
        ones.
        """
        order = self._order(population, fitness)
        best = order[: self.mu]
        others = order[self.mu :]
        stored = others[fitness[others].isfinite() & (state.draws[others] < self.store)]
        # New ones first: what is cut off at μ is old, and in random order since `ask`.
        archive = population[stored].cat(state.archive)[: self.mu]
        return GpState(population[best], archive, state.draws[:0])

    def mean_candidate(self, state: GpState) -> Population:
        """The mean of the parents, where they are vectors; else the fittest."""
        return state.parents.mean_candidate()

    def _breed(self, state: GpState, genome: Variation, key: Stream) -> Population:
        """λ children: first the crosses, then the mutants."""
        crossed = key.at("operator").uniform(self.lambda_) < self.crossover
        rows = self._choose(key.at("first"))
        others = self._partners(state, key)
        children = state.parents[:0]
        if crossed.any():
            a = state.parents[rows[crossed]]
            b = state.parents.cat(state.archive)[others[crossed]]
            children = children.cat(genome.crossover(a, b, key.at("cross")))
        if not crossed.all():
            parents = state.parents[rows[~crossed]]
            strength = torch.full((len(parents), parents.genes), self.sigma)
            children = children.cat(genome.mutate(parents, strength, key.at("mutate")))
        return children

    def _choose(self, key: Stream) -> Int[Tensor, " lambda"]:
        """The winner of a tournament for every child.

        As parents are ordered best first, it is the lowest row drawn.
        """
        return key.integers(self.mu, self.lambda_, self.tournament).amin(1)

    def _partners(self, state: GpState, key: Stream) -> Int[Tensor, " lambda"]:
        """A second parent for every child; rows from μ on are the archive's."""
        others = self._choose(key.at("second"))
        n = len(state.archive)
        if not n:
            return others
        recalled = key.at("recall").uniform(self.lambda_) < self.recall
        return torch.where(recalled, self.mu + key.at("archive").integers(n, self.lambda_), others)

    def _order(self, population: Population, fitness: Float[Tensor, " P"]) -> Int[Tensor, " P"]:
        """All rows, best first.

        Of equals the smaller comes first, then the older; of failures the older.
        """
        failed = ~fitness.isfinite()
        sizes = population.sizes
        value = (fitness.double() - self.parsimony * (sizes - 1)).masked_fill(failed, -torch.inf)
        # Two stable sorts: the first one decides among equals of the second.
        rows = sizes.masked_fill(failed, 0).argsort(stable=True)
        return rows[value[rows].argsort(descending=True, stable=True)]
