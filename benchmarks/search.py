"""Wall time until `metaloss evolve` has learned a loss that beats tuned cross-entropy by so much on
held-out tasks.

The same search, generation by generation, with our engine and with one training at a time. Both
meet the same candidates and tasks, and reach the same fitness up to rounding, so both need the same
number of generations. What is slower is run for `--limit` seconds and then extrapolated from its
own time per generation; rows say so. The third row is the plain PyTorch loop of `engine.py`, its
trainings per second measured here. Loading, tuning of cross-entropy and looks at held-out
(meta-validation) tasks count.

    python benchmarks/search.py [--quick] [--goal 2.0] [--seeds 0 1 2] [--limit 120] [--json |
    --markdown]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from cases import Case, problem
from rivals import sequential
from timing import CORES, machine, rate, table, threaded
from torch import Tensor

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.local import Local
from metaloss.errors import Interrupted
from metaloss.inner.loop import Inner
from metaloss.losses.base import Losses
from metaloss.search import settings as configuration
from metaloss.tasks.episodic import Episodes

QUICK: dict[str, Any] = {"generations": 12, "baseline_tasks": 8, "report_every": 1}


class OneByOne(Local):
    """The engine with a population of one candidate and one task."""

    def __post_init__(self) -> None:
        self.workers = 1
        super().__post_init__()

    def curve(
        self,
        losses: Losses,
        episodes: Episodes,
        tasks: Tasks,
        keys: Sequence[Stream],
        inner: Inner | None = None,
        lr: float | Tensor | None = None,
        marks: tuple[int, ...] = (),
    ) -> Tensor:
        """The scores [M P T], one training after another."""
        score = torch.empty(len(marks) or 1, len(losses), len(tasks))
        for t in range(len(tasks)):
            for p in range(len(losses)):
                row = slice(p, p + 1)
                column = slice(t, t + 1)
                own = lr[row] if isinstance(lr, Tensor) else lr
                some = losses[row], episodes, tasks[column], keys[column]
                score[:, row, column] = super().curve(*some, inner, own, marks)
        return score


@dataclass
class Watch(Reporter):
    """Stops a search at its goal, at its last generation or when its time is over."""

    goal: float  # of held-out accuracy above tuned cross-entropy's
    limit: float  # seconds
    generations: int  # at most
    began: float = field(default_factory=time.perf_counter)
    ready: float = 0.0  # when cross-entropy was tuned
    times: list[float] = field(default_factory=list)  # at the end of every generation
    records: list[dict[str, Any]] = field(default_factory=list)

    def on_baseline(self, *_: object) -> None:
        """Note the time."""
        self.ready = self.elapsed()

    def on_generation(self, record: dict[str, Any], *_: object) -> None:
        """Note the time and what is known."""
        self.times.append(self.elapsed())
        self.records.append(record)

    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self.began

    def reached(self) -> bool:
        """Whether the last look at held-out tasks was good enough."""
        return (
            bool(self.records)
            and self.records[-1].get("held_out", {"gain": -1.0})["gain"] >= self.goal
        )

    def stop(self) -> bool:
        """Whether to end here."""
        return (
            self.reached() or len(self.records) == self.generations or self.elapsed() > self.limit
        )

    def seconds(self, generations: int) -> float:
        """The time that many generations take, from those that were seen."""
        if not self.times:
            raise SystemExit(f"not one generation in {self.limit:.0f} s: give a higher --limit")
        if generations == len(self.times):
            return self.times[-1]
        return self.ready + (self.times[-1] - self.ready) / len(self.times) * generations


def searched(engine: type[Local], goal: float, limit: float, settings: dict[str, Any]) -> Watch:
    """A search with that engine, up to its goal or limit."""
    watch = Watch(goal, limit, configuration.resolve(settings).generations)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("metaloss.engines.opening.Local", engine),
        suppress(Interrupted),
    ):
        metaloss.evolve(out=folder, reporter=watch, stop=watch.stop, **settings)
    return watch


def loop_speed(seconds: float) -> float:
    """Trainings per second of the plain PyTorch loop, at its better number of threads."""
    some = problem(Case(candidates=4, tasks=1, val=100))
    return max(
        threaded(n, lambda: rate(lambda: sequential(some), len(some.case), seconds))
        for n in {1, len(CORES)}
    )


def trained(watch: Watch, settings: dict[str, Any]) -> int:
    """All trainings up to the last generation: tuning, generations and looks at held-out tasks."""
    full = configuration.resolve(settings)
    looks = sum("held_out" in record for record in watch.records)
    return int(watch.records[-1]["trainings"] + full.baseline_tasks * (len(full.rates) + looks))


def rows(goal: float, limit: float, most: float, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way to train, for one seed."""
    ours = searched(Local, goal, most, settings)
    if not ours.records:
        raise SystemExit(f"not one generation in {most:.0f} s")
    alone = searched(OneByOne, goal, limit, settings)
    n = len(ours.records)
    trainings = trained(ours, settings)
    speed = loop_speed(min(5.0, limit / 20))
    pairs = zip(ours.records, alone.records, strict=False)
    apart = max(
        (abs(a["mean"] - b["mean"]) for a, b in pairs if None not in (a["mean"], b["mean"])),
        default=None,
    )
    common = {
        "goal": goal,
        "seed": settings["seed"],
        "reached": ours.reached(),
        "generations": n,
        "trainings": trainings,
        "held_out": ours.records[-1].get("held_out", {}).get("gain"),
    }
    seconds = {
        "metaloss": ours.times[-1],
        "one training at a time": alone.seconds(n),
        "plain PyTorch loop": trainings / speed,
    }
    seen = {"metaloss": n, "one training at a time": len(alone.records), "plain PyTorch loop": 0}
    return [
        {
            "name": name,
            **common,
            "seconds": t,
            "ratio": t / ours.times[-1],
            "generations_run": seen[name],
            "extrapolated": seen[name] != n,
            "largest_difference": apart if name != "metaloss" else None,
        }
        for name, t in seconds.items()
    ]


