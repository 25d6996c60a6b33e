"""What engines share: trainings planned, cut into chunks, and joined again.

An engine says where a chunk runs. Its result follows from the plan alone, so that all engines give
equal bits.
"""

import gc
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.blocks import Block, Work, joined, waves, works_of
from metaloss.engines.chunking import ChunkPlan, plan_chunks
from metaloss.errors import out_of_memory
from metaloss.inner.loop import Inner
from metaloss.inner.observers import Observer, scores
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.protocols import EpisodeTrainings, SeparateTrainings

MEMORY = 2 << 30  # bytes that trainings may take, where nothing else is said
# Bytes that one thread's chunk may touch on a CPU: more of them would not stay in its cache.
CACHE = 8 << 20
WAVE = 32  # tasks made ready at once, where memory allows

# Columns of chunks, with the block that each belongs to.
Columns = list[tuple[Block, slice]]


@dataclass
class ChunkedEngine(ABC):
    """Plans trainings and joins their results; a subclass says where chunks run.

    Args:
        device: "cpu" or "cuda".
        memory: bytes that trainings may take.
        workers: trainings at once.
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23.
        stop: asked again and again; where it answers True, the work is dropped.
        on_progress: called after every chunk with the steps of training that it took.
        halvings: how often a chunk ran out of memory.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory: int = MEMORY
    workers: int = 0
    tf32: bool = False
    stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[int], None] = lambda steps: None
    halvings: int = 0

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Give back what the engine holds."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Where it trains, in a few words."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """What a run's folder keeps of it."""

    @abstractmethod
    def train(self, waves: Sequence[Columns]) -> Iterator[None]:
        """Fill the parts of every block, wave by wave; yields after each wave."""

    @abstractmethod
    def map(self, f: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """What a function gives for each of some jobs, on threads of this process."""

    @abstractmethod
    def attempts(
        self, trainings: SeparateTrainings, jobs: Sequence[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Every job of some trainings with its result, as it ends."""

    @abstractmethod
    def attempts_at_once(self, trainings: SeparateTrainings) -> int:
        """How many of some trainings run at once."""

    def plan(
        self,
        episodes: Episodes,
        inner: Inner,
        candidates: int,
        tasks: int,
        tasks_per_call: int = 1,
        train_images: int | None = None,
    ) -> ChunkPlan:
        """The chunks that this engine would use.

        Args:
            episodes: the family, with its images.
            inner: the optimiser's settings.
            candidates: how many losses there are.
            tasks: how many tasks.
            tasks_per_call: how many of them the losses ask for in one call.
            train_images: of a task; the most that one of the family has where None.
        """
        # On a CPU two at least, however many threads there are: the result must not depend on their
        # number.
        memory, parts = (
            (min(CACHE, self.memory), 2) if self.device.type == "cpu" else (self.memory, 1)
        )
        return plan_chunks(
            episodes,
            inner,
            candidates,
            tasks,
            memory >> self.halvings,
            parts,
            tasks_per_call,
            train_images,
        )

    def score(
        self,
        losses: Losses,
        episodes: Episodes,
        tasks: Tasks,
        keys: Sequence[Stream],
        inner: Inner | None = None,
        lr: Rate | None = None,
    ) -> Float[Tensor, "P T"]:
        """The validation accuracy of every loss on every task, NaN where a training failed.

        Args:
            losses: P candidates.
            episodes: the family, with its images on this engine's device.
            tasks: T tasks of it.
            keys: one per task, for the classifier's initial parameters.
            inner: the optimiser's settings; the family's own where None.
            lr: a learning rate for all, or one per candidate.
        """
        return self.curve(losses, episodes, tasks, keys, inner, lr)[0]

    def curve(
        self,
        losses: Losses,
        episodes: Episodes,
        tasks: Tasks,
        keys: Sequence[Stream],
        inner: Inner | None = None,
        lr: Rate | None = None,
        marks: tuple[int, ...] = (),
    ) -> Float[Tensor, "M P T"]:
        """What `score` gives, after each of M numbers of steps.

        Args:
            losses: P candidates.
            episodes: the family, with its images on this engine's device.
            tasks: T tasks of it.
            keys: one per task.
            inner: the optimiser's settings; the family's own where None.
            lr: a learning rate for all, or one per candidate.
            marks: the numbers of steps, ascending; the last step alone by default.
        """
        return self.observe([losses], episodes, tasks, keys, scores, inner, [lr], marks)[0]

    def observe(
        self,
        many: Sequence[Losses],
        episodes: Episodes,
        tasks: Tasks,
        keys: Sequence[Stream],
        metric: Observer,
        inner: Inner | None = None,
        rates: Sequence[Rate | None] = (),
        marks: tuple[int, ...] = (),
    ) -> list[Float[Tensor, "M P T ..."]]:
        """What a metric shows of each of many populations on the same tasks from the same start.

        A population's result does not depend on the others, bit for bit: what they share is the
        tasks, made ready once.

        Args:
            many: populations of losses, all of one length.
            episodes: the family, with its images on this engine's device.
            tasks: T tasks of it.
            keys: one per task.
            metric: what is looked at.
            inner: the optimiser's settings; the family's own where None.
            rates: the learning rate of each population; the family's own by default.
            marks: the numbers of steps after which to look, ascending.
        """
        inner = inner or episodes.family.inner
        rates = rates or [None] * len(many)
        trainings = EpisodeTrainings(
            many, episodes, tasks, keys, metric, inner, rates, marks or (inner.steps,)
        )
        return self.observe_each([trainings])[0]

    def observe_each(
        self, trainings: Sequence[EpisodeTrainings]
    ) -> list[list[Float[Tensor, "M P T ..."]]]:
        """What `observe` gives for each of several, be they of families of their own.

        All of them share this engine's workers, so that none waits for the last chunk of another;
        no result depends on the others, bit for bit.
        """
        groups = [works_of(each) for each in trainings]
        while True:
            try:
                return self._observe(groups)
            except (RuntimeError, MemoryError) as error:
                works = [work for group in groups for work in group]
                if not out_of_memory(error) or not any(map(self._divisible, works)):
                    raise
            self.halvings += 1
            # The error and the calls it came through refer to each other, and to all that was made
            # ready.
            gc.collect()

    def _divisible(self, work: Work) -> bool:
        """Whether a smaller chunk, or fewer tasks made ready at once, would take less memory."""
        largest = max(x.plan.candidates * x.plan.tasks for x in self._blocks([work]))
        return largest > 1 or min(len(work.tasks), self._wave(work)) > 1

    def _wave(self, work: Work) -> int:
        """How many tasks are made ready at once: their images fit the memory budget."""
        images = work.tasks.train.label[0].numel() + work.tasks.val.label[0].numel()
        floats = images * math.prod(work.episodes.images.shape)
        return max(1, min(WAVE, self.memory // (4 * floats)) >> self.halvings)

    def _blocks(self, works: Sequence[Work]) -> list[Block]:
        """The works on the same tasks, by these tasks' size in memory and by how they are cut."""
        blocks = []
        for places, tasks in works[0].tasks.by_size():
            sized = [work.on(places, tasks) for work in works]
            plans = [self._planned(work) for work in sized]
            for plan in dict.fromkeys(plans):
                numbers = [n for n, x in enumerate(plans) if x == plan]
                blocks.append(Block(plan, numbers, [sized[n] for n in numbers], places))
        return blocks

    def _planned(self, work: Work) -> ChunkPlan:
        return self.plan(
            work.episodes,
            work.inner,
            len(work.losses),
            len(work.tasks),
            work.losses.tasks_per_call,
            work.tasks.train.label.shape[1],
        )

    def _observe(self, groups: Sequence[Sequence[Work]]) -> list[list[Float[Tensor, "M P T ..."]]]:
        """What is seen of groups of works, each of which share tasks and keys, chunk by chunk."""
        blocks_of = [self._blocks(works) for works in groups]
        blocks = [block for of_group in blocks_of for block in of_group]
        # The longest trainings first, so that workers come to their end together.
        longest_first = sorted(blocks, key=lambda block: -block.cost)
        columns = [(block, column) for block in longest_first for column in block.columns]
        most = min(self._wave(works[0]) for works in groups)
        cut = list(waves(columns, most))
        for wave, _ in zip(cut, self.train(cut), strict=True):
            for block in blocks:
                block.raise_if_all_failed([column for other, column in wave if other is block])
        return [
            joined(of_group, len(works), len(works[0].tasks))
            for of_group, works in zip(blocks_of, groups, strict=True)
        ]
