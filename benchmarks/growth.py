"""How the time of our engine grows with each size of the work, one of them doubled while the others
stay.

python benchmarks/engine.py --growth [--quick]
"""

import json
import statistics
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from cases import Case, problem
from timing import machine, rate, slope, table

from metaloss.engines.local import Local

BASE = Case(candidates=16, tasks=8)
DOUBLED: dict[str, tuple[int, ...]] = {
    "candidates": (8, 16, 32, 64, 128),
    "tasks": (4, 8, 16, 32, 64),
    "shots": (1, 2, 4, 8, 16, 32),
    "val": (25, 50, 100, 200, 400),
    "ways": (2, 4, 8),
    "steps": (5, 10, 20, 40, 80),
}
SMALL = Case(candidates=4, tasks=4)
WORDS = {
    "val": "validation images per class",
    "ways": "classes",
    "shots": "shots (training images per class)",
}


def rows(
    name: str, base: Case, sizes: tuple[int, ...], repeats: int, engine: Local
) -> list[dict[str, Any]]:
    """The time of all trainings at every size, the sizes in turn, `repeats` times."""
    cases = [Case(**{**asdict(base), name: size}) for size in sizes]
    runs = []
    for case in cases:
        x = problem(case)
        runs.append(partial(engine.score, x.losses, x.episodes, x.tasks, x.keys))
        runs[-1]()
    seconds = [[1 / rate(run, 1, 0.05) for run in runs] for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    exponent = slope(sizes, medians)
    return [
        {
            "grows": name,
            "size": size,
            "seconds": t,
            "ms_per_training": 1e3 * t / len(case),
            "exponent": exponent,
            "repeats": repeats,
            "loss": case.loss,
        }
        for size, t, case in zip(sizes, medians, cases, strict=True)
    ]


def main(repeats: int, quick: bool, as_json: bool, markdown: bool) -> None:
    """Measure and print a table for each size, for the Meta-Loss Network and for cross-entropy."""
    found = []
    with Local() as engine:
        for loss in ("mln", "ce"):
            base = replace(SMALL if quick else BASE, loss=loss)
            for name, sizes in DOUBLED.items():
                found.append(rows(name, base, sizes[:3] if quick else sizes, repeats, engine))
    if as_json:
        return print(json.dumps([row for some in found for row in some], indent=1))
    print(f"{machine()}; medians of {repeats}")
    for some in found:
        first, *_ = some
        name = WORDS.get(first["grows"], first["grows"])
        print(f"\n{first['loss']}: time grows as ({name}) to the power {first['exponent']:.2f}\n")
        cells = [[row["size"], row["seconds"], row["ms_per_training"]] for row in some]
        print(table((name, "seconds", "ms per training"), cells, markdown))
