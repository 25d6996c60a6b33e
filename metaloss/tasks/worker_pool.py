"""Several trainings at once on one device, each in a process of its own."""

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from metaloss.core.streams import Stream
from metaloss.errors import DataWarning, Interrupted
from metaloss.losses.base import Losses

POLL = 0.2  # seconds between two looks at whether to stop

Job = TypeVar("Job")

_mine: dict[str, Any] = {}  # what a process of the pool has opened


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """One training.

    Attributes:
        loss: a population of one.
        pool: what is measured in the end: "train", "validation" or "test".
        key: of all its random draws.
        lr: its highest learning rate.
        steps: its length.
    """

    loss: Losses
    pool: str
    key: Stream
    lr: float
    steps: int


class WorkerPool:
    """Processes that open the same family, and do its jobs side by side.

    Args:
        workers: how many there are.
        make: gives what has a method `attempt(job, stop)`; called once in every process.
        arguments: what it is called with.
    """

    def __init__(self, workers: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        # A process that is forked from one with threads, or with a GPU in use, may hang.
        context = multiprocessing.get_context("spawn")
        self.stop_event = context.Event()
        self.executor = ProcessPoolExecutor(
            workers, context, _open, (self.stop_event, make, arguments)
        )

    def run(self, jobs: Sequence[Job], stop: Callable[[], bool]) -> Iterator[tuple[Job, Any]]:
        """Every job with what it gives, as it ends.

        Raises:
            Interrupted: `stop` said so; trainings in hand end after their next step.
        """
        self.stop_event.clear()
        futures = {self.executor.submit(_attempt, job): job for job in jobs}
        left = set(futures)
        try:
            while left:
                done, left = wait(left, POLL, FIRST_EXCEPTION)
                for x in done:
                    yield futures[x], x.result()
                if stop():
                    raise Interrupted
        finally:
            if left:
                self.stop_event.set()
                for x in left:
                    x.cancel()
                wait(left)


def _open(halt: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to hear
    warnings.simplefilter("ignore", DataWarning)  # it has said them, too
    _mine.update(halt=halt, family=make(*arguments))


def _attempt(job: Any) -> Any:
    return _mine["family"].attempt(job, _mine["halt"].is_set)
