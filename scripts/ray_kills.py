"""Kills actors of a Ray cluster, and commands that search on one, at random instants, and compares
the bytes.

    python scripts/ray_kills.py actors --kills 100 [--seed 1]
    python scripts/ray_kills.py drivers --kills 20 [--seed 1]

What is left must be what an undisturbed search without Ray leaves. What is not is printed, and the
exit code is 1. Searches whose actors are killed share one Ray of this machine; a command that is
killed starts its own.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from metaloss.core.reporting import Reporter
from metaloss.engines import ray_session
from metaloss.engines.ray import Ray
from metaloss.engines.settings import EngineSettings
from metaloss.search import program

FAMILY = """
dataset = "fashionmnist"
ways = 5
shots = 5
val = 20
classifier = { kind = "mlp", hidden = [32] }
inner = { steps = 30, lr = 0.1 }
"""
SEARCH = {
    "tasks_per_generation": 8,
    "baseline_tasks": 4,
    "winner_tasks": 8,
    "test_tasks": 8,
    "validation": 20,
    "report_every": 5,
    "rates": [0.1],
    "seed": 0,
}


def essence(folder: Path) -> dict[str, bytes]:
    """What no interruption may change: the history and the winner."""
    files = [folder / "history.jsonl", *(folder / "loss").iterdir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Killer(Reporter):
    """Kills an actor that works, every now and then, on a thread of its own.

    Args:
        engine: whose actors.
        kills: how many, at most.
        draw: the instants and the actors.
        between: the least and the most seconds from one kill to the next.
    """

    def __init__(
        self, engine: Ray, kills: int, draw: random.Random, between: Sequence[float]
    ) -> None:
        self.engine = engine
        self.between = between
        self.left = kills
        self.draw = draw
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._kill, daemon=True)
        self.thread.start()

    def _kill(self) -> None:
        while self.left and not self.done.wait(self.draw.uniform(*self.between)):
            placed = [x.place for x in list(self.engine.pool.actors.values()) if x.place]
            self.draw.shuffle(placed)
            # Sometimes all of them, so that nobody is left.
            some = placed if self.draw.random() < 0.1 else placed[:1]
            for place in some[: self.left]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(place.rpartition("pid ")[2].rstrip(")")), signal.SIGKILL)
                    self.left -= 1

    def stop(self) -> None:
        """Kill no more."""
        self.done.set()
        self.thread.join()


def kill_actors(arguments: argparse.Namespace, folder: Path) -> int:
    """How many searches with killed actors left other bytes."""
    draw = random.Random(arguments.seed)
    tasks = str(folder / "tiny.toml")
    options: dict[str, Any] = {**SEARCH, "generations": arguments.generations}
    whole = essence(program.evolve(tasks, out=folder / "whole", **options).folder)
    unequal = 0
    settings = EngineSettings(kind="ray", actors=arguments.actors)
    with Ray(torch.device("cpu"), settings=settings) as engine:
        program.open_engine = lambda *_, **__: contextlib.nullcontext(engine)  # type: ignore
        killer = Killer(engine, arguments.kills, draw, arguments.between)
        number = 0
        while killer.left and time.monotonic() < arguments.until:
            number += 1
            began, lost = time.monotonic(), engine.scheduler.lost
            # A folder for each: a run's name stands in its winner's files.
            out = folder / f"ray-{number}"
            found = essence(program.evolve(tasks, out=out, **options).folder)
            unequal += found != whole
            print(
                f"search {number}: {engine.scheduler.lost - lost} actors lost, "
                f"{'equal' if found == whole else 'OTHER'} bytes, "
                f"{time.monotonic() - began:.0f} s, {killer.left} kills left",
                flush=True,
            )
        killer.stop()
    print(
        f"{arguments.kills - killer.left} kills over {number} searches, "
        f"{engine.scheduler.resent} calls sent again, {unequal} searches with other bytes"
    )
    return unequal


def kill_drivers(arguments: argparse.Namespace, folder: Path) -> int:
    """How many searches whose command was killed left other bytes."""
    draw = random.Random(arguments.seed)
    tasks = str(folder / "tiny.toml")
    options: dict[str, Any] = {**SEARCH, "generations": arguments.generations}
    whole = essence(program.evolve(tasks, out=folder / "whole", **options).folder)
    sizes = [part for x in options.items() for part in ("--set", f"{x[0]}={x[1]}")]
    command = [sys.executable, "-m", "metaloss", "evolve", "--engine", "ray", "-q"]
    command += ["--set", f"engine.actors={arguments.actors}"]
    unequal = kills = number = 0
    while kills < arguments.kills and time.monotonic() < arguments.until:
        number += 1
        run: list[str] = []
        out = folder / f"ray-{number}"
        while True:
            begin = ["--resume", *run] if run else ["--tasks", tasks, *sizes]
            process = subprocess.Popen([*command, *begin, "--out", str(out)])
            try:
                seconds = draw.uniform(*arguments.between) if kills < arguments.kills else None
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                new = sorted(out.glob("*"))
                run = [new[0].name] if new else []
                file = new[0] / "history.jsonl" if new else folder / "none"
                lines = len(file.read_text().splitlines()) if file.exists() else 0
                print(f"kill {kills} after {seconds:.1f} s, {lines} generations", flush=True)
        (last,) = out.glob("*")
        equal = process.returncode == 0 and essence(last) == whole
        unequal += not equal
        print(f"search {number}: {'equal' if equal else 'OTHER'} bytes", flush=True)
    print(f"{kills} kills of the command over {number} searches, {unequal} with other bytes")
    return unequal


def main() -> None:
    """Read the arguments, kill, and print how many were not equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["actors", "drivers"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--generations", type=int, default=40)
    parser.add_argument("--between", type=float, nargs=2, default=[2.0, 20.0], help="seconds")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no search after them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.toml").write_text(FAMILY)
        if arguments.what == "drivers":
            sys.exit(bool(kill_drivers(arguments, folder)))
        session = ray_session.Session("local", 2 * arguments.actors)
        try:
            unequal = kill_actors(arguments, folder)
        finally:
            session.close()
    sys.exit(bool(unequal))


if __name__ == "__main__":
    main()
