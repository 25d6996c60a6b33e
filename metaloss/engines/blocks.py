"""Work in blocks: losses on tasks of one size in memory, cut into chunks of candidates × tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.chunking import ChunkPlan, model_of
from metaloss.engines.isolation import isolated, raise_if_all_failed
from metaloss.evolution import evaluate
from metaloss.inner.classifiers import Bound, Classifier
from metaloss.inner.loop import Inner
from metaloss.inner.observers import Observer
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.protocols import EpisodeTrainings

# A chunk's result by its first candidate and task.
Parts = dict[tuple[int, int], Tensor | Exception]


@dataclass(frozen=True, eq=False)
class Column:
    """Some tasks, and how they are learned: what the chunks on them share.

    Attributes:
        model: the classifier in the form that the plan chose.
        tasks: T of them.
        keys: one per task.
        images: validation images looked at at once.
    """

    model: Classifier
    tasks: Tasks
    keys: list[Stream]
    images: int

    def __getitem__(self, tasks: slice) -> Self:
        """Some of the tasks."""
        return replace(self, tasks=self.tasks[tasks], keys=self.keys[tasks])


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some candidates on some tasks: what is seen of them follows from this alone."""

    column: Column
    losses: Losses
    inner: Inner
    lr: Rate | None
    marks: tuple[int, ...]
    metric: Observer

    @property
    def cost(self) -> float:
        """About how much work it is: steps of training times images."""
        tasks = self.column.tasks
        return float(len(self.losses) * tasks.train.rows.numel() * self.inner.steps)

    @property
    def own(self) -> tuple[Losses, Inner, Rate | None, tuple[int, ...], Observer]:
        """All of it but the column, in the order of its fields."""
        return self.losses, self.inner, self.lr, self.marks, self.metric

    def one(self, candidate: int) -> Self:
        """One of the candidates on these tasks."""
        row = slice(candidate, candidate + 1)
        lr = self.lr[row] if isinstance(self.lr, Tensor) else self.lr
        return replace(self, losses=self.losses[row], lr=lr)

    def observe(
        self, bound: Bound, stop: Callable[[], bool] = lambda: False
    ) -> Float[Tensor, "M p t ..."]:
        """What the metric shows.

        Args:
            bound: the tasks, made ready.
            stop: asked after every step; True drops the work.

        Raises:
            Interrupted: it was told to stop.
            Exception: what the losses raise, where every one of them does.
        """
        column = self.column

        def run(losses: Losses) -> Float[Tensor, "M p t ..."]:
            return evaluate(
                losses,
                column.model,
                bound,
                column.tasks,
                inner=self.inner,
                lr=self.lr,
                keys=column.keys,
                marks=self.marks,
                block=column.images,
                metric=self.metric,
                stop=stop,
            )

        return isolated(run, self.losses)


def bound_tasks(column: Column) -> Bound:
    """Tasks made ready for their classifier."""
    return column.model.bind(column.tasks, column.keys)


@dataclass(frozen=True)
class Work:
    """P losses to be looked at on T tasks."""

    losses: Losses
    episodes: Episodes
    tasks: Tasks
    keys: list[Stream]
    inner: Inner
    lr: Rate | None
    marks: tuple[int, ...]
    metric: Observer

    def chunk(self, row: slice, column: "Column") -> "Chunk":
        """Some candidates on some tasks."""
        lr = self.lr[row] if isinstance(self.lr, Tensor) else self.lr
        return Chunk(column, self.losses[row], self.inner, lr, self.marks, self.metric)

    def steps_of(self, row: slice, column: slice) -> int:
        """The steps of training of such a chunk."""
        return len(self.losses[row]) * len(self.tasks[column]) * self.inner.steps

    def on(self, places: Int64[Tensor, " t"], tasks: Tasks) -> Self:
        """The same on some of the tasks, given as they lie in memory."""
        return replace(self, tasks=tasks, keys=[self.keys[t] for t in places.tolist()])


