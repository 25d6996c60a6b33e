"""A process that runs rivals; it reads a request per line and answers with one line, both JSON.

Rivals live in processes of their own: no memory of theirs is counted as ours, no library's threads
meet another's, JAX, whose threads are fixed when it starts, can be given one core alone, and a
plain loop can run once per core.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from cases import Case, problem
from timing import rate


class Worker:
    """The parent's side of such a process, on these cores or on all."""

    def __init__(self, cores: list[int] | None = None) -> None:
        command = [sys.executable, str(Path(__file__)), *map(str, cores or [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(
        self, rival: str, case: Case, chunk: int = 1, threads: int = 1, least: float = 0.0
    ) -> None:
        """Start a measurement; `answer` waits for it. JAX takes no heed of `threads`."""
        assert self.process.stdin is not None
        request = {
            "rival": rival,
            "case": asdict(case),
            "chunk": chunk,
            "threads": threads,
            "least": least,
        }
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """`rate` (trainings per second) and `score` [P T]."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the worker process ended with status {self.process.wait()}; its error stands "
                "above"
            )
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve(cores: set[int]) -> None:
    """Answer requests until there are no more."""
    if cores:
        os.sched_setaffinity(0, cores)
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(request.pop("threads"))
        print(json.dumps(measured(**request)), flush=True)


def measured(rival: str, case: dict[str, Any], chunk: int, least: float) -> dict[str, Any]:
    """One measurement; the first one of its kind after a run that compiles and warms up."""
    run = prepared(rival, json.dumps(case), chunk, torch.get_num_threads())
    scores: list[Any] = []
    speed = rate(lambda: scores.append(run()), case["candidates"] * case["tasks"], least)
    return {"rate": speed, "score": scores[-1].tolist()}


@lru_cache(maxsize=8)
def prepared(
    rival: str,
    case: str,
    chunk: int,
    threads: int,  # part of the key of the cache
) -> Callable[[], Any]:
    """A rival with its problem at hand, warm."""
    whole = Case(**json.loads(case))
    f = function(rival)
    at_hand = problem(whole)
    # What is compiled is compiled for these shapes; torch only has to wake up.
    f(at_hand if rival == "jax" else problem(whole.share(1)), chunk)
    return lambda: f(at_hand, chunk)


def function(rival: str) -> Callable[..., Any]:
    """The rival of that name; JAX is imported only where it runs."""
    if rival == "jax":
        import rivals_jax

        return rivals_jax.vmapped
    import rivals

    return rivals.RIVALS[rival]


if __name__ == "__main__":
    serve({int(core) for core in sys.argv[1:]})
