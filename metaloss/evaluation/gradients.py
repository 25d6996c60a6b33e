"""The gradient of validation cross-entropy through a family's trainings, chunk by chunk.

What losses are scored by need not be differentiable; what they are refined by is cross-entropy on
the same validation images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.chunking import ChunkPlan, model_of
from metaloss.errors import SettingsError
from metaloss.genomes import Genome
from metaloss.inner.classifiers._compiled_adjoint import with_way_back
from metaloss.inner.unrolled import MEMORY, validation_gradient
from metaloss.losses.base import Losses, TrainingTargets, one_hot, reads_past
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.full_training import FullTrainingTasks
from metaloss.tasks.mixture import Mixture
from metaloss.tasks.opening import Family, OpenFamily
from metaloss.tasks.protocols import Engine

LossesOf = Callable[[Float[Tensor, "P D"]], Losses]


def check_followed(genome: Genome) -> None:
    """Refuse a genome without losses that autograd goes through.

    Raises:
        SettingsError: no gradient reaches its numbers.
    """
    population = genome.sample(1, Stream(0).at("followed"))
    vectors = population.vectors().clone().requires_grad_()
    classes = genome.classes or 2
    losses = genome.losses(population.from_vectors(vectors))
    if reads_past(losses):
        kind = registry.kind(genome)
        raise SettingsError(f"genome '{kind}' has losses that read `past`: no gradient goes there")
    bound = losses.bind(TrainingTargets(one_hot(torch.zeros(1, 1, dtype=torch.long), classes)))
    if not bound.logit_gradient(torch.zeros(1, 1, 1, classes)).requires_grad:
        kind = registry.kind(genome)
        raise SettingsError(f"genome '{kind}' has losses whose numbers no gradient reaches")


def check_trainings(family: Family) -> None:
    """Refuse a family with trainings that no gradient goes through.

    Raises:
        SettingsError: its tasks are full trainings, or have another classifier or optimiser.
    """
    if family.gradient_obstacle:
        raise SettingsError(f"{family.name}: no gradient goes through {family.gradient_obstacle}")


def episodic(family: OpenFamily) -> Episodes | Mixture:
    """A family whose trainings gradients go through.

    Raises:
        SettingsError: they do not.
    """
    check_trainings(family.family)
    assert not isinstance(family, FullTrainingTasks)
    return family


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of P candidates on tasks of one family.

    Attributes:
        steps: of a training; the family's own number where None.
        validation: images per class that cross-entropy is taken of.
    """

    engine: Engine
    family: Episodes | Mixture
    steps: int | None
    validation: int

    def mean(
        self, losses: LossesOf, vectors: Float[Tensor, "P D"], key: Stream, tasks: int
    ) -> Float[Tensor, "P D"]:
        """The mean over tasks of the gradient of validation cross-entropy.

        Tasks are those on which a search scores candidates by this key. Where a number's derivative
        is not finite on some task, as that of a training that diverges, the mean leaves out the
        tasks of its chunk; where it leaves out all, it is 0.

        Args:
            losses: from numbers to losses, through which autograd goes.
            vectors: the numbers of P candidates.
            key: of the tasks.
            tasks: how many.
        """
        total = torch.zeros_like(vectors, dtype=torch.float64)
        count = torch.zeros_like(total)
        for rows, size, gradient in self._parts(losses, vectors, key, tasks):
            finite = gradient.isfinite()
            total[rows] += gradient.where(finite, 0)
            count[rows] += size * finite
        return (total / count.clamp(min=1)).to(vectors)

    def _parts(
        self, losses: LossesOf, vectors: Float[Tensor, "P D"], key: Stream, tasks: int
    ) -> Iterator[tuple[slice, int, Float[Tensor, "p D"]]]:
        """Of each chunk its candidates, its number of tasks, and its sum over them."""
        jobs = [
            (chunk, losses, vectors)
            for episodes, numbers in self.family.episodes_of(key, range(tasks))
            for chunk in self._chunks(episodes, numbers, key, len(vectors))
        ]
        gradients = self.engine.map(lambda job: job[0].gradient(*job[1:]), jobs)
        for (chunk, *_), gradient in zip(jobs, gradients, strict=True):
            yield chunk.rows, len(chunk.tasks), gradient

    @property
    def memory(self) -> int:
        """Bytes of parameters that a chunk may keep: its share, as others run beside it."""
        share = self.engine.memory // max(1, self.engine.workers)
        return min(MEMORY, share) >> self.engine.halvings

    def _chunks(
        self, episodes: Episodes, numbers: Sequence[int], key: Stream, candidates: int
    ) -> Iterator["GradientChunk"]:
        """The chunks of candidates × tasks of one kind."""
        inner = episodes.family.inner
        inner = inner if self.steps is None else replace(inner, steps=self.steps)
        episodes = replace(episodes, family=replace(episodes.family, inner=inner))
        drawn = episodes.sample([key.at("task", t) for t in numbers], "train", self.validation)
        starts = [key.at("init", t) for t in numbers]
        for places, tasks in drawn.by_size():
            keys = [starts[t] for t in places.tolist()]
            plan = self.engine.plan(episodes, inner, candidates, len(tasks))
            for first in range(0, len(tasks), plan.tasks):
                column = slice(first, first + plan.tasks)
                for row in range(0, candidates, plan.candidates):
                    rows = slice(row, row + plan.candidates)
                    yield GradientChunk(
                        episodes,
                        plan,
                        rows,
                        tasks[column],
                        keys[column],
                        self.memory,
                        self.engine.stop,
                    )


@dataclass(frozen=True, eq=False)
class GradientChunk:
    """Some candidates on some tasks."""

    episodes: Episodes
    plan: ChunkPlan
    rows: slice
    tasks: Tasks
    keys: list[Stream]
    memory: int
    stop: Callable[[], bool]

    def gradient(self, losses: LossesOf, vectors: Float[Tensor, "P D"]) -> Float[Tensor, "p D"]:
        """Of the sum over the tasks, by the candidates' numbers."""
        model: Any = with_way_back(model_of(self.episodes, self.plan))
        return validation_gradient(
            losses,
            vectors[self.rows],
            model,
            model.bind(self.tasks, self.keys),
            self.tasks,
            inner=self.episodes.family.inner,
            keys=self.keys,
            block=self.plan.images,
            memory=self.memory,
            stop=self.stop,
        ).gradient
