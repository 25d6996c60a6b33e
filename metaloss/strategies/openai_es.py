"""Antithetic evolution strategy on a real vector.

After Salimans 2017, algorithm 1, with rank shaping and Adam.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation
from metaloss.strategies._adam import adam_step

__all__ = ["OpenaiEs"]


@dataclass(frozen=True)
class OpenaiEsState:
    """The searched vector, Adam's two moments, and the number of steps made."""

    mean_candidate: Population
    mean: Float[Tensor, " D"]
    square: Float[Tensor, " D"]
    steps: int


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class OpenaiEs:
    """Steps the vector along the rank-weighted sum of mirrored perturbations."""

    population: Annotated[int, Field(ge=2, le=4096)] = 32
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99

    needs_vectors: ClassVar[bool] = True
    states: ClassVar[tuple[type, ...]] = (OpenaiEsState,)

    @field_validator("population")
    @classmethod
    def _even(cls, n: int) -> int:
        if n % 2:
            raise ValueError("must be even, as perturbations come in mirrored pairs")
        return n

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> OpenaiEsState:
        """The first sample, and no momentum."""
        centre = genome.sample(1, key.at("sample"))
        zeros = torch.zeros(centre.vectors().shape[1])
        return OpenaiEsState(centre, zeros, zeros, 0)

    def ask(
        self, state: OpenaiEsState, genome: Variation, key: Stream
    ) -> tuple[Population, OpenaiEsState]:
        """Mirrored pairs around the vector."""
        x = state.mean_candidate.vectors()
        # In a mirrored pair the even part of the fitness cancels: the estimate is less noisy.
        noise = key.at("noise").normal(self.population // 2, x.shape[1]) * self.sigma
        return state.mean_candidate.from_vectors(torch.cat([x + noise, x - noise])), state

    def tell(
        self, state: OpenaiEsState, population: Population, fitness: Float[Tensor, " P"]
    ) -> OpenaiEsState:
        """One Adam step up the estimated gradient.

        Ranks take the place of fitness, so that neither its scale nor a failure's -inf matters.
        """
        # Taken from the candidates again, so that a checkpoint need not hold it.
        noise = (population.vectors() - state.mean_candidate.vectors()) / self.sigma
        # Equals share their rank, so that where all fail nothing moves.
        below = (fitness[:, None] > fitness).sum(1) + 0.5 * (fitness[:, None] == fitness).sum(1)
        utility = below / len(fitness) - 0.5
        grad = (utility[:, None] * noise).mean(0) / self.sigma
        t = state.steps + 1
        betas = (self.beta1, self.beta2)
        step, mean, square = adam_step(grad, state.mean, state.square, t, self.lr, betas)
        centre = state.mean_candidate.from_vectors(state.mean_candidate.vectors() + step)
        return replace(state, mean_candidate=centre, mean=mean, square=square, steps=t)

    def mean_candidate(self, state: OpenaiEsState) -> Population:
        """The vector that the next candidates are drawn around."""
        return state.mean_candidate
