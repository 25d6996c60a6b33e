"""A generation's best refined by gradients before the strategy learns of them (memetic search).

As EvoMAL refines what its evolution finds (Raymond 2023): what becomes better takes the place of
what it was, in the population itself.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.evolution import Evaluator, Gradients, Objective, Scored
from metaloss.genomes import SearchSpace
from metaloss.strategies.gradient import Gradient, GradientState


class RefinementStage(BaseModel):
    """When and how candidates are refined.

    Attributes:
        every: so many generations; 0: never.
        best: how many of a generation.
        steps: of each.
        lr: of Adam.
        unroll: steps of the trainings that gradients go through, from their start; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    best: Annotated[int, Field(ge=1, le=4096)] = 2
    steps: Annotated[int, Field(ge=1, le=10_000)] = 5
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    unroll: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.every and self != RefinementStage.model_construct():
            raise ValueError(
                "every = 0 refines nothing, so the other settings of it do nothing: give "
                "refine.every, as refine.every=20, or leave them out"
            )
        return self

    def at(self, generation: int) -> bool:
        """Whether a generation's best are refined."""
        return self.every > 0 and generation % self.every == 0


@dataclass(frozen=True)
class Refiner:
    """Refines a generation's best.

    Attributes:
        stage: how.
        genome: the search space.
        gradients: go through trainings.
        score: trains candidates on the generation's tasks.
        objective: from scores to fitness.
        key: of the fresh tasks that gradients are taken on.
    """

    stage: RefinementStage
    genome: SearchSpace
    gradients: Gradients
    score: Evaluator
    objective: Objective
    key: Stream

    def __call__(self, scored: Scored, tasks: Stream) -> Scored:
        """The generation, with what became better in the place of what it was.

        Refined candidates meet the tasks that the others met.

        Args:
            scored: the generation.
            tasks: the key of its tasks.
        """
        order = scored.fitness.argsort(descending=True, stable=True)[: self.stage.best]
        rows = order[scored.fitness[order].isfinite()]
        if not len(rows):
            return scored
        refined = self._refined(scored.population[rows])
        measured, _ = self.score(self.genome.losses(refined), tasks)
        fitness = self.objective(measured, scored.family, scored.baseline)
        better = (self.genome.valid(refined) == 0) & (fitness > scored.fitness[rows])
        places = rows[better]
        vectors = scored.population.vectors().clone()
        vectors[places] = refined.vectors()[better]
        return replace(
            scored,
            population=scored.population.from_vectors(vectors),
            measured=scored.measured.index_copy(0, places, measured[better]),
            fitness=scored.fitness.index_copy(0, places, fitness[better]),
            refined=len(places),
        )

    def _refined(self, population: Population) -> Population:
        """Candidates after some steps, each down its own gradients."""
        descent = Gradient(lr=self.stage.lr)
        zeros = torch.zeros_like(population.vectors())
        state = GradientState(population, zeros, zeros, 0)
        for step in range(self.stage.steps):
            gradient = self.gradients(state.mean_candidate, self.key.at(step))
            state = descent.follow(state, gradient)
        return state.mean_candidate
