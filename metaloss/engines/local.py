"""Where trainings run: in this process, cut into chunks that fit the memory, on a few threads.

A chunk runs on one thread of torch, so its result depends neither on the number of threads nor on
their timing.
"""

import gc
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.chunking import ChunkPlan, model_of, plan_chunks
from metaloss.engines.isolation import isolated, raise_if_all_failed, result_or_error
from metaloss.errors import Interrupted, out_of_memory
from metaloss.evolution import evaluate
from metaloss.inner.classifiers import Bound, Classifier
from metaloss.inner.loop import Inner
from metaloss.inner.metrics import Metric, scores
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.episodic import Episodes

# Bytes that one thread's chunk may touch on a CPU: more of them would not stay in its cache.
CACHE = 8 << 20
WAVE = 32  # tasks made ready at once, where memory allows

# A chunk's result by its first candidate and task.
Parts = dict[tuple[int, int], Tensor | Exception]


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
    metric: Metric

    def part(
        self, row: slice, column: slice, model: Classifier, bound: Bound, block: int
    ) -> Float[Tensor, "M p t ..."]:
        """What is seen of some candidates on some tasks."""
        lr = self.lr[row] if isinstance(self.lr, Tensor) else self.lr
        tasks = self.tasks[column]
        keys = self.keys[column]
        inner = self.inner
        marks = self.marks

        def run(losses: Losses) -> Float[Tensor, "M p t ..."]:
            return evaluate(
                losses,
                model,
                bound,
                tasks,
                inner=inner,
                lr=lr,
                keys=keys,
                marks=marks,
                block=block,
                metric=self.metric,
            )

        return isolated(run, self.losses[row])


