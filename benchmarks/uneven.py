"""The speed of tasks of unlike sizes, per training image, beside that of even tasks.

python benchmarks/uneven.py [--quick]

The uneven tasks have 2 to 20 images of each class. Every one is set against even tasks of exactly
its size, of which all have that size and none is padded; both run in turn.
"""

import argparse
import json
import statistics
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from cases import Case, problem
from timing import machine, quartiles, rate, table

from metaloss.core.streams import Stream
from metaloss.engines.local import Local

SHOTS = (2, 20)
LOSSES = ("mln", "ce", "formulas")
EVEN = 8  # even tasks that are timed together


def row(case: Case, repeats: int, least: float, engine: Local) -> dict[str, Any]:
    """How fast one loss trains uneven tasks.

    Args:
        case: the loss, the candidates and how many uneven tasks there are.
        repeats: turns of which the median is taken.
        least: seconds that a measurement takes.
        engine: trains.
    """
    x = problem(case)
    keys = [Stream(1).at("task", t) for t in range(case.tasks)]
    uneven = replace(x.episodes, family=replace(x.episodes.family, shots=SHOTS))
    tasks = uneven.sample(keys)
    assert tasks.train.count is not None, "sizes differ"
    shots = Counter((tasks.train.count // case.ways).tolist())
    score = partial(engine.score, x.losses)
    runs = {0: partial(score, uneven, tasks, keys)}
    even_keys = [Stream(1).at("even", t) for t in range(EVEN)]
    for n in shots:
        even = replace(x.episodes, family=replace(x.episodes.family, shots=n))
        runs[n] = partial(score, even, even.sample(even_keys), even_keys)
    for run in runs.values():
        run()
    turns = [{n: 1 / rate(run, 1, least) for n, run in runs.items()} for _ in range(repeats)]
    ratios = [sum(turn[n] / EVEN * times for n, times in shots.items()) / turn[0] for turn in turns]
    low, high = quartiles(ratios)
    images = case.candidates * int(tasks.train.count.sum())
    return {
        "loss": case.loss,
        "candidates": case.candidates,
        "tasks": case.tasks,
        "sizes": len(shots),
        "microseconds": 1e6 * statistics.median(turn[0] for turn in turns) / images,
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "repeats": repeats,
    }


def main() -> None:
    """Read the arguments, measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few small trainings")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    sizes = {"candidates": given.candidates, "tasks": given.tasks, "val": 100}
    repeats = given.repeats
    least = 0.1
    if given.quick:
        sizes = {"candidates": 4, "tasks": 4, "val": 20, "steps": 5}
        repeats = 1
        least = 0.01
    with Local() as engine:
        rows = [row(Case(loss=loss, **sizes), repeats, least, engine) for loss in given.losses]
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{machine()}; medians of {repeats}\n")
    head = ("loss", "candidates", "tasks", "sizes", "µs per image", "even = 1", "quartiles")
    cells = [[*list(x.values())[:5], x["ratio"], f"{x['low']:.2f}–{x['high']:.2f}"] for x in rows]
    print(table(head, cells, given.markdown))


if __name__ == "__main__":
    main()
