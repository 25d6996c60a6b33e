"""(μ+λ) evolution strategy with one self-adapted step size per gene.

After Hai 2021, algorithm 1, and Schwefel 1995.
"""

import math
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

__all__ = ["MuPlusLambda"]


@dataclass(frozen=True)
class MuPlusLambdaState:
    """The μ parents and their step sizes.

    Between `ask` and `tell` it holds the step sizes of all candidates, too.
    """

    parents: Population
    sigma: Float[Tensor, "mu D"]
    asked: Float[Tensor, "P D"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class MuPlusLambda:
    """Each child is a mutated parent, or a mutated cross of two; the best μ of parents and children
    live on.

    The paper prints neither population size, initial step size nor learning rates, nor whether
    parents are crossed: those here are ours.
    """

    mu: Annotated[int, Field(ge=1, le=4096)] = 8
    lambda_: Annotated[int, Field(ge=1, le=4096)] = 24
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    crossover: bool = True

    needs_vectors: ClassVar[bool] = False
    states: ClassVar[tuple[type, ...]] = (MuPlusLambdaState,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> MuPlusLambdaState:
        """μ mutants of what the genome samples, all with the same step size."""
        start = genome.sample(self.mu, key.at("sample"))
        sigma = torch.full((self.mu, start.genes), self.sigma)
        return MuPlusLambdaState(genome.mutate(start, sigma, key.at("mutate")), sigma, sigma[:0])

    def ask(
        self, state: MuPlusLambdaState, genome: Variation, key: Stream
    ) -> tuple[Population, MuPlusLambdaState]:
        """Parents and children together.

        This generation's tasks are new, so the parents' old fitness would not compare.
        """
        rows = self._choose(key.at("first"))
        others = self._choose(key.at("second"))
        parents = state.parents[rows]
        sigma = state.sigma[rows]
        if self.crossover:
            parents = genome.crossover(parents, state.parents[others], key.at("cross"))
            # The geometric mean, because step sizes change by factors.
            sigma = (sigma * state.sigma[others]).sqrt()
        # Before the genes: selection then judges the new step sizes by what they led to.
        sigma = self._vary(sigma, key.at("sigma"))
        children = genome.mutate(parents, sigma, key.at("mutate"))
        return state.parents.cat(children), MuPlusLambdaState(
            state.parents, state.sigma, torch.cat([state.sigma, sigma])
        )

    def tell(
        self, state: MuPlusLambdaState, population: Population, fitness: Float[Tensor, " P"]
    ) -> MuPlusLambdaState:
        """The μ fittest, step sizes with them; the older of two equals."""
        best = fitness.argsort(descending=True, stable=True)[: self.mu]
        return MuPlusLambdaState(population[best], state.asked[best], state.asked[:0])

    def mean_candidate(self, state: MuPlusLambdaState) -> Population:
        """The mean of the parents, where they are vectors; else the fittest."""
        return state.parents.mean_candidate()

    def _choose(self, key: Stream) -> Int[Tensor, " lambda"]:
        """A parent for every child; none serves twice before all have served once."""
        # Whole permutations one after the other, the last one cut.
        rounds = -(-self.lambda_ // self.mu)
        return torch.cat([key.at(i).permutation(self.mu) for i in range(rounds)])[: self.lambda_]

    def _vary(self, sigma: Float[Tensor, "L D"], key: Stream) -> Float[Tensor, "L D"]:
        """Log-normal self-adaptation: σ' = σ exp(τ' N + τ N_i), τ' = 1/√(2D), τ = 1/√(2√D)."""
        n, d = sigma.shape
        common = key.at("common").normal(n, 1)
        per_gene = key.at("own").normal(n, d)
        return sigma * torch.exp(common / math.sqrt(2 * d) + per_gene / math.sqrt(2 * math.sqrt(d)))
