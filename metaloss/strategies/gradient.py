"""Gradient descent through the trainings themselves.

As losses are refined in EvoMAL (Raymond 2023) and learned in ML3 (Bechtle 2021): down the gradient
of what classifiers that train with the loss reach on validation images, with Adam (Kingma 2015,
algorithm 1).
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation
from metaloss.strategies._adam import adam_step

__all__ = ["Gradient"]


@dataclass(frozen=True)
class GradientState:
    """The vectors, Adam's two moments, and the number of steps made."""

    mean_candidate: Population
    mean: Float[Tensor, "P D"]
    square: Float[Tensor, "P D"]
    steps: int


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Gradient:
    """Steps one vector down the gradient of validation cross-entropy after trainings.

    The gradient is exact, of the tasks on which the vector is scored in that generation.

    Attributes:
        lr: of Adam, the longest step of a number at first.
        beta1, beta2: the decay of Adam's moments.
        unroll: steps of the trainings that the gradient goes through, from their start; None: all.
        clip: how many times as long as the gradients before it, in the mean square, a gradient
            counts at most: where trainings are about to become unstable, one is thousands of times
            as long as others.
    """

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    unroll: Annotated[int, Field(ge=1, le=100_000)] | None = None
    clip: Annotated[float, Field(gt=0)] = 2.0

    needs_vectors: ClassVar[bool] = True
    states: ClassVar[tuple[type, ...]] = (GradientState,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> GradientState:
        """The first sample, and no momentum."""
        first = genome.sample(1, key.at("sample"))
        zeros = torch.zeros_like(first.vectors())
        return GradientState(first, zeros, zeros, 0)

    def ask(
        self, state: GradientState, genome: Variation, key: Stream
    ) -> tuple[Population, GradientState]:
        """The vector alone."""
        return state.mean_candidate, state

    def tell(
        self, state: GradientState, population: Population, fitness: Float[Tensor, " P"]
    ) -> GradientState:
        """The same: fitness moves nothing."""
        return state

    def follow(self, state: GradientState, gradient: Float[Tensor, "P D"]) -> GradientState:
        """One step of Adam; a number whose derivative is 0 coasts."""
        betas = (self.beta1, self.beta2)
        t = state.steps + 1
        gradient = self._clipped(gradient, state)
        step, mean, square = adam_step(gradient, state.mean, state.square, t, self.lr, betas)
        vector = state.mean_candidate.vectors() - step
        there = state.mean_candidate.from_vectors(vector)
        return replace(state, mean_candidate=there, mean=mean, square=square, steps=t)

    def _clipped(
        self, gradient: Float[Tensor, "P D"], state: GradientState
    ) -> Float[Tensor, "P D"]:
        """The gradient of each vector, shortened where it is much longer than those before it."""
        if not state.steps:
            return gradient
        mean_square = state.square.sum(1, keepdim=True) / (1 - self.beta2**state.steps)
        length = gradient.norm(dim=1, keepdim=True)
        longest = self.clip * mean_square.sqrt()
        # Where all before were 0 nothing is known of the length.
        return gradient.where((length <= longest) | (longest == 0), gradient * (longest / length))

    def mean_candidate(self, state: GradientState) -> Population:
        """The vector."""
        return state.mean_candidate
