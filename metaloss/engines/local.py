"""Trainings in this process, on a few threads.

A chunk runs on one thread of torch, so its result depends neither on the number of threads nor on
their timing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metaloss.core.formatting import counted
from metaloss.engines.blocks import Block, bound_tasks
from metaloss.engines.chunked import ChunkedEngine, Columns
from metaloss.engines.isolation import result_or_error
from metaloss.engines.threads import Threads, cores
from metaloss.inner.classifiers import Bound
from metaloss.tasks.protocols import SeparateTrainings


@dataclass
class Local(ChunkedEngine):
    """Runs trainings on one device of this machine.

    `workers` are threads on a CPU, by default as many as it has cores; `stop` is asked before
    every chunk, and `on_progress` called from its thread.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        on_cpu = self.device.type == "cpu"
        self.workers = (self.workers or cores()) if on_cpu else 1
        self.threads = Threads(self.workers, alone=on_cpu)

    def __exit__(self, *_: object) -> None:
        self.threads.close()

    @property
    def description(self) -> str:
        """The device, and how many threads."""
        if self.device.type == "cpu":
            return f"cpu, {counted(self.workers, 'thread')}"
        return str(self.device)

    @property
    def provenance(self) -> dict[str, str]:
        """Its kind: the number of threads makes no difference."""
        return {"kind": "local"}

    def train(self, waves: Sequence[Columns]) -> Iterator[None]:
        """Fill the parts of every block: a wave's tasks are made ready, then trained on."""

        def fill(job: tuple[Block, int, slice, slice, Bound]) -> None:
            block, number, row, column, bound = job
            work = block.works[number]
            chunk = work.chunk(row, block.column(column))
            block.parts[number][row.start, column.start] = result_or_error(
                lambda: chunk.observe(bound)
            )
            self.on_progress(work.steps_of(row, column))

        for wave in waves:
            ready = self._bind_columns(wave)
            jobs = [
                (block, number, row, column, bound)
                for (block, column), bound in zip(wave, ready, strict=True)
                for number, row in block.places_of_chunks
            ]
            self.map(fill, jobs)
            yield

    def _bind_columns(self, columns: Columns) -> list[Bound]:
        """The tasks of columns, made ready."""
        # On a CPU one task at a time: its images stay in the cache, and all threads have some.
        whole = self.device.type != "cpu"
        pieces = [
            (number, block.column(piece))
            for number, (block, column) in enumerate(columns)
            for piece in ([column] if whole else block.single_tasks(column))
        ]
        bound = self.map(lambda job: bound_tasks(job[1]), pieces)
        return [
            Bound.join([x for x, (of, _) in zip(bound, pieces, strict=True) if of == number])
            for number in range(len(columns))
        ]

    def map(self, f: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """What a function gives for each of some jobs, on this engine's threads.

        Raises:
            Interrupted: the user asked to stop, so jobs that had not begun are dropped.
        """
        return self.threads.map(f, jobs, self.stop)

    def attempts(
        self, trainings: SeparateTrainings, jobs: Sequence[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Every job with its result, as it ends: on this machine, by the trainings' own means."""
        return trainings.attempts(jobs, self.stop)

    def attempts_at_once(self, trainings: SeparateTrainings) -> int:
        """How many of some trainings run at once: as many as their family says."""
        return trainings.workers