HEAD = ("seed", "trainings by", "seconds", "×", "how", "generations", "trainings", "held-out gain")


def cells(row: dict[str, Any]) -> list[Any]:
    """A row as it is printed."""
    how = (
        f"extrapolated from {row['generations_run']} generations"
        if row["extrapolated"]
        else "measured"
    )
    how = how if row["name"] != "plain PyTorch loop" else "trainings / measured speed"
    gain = None if row["held_out"] is None else f"{100 * row['held_out']:+.1f} points"
    return [
        row["seed"],
        row["name"],
        row["seconds"],
        row["ratio"],
        how,
        row["generations"],
        row["trainings"],
        gain,
    ]


def caption(rows: list[dict[str, Any]]) -> str:
    """The machine, the goal, and how far the two searches were apart."""
    missed = sum(not row["reached"] for row in rows)
    lines = [
        machine(),
        f"Goal: {100 * rows[0]['goal']:+.1f} points above tuned cross-entropy on held-out tasks.",
    ]
    if missed:
        lines.append("Seeds that did not get there are compared over the generations they ran.")
    apart = [row["largest_difference"] for row in rows if row["largest_difference"] is not None]
    if apart:
        lines.append(
            "Largest difference of a generation's mean accuracy between both searches: "
            f"{max(apart):.1e}."
        )
    return "\n".join(lines)


def main() -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="about a minute: a smaller goal, fewer tasks for tuning",
    )
    parser.add_argument(
        "--goal", type=float, help="points of accuracy above tuned cross-entropy (2.0; quick: 0.5)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--limit", type=float, help="seconds for one training at a time (120; quick: 20)"
    )
    parser.add_argument("--most", type=float, default=1800.0, help="seconds for our engine")
    parser.add_argument(
        "--preset", default="quick", help="of the search: what `metaloss evolve --preset` takes"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    goal = (0.5 if asked.quick else 2.0) if asked.goal is None else asked.goal
    limit = asked.limit or (20.0 if asked.quick else 120.0)
    table_of = {**configuration.PRESETS[asked.preset], **(QUICK if asked.quick else {})}
    found = []
    for seed in asked.seeds:
        found += rows(goal / 100, limit, asked.most, {**table_of, "seed": seed})
    if asked.json:
        return print(json.dumps(found, indent=1))
    print(caption(found) + "\n")
    print(table(HEAD, [cells(row) for row in found], asked.markdown))


if __name__ == "__main__":
    main()