@dataclass
class Local:
    """Runs trainings on one device of this machine.

    Args:
        device: "cpu" or "cuda".
        memory: bytes that trainings may take.
        workers: threads on a CPU; all its cores by default.
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23.
        stop: asked before every chunk; where it answers True, the work is dropped.
        told: after every chunk, from its thread, how many steps of how many trainings it took.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory: int = 2 << 30
    workers: int = 0
    tf32: bool = False
    stop: Callable[[], bool] = lambda: False
    told: Callable[[int], None] = lambda steps: None
    halvings: int = 0  # how often a chunk ran out of memory

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        self.workers = (self.workers or cores) if self.device.type == "cpu" else 1
        threads = torch.get_num_threads()
        ready = alone if self.device.type == "cpu" else None
        self.pool = ThreadPoolExecutor(self.workers, "metaloss", initializer=ready)
        list(self.pool.map(lambda _: None, range(self.workers)))
        torch.set_num_threads(threads)  # the pool's setting must not reach the caller's own work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def plan(
        self, episodes: Episodes, inner: Inner, candidates: int, tasks: int, tasks_per_call: int = 1
    ) -> ChunkPlan:
        """The chunks this engine would use for losses that ask for so many tasks per call."""
        # On a CPU two at least, however many threads there are: the result must not depend on their
        # number.
        memory, parts = (
            (min(CACHE, self.memory), 2) if self.device.type == "cpu" else (self.memory, 1)
        )
        return plan_chunks(
            episodes, inner, candidates, tasks, memory >> self.halvings, parts, tasks_per_call
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
        metric: Metric,
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
        works = [
            Work(losses, episodes, tasks, list(keys), inner, lr, marks, metric)
            for losses, lr in zip(many, rates or [None] * len(many), strict=True)
        ]
        while True:
            try:
                return self._observe(works)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or not any(map(self._divisible, works)):
                    raise
            self.halvings += 1
            # The error and the calls it came through refer to each other, and to all that was made
            # ready.
            gc.collect()

    def _divisible(self, work: Work) -> bool:
        """Whether a smaller chunk, or fewer tasks made ready at once, would take less memory."""
        chunks = self._planned(work)
        return chunks.candidates * chunks.tasks > 1 or min(len(work.tasks), self._wave(work)) > 1

    def _wave(self, work: Work) -> int:
        """How many tasks are made ready at once: their images fit the memory budget."""
        images = work.tasks.train.label[0].numel() + work.tasks.val.label[0].numel()
        floats = images * math.prod(work.episodes.images.shape)
        return max(1, min(WAVE, self.memory // (4 * floats)) >> self.halvings)

    def _planned(self, work: Work) -> ChunkPlan:
        return self.plan(
            work.episodes, work.inner, len(work.losses), len(work.tasks), work.losses.tasks_per_call
        )

    def _observe(self, works: Sequence[Work]) -> list[Float[Tensor, "M P T ..."]]:
        """Works that are cut alike run together, on tasks made ready once for all of them."""
        plans = [self._planned(work) for work in works]
        results: dict[int, Float[Tensor, "M P T ..."]] = {}
        for chunks in dict.fromkeys(plans):
            numbers = [n for n, plan in enumerate(plans) if plan == chunks]
            results |= zip(numbers, self._run([works[n] for n in numbers], chunks), strict=True)
        return [results[n] for n in range(len(works))]

    def _run(self, works: Sequence[Work], chunks: ChunkPlan) -> list[Float[Tensor, "M P T ..."]]:
        """What is seen of works that share tasks, keys and plan, chunk by chunk."""
        first = works[0]
        model = model_of(first.episodes, chunks)
        tasks = len(first.tasks)
        columns = [slice(t, t + chunks.tasks) for t in range(0, tasks, chunks.tasks)]
        rows = [
            slice(p, p + chunks.candidates) for p in range(0, len(first.losses), chunks.candidates)
        ]
        parts: list[Parts] = [{} for _ in works]

        def fill(job: tuple[int, slice, slice, Bound]) -> None:
            number, row, column, bound = job
            parts[number][row.start, column.start] = result_or_error(
                lambda: works[number].part(row, column, model, bound, chunks.images)
            )
            self.told(len(first.losses[row]) * len(first.tasks[column]) * first.inner.steps)

        # Waves of tasks: made ready, then trained by every candidate.
        wave = max(1, self._wave(first) // chunks.tasks)
        for start in range(0, len(columns), wave):
            wave_columns = columns[start : start + wave]
            ready = self._bind_columns(first, model, wave_columns)
            self._map(
                fill, [(n, row, c, b) for n in range(len(works)) for c, b in ready for row in rows]
            )
            for results in parts:
                raise_if_all_failed(
                    [results[row.start, column.start] for row in rows for column in wave_columns]
                )
        return [
            _joined(results, len(work.losses), tasks)
            for work, results in zip(works, parts, strict=True)
        ]

    def _bind_columns(
        self, work: Work, model: Classifier, columns: Sequence[slice]
    ) -> list[tuple[slice, Bound]]:
        """Columns of tasks, one after another and equally wide, each with its tasks made ready."""
        width = columns[0].stop - columns[0].start
        # On a CPU one task at a time: its images stay in the cache, and all threads have some.
        size = 1 if self.device.type == "cpu" else width
        last = min(columns[-1].stop, len(work.tasks))

        def bind(column: slice) -> Bound:
            return model.bind(work.tasks[column], work.keys[column])

        bound = self._map(bind, [slice(t, t + size) for t in range(columns[0].start, last, size)])
        pieces = width // size
        return [
            (column, Bound.join(bound[i * pieces : (i + 1) * pieces]))
            for i, column in enumerate(columns)
        ]

    def _map(self, f: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        def go(job: Any) -> Any:
            if self.stop():
                raise Interrupted
            return f(job)

        futures = [self.pool.submit(go, job) for job in jobs]
        try:
            return [x.result() for x in futures]
        finally:
            for x in futures:
                x.cancel()


def alone() -> None:
    """Have this thread of Python's run torch on no other threads than itself."""
    # Asked for their number first: torch sets it anew, for all threads alike, when a thread is new
    # to it.
    torch.get_num_threads()
    torch.set_num_threads(1)


def _joined(parts: Parts, candidates: int, tasks: int) -> Float[Tensor, "M P T ..."]:
    """The chunks' results in one tensor, NaN where a chunk failed."""
    good = {place: part for place, part in parts.items() if isinstance(part, Tensor)}
    like = next(iter(good.values()))
    whole = like.new_full((len(like), candidates, tasks, *like.shape[3:]), torch.nan)
    for (p, t), part in good.items():
        whole[:, p : p + part.shape[1], t : t + part.shape[2]] = part
    return whole
