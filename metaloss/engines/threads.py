"""Threads of this process that share some work."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from metaloss.errors import Interrupted


class Threads:
    """A few threads.

    Args:
        workers: how many.
        alone: each of them runs torch on no other threads than itself.
    """

    def __init__(self, workers: int, alone: bool) -> None:
        threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(
            workers, "metaloss", initializer=one_torch_thread if alone else None
        )
        list(self.pool.map(lambda _: None, range(workers)))
        torch.set_num_threads(threads)  # the pool's setting must not reach the caller's own work

    def close(self) -> None:
        """Drop what has not begun."""
        self.pool.shutdown(cancel_futures=True)

    def map(
        self, f: Callable[[Any], Any], jobs: Sequence[Any], stop: Callable[[], bool]
    ) -> list[Any]:
        """What a function gives for each of some jobs.

        Args:
            f: the function.
            jobs: its arguments.
            stop: asked before each of them.

        Raises:
            Interrupted: the user asked to stop, so jobs that had not begun are dropped.
        """

        def go(job: Any) -> Any:
            if stop():
                raise Interrupted
            return f(job)

        futures = [self.pool.submit(go, job) for job in jobs]
        try:
            return [x.result() for x in futures]
        finally:
            for x in futures:
                x.cancel()


def one_torch_thread() -> None:
    """Have this thread of Python's run torch on no other threads than itself."""
    # Asked for their number first: torch sets it anew, for all threads alike, when a thread is new
    # to it.
    torch.get_num_threads()
    torch.set_num_threads(1)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