def works_of(trainings: EpisodeTrainings) -> list[Work]:
    """A work for each of the populations."""
    x = trainings
    return [
        Work(losses, x.episodes, x.tasks, list(x.keys), x.inner, lr, x.steps, x.metric)
        for losses, lr in zip(x.populations, x.rates, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Block:
    """Works on the same tasks of one size in memory, cut alike, with what is seen of them.

    Attributes:
        plan: how they are cut.
        numbers: of the works, among all.
        works: as many.
        places: of the tasks, among all.
        parts: of each work what its chunks show.
    """

    plan: ChunkPlan
    numbers: list[int]
    works: list[Work]
    places: Int64[Tensor, " t"]
    parts: list[Parts] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", [{} for _ in self.works])

    @property
    def tasks(self) -> Tasks:
        """Those of every work."""
        return self.works[0].tasks

    @property
    def cost(self) -> int:
        """About how long one of its trainings takes, for an order."""
        return self.works[0].inner.steps * self.tasks.train.rows.shape[1]

    @cached_property
    def model(self) -> Classifier:
        """The classifier in the form that the plan chose."""
        return model_of(self.works[0].episodes, self.plan)

    @property
    def columns(self) -> list[slice]:
        """The tasks of each chunk."""
        return _slices(len(self.tasks), self.plan.tasks)

    @property
    def rows(self) -> list[slice]:
        """The candidates of each chunk."""
        return _slices(len(self.works[0].losses), self.plan.candidates)

    @property
    def places_of_chunks(self) -> list[tuple[int, slice]]:
        """The chunks of a column: the work and its candidates."""
        return [(n, row) for n in range(len(self.works)) for row in self.rows]

    def column(self, tasks: slice) -> Column:
        """Some of the tasks, with what their chunks share."""
        return Column(self.model, self.tasks[tasks], self.works[0].keys[tasks], self.plan.images)

    def single_tasks(self, column: slice) -> list[slice]:
        """The tasks of a column, one by one."""
        return [slice(t, t + 1) for t in range(column.start, min(column.stop, len(self.tasks)))]

    def raise_if_all_failed(self, columns: Sequence[slice]) -> None:
        """Raise what the chunks of some columns raised, where all of a work's did."""
        for parts in self.parts if columns else ():
            raise_if_all_failed([parts[x.start, y.start] for x in self.rows for y in columns])


def waves(columns: Sequence[tuple[Block, slice]], most: int) -> Iterator[list[tuple[Block, slice]]]:
    """Columns of chunks in groups of so many tasks; of more where one column has more."""
    wave: list[tuple[Block, slice]] = []
    for block, column in columns:
        if sum(other.plan.tasks for other, _ in wave) + block.plan.tasks > most and wave:
            yield wave
            wave = []
        wave.append((block, column))
    if wave:
        yield wave


def joined(blocks: Sequence[Block], works: int, tasks: int) -> list[Float[Tensor, "M P T ..."]]:
    """What is seen of every work on all of its tasks, in their order.

    Args:
        blocks: all of them, finished.
        works: how many.
        tasks: how many of each.
    """
    results: dict[int, Tensor] = {}
    for block in blocks:
        for number, work, parts in zip(block.numbers, block.works, block.parts, strict=True):
            part = _joined(parts, len(work.losses), len(work.tasks))
            if len(work.tasks) == tasks:
                results[number] = part
                continue
            if number not in results:
                results[number] = part.new_empty(*part.shape[:2], tasks, *part.shape[3:])
            results[number][:, :, block.places] = part
    return [results[number] for number in range(works)]


def _slices(length: int, step: int) -> list[slice]:
    return [slice(first, first + step) for first in range(0, length, step)]


def _joined(parts: Parts, candidates: int, tasks: int) -> Float[Tensor, "M P T ..."]:
    """The chunks' results in one tensor, NaN where a chunk failed."""
    good = {place: part for place, part in parts.items() if isinstance(part, Tensor)}
    like = next(iter(good.values()))
    whole = like.new_full((len(like), candidates, tasks, *like.shape[3:]), torch.nan)
    for (p, t), part in good.items():
        whole[:, p : p + part.shape[1], t : t + part.shape[2]] = part
    return whole
