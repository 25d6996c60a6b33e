"""What the filters of a search for formulas cost, what they refuse, and how different what they let
through is.

A search as `metaloss evolve` runs it, from after cross-entropy's tuning to its last generation.
Variation and filters are all that happens within `NoveltyFilter.sample`, `mutate` and
`crossover` and `TrainedLosses.add`, refused tries and the phenotypes of what was trained included.
Losses and their curves are read from the run's history alone: two are alike where their curves over
1,000 predictions of two classes, normalised to [0, 1], are at most .01 apart in the 2-norm, as in
Morgan 2024's code; with scale, where also the spans of the curves differ by at most a hundredth.

    python benchmarks/filters.py [--genome tree graph] [--generations 10] [--seeds 0 1] [--json |
    --markdown]
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cases import SEARCHED
from search import Watch
from timing import machine, table
from torch import Tensor

import metaloss
from metaloss import storage
from metaloss.errors import Interrupted
from metaloss.losses import phenotype
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.novelty import NoveltyFilter
from metaloss.search.trained_losses import TrainedLosses

SAME = 0.01  # the published distance up to which two phenotypes are one
SCALE = 0.01  # the relative difference in span up to which two losses have one scale
SMALL: dict[str, Any] = {}  # further settings of the search; the tests make it tiny
TIMED = (
    (NoveltyFilter, "sample"),
    (NoveltyFilter, "mutate"),
    (NoveltyFilter, "crossover"),
    (TrainedLosses, "add"),
)


@dataclass
class Clock:
    """Seconds within the functions that it was put around, and what sieves refused there."""

    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    def around(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """The same method, timed; none of them calls another."""

        @wraps(f)
        def timed(self_: Any, *args: Any) -> Any:
            before = Counter(getattr(self_, "refused", {}))
            began = time.perf_counter()
            result = f(self_, *args)
            self.seconds += time.perf_counter() - began
            self.refused += Counter(getattr(self_, "refused", {})) - before
            return result

        return timed


def searched(settings: dict[str, Any]) -> tuple[Watch, Clock, list[dict[str, Any]]]:
    """A search up to its last generation, without election and test; its times and its history."""
    clock = Clock()
    generations = settings["generations"]
    watch = Watch(goal=float("inf"), limit=float("inf"), generations=generations)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for owner, name in TIMED:
            stack.enter_context(patch.object(owner, name, clock.around(getattr(owner, name))))
        with suppress(Interrupted):
            metaloss.evolve(out=folder, reporter=watch, stop=watch.stop, **settings)
        (run,) = Path(folder).iterdir()
        return watch, clock, storage.History(run).read()


def row(settings: dict[str, Any]) -> dict[str, Any]:
    """What a search's filters cost and did."""
    watch, clock, history = searched(settings)
    seconds = watch.times[-1] - watch.ready
    texts = dict.fromkeys(text for record in history for text, _ in record["losses"])
    return {
        "genome": settings["genome"]["kind"],
        "seed": settings["seed"],
        "generations": len(history),
        "seconds": seconds,
        "variation_and_filters": clock.seconds,
        "share": clock.seconds / seconds,
        "trainings": history[-1]["trainings"],
        "refused": dict(clock.refused.most_common()),
        "losses": len(texts),
        **differing([Formula.parse(text) for text in texts]),
    }


def differing(formulas: list[Formula]) -> dict[str, int]:
    """How many losses differ from every other one, by phenotype and by phenotype and scale.

    One whose curve is not finite has no phenotype, and is counted apart.
    """
    curves = torch.stack([phenotype.curve(Formulas.of([formula])) for formula in formulas])
    curves = curves[curves.isfinite().all(1)]
    unit = torch.stack([phenotype.normalised(curve) for curve in curves])
    near = torch.cdist(unit, unit) <= SAME
    span = curves.amax(1) - curves.amin(1)
    level = (span - span[:, None]).abs() <= SCALE * torch.maximum(span, span[:, None])
    return {
        "without_a_phenotype": len(formulas) - len(curves),
        "differ": _alone(near),
        "differ_with_scale": _alone(near & level),
    }


def _alone(alike: Tensor) -> int:
    """How many are like themselves only."""
    return int((alike.fill_diagonal_(False).sum(1) == 0).sum())


HEAD = (
    "genome",
    "seed",
    "generations",
    "search [s]",
    "variation, filters [s]",
    "share",
    "losses trained",
    "differ",
    "",
    "with scale",
    "",
    "no phenotype",
)


def cells(row: dict[str, Any]) -> list[Any]:
    """A row as it is printed."""
    n = row["losses"]
    counts = [
        x for key in ("differ", "differ_with_scale") for x in (row[key], f"{row[key] / n:.1%}")
    ]
    return [
        row["genome"],
        row["seed"],
        row["generations"],
        row["seconds"],
        row["variation_and_filters"],
        f"{row['share']:.1%}",
        n,
        *counts,
        row["without_a_phenotype"],
    ]


def refusals(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """How often each reason was met, by row."""
    reasons = sum((Counter(row["refused"]) for row in rows), Counter[str]())
    return [
        [reason, *(row["refused"].get(reason, 0) for row in rows)]
        for reason, _ in reasons.most_common()
    ]


def main() -> None:
    """Search, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genome", nargs="+", choices=SEARCHED, default=SEARCHED)
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", default=["fashionmnist"])
    parser.add_argument("--json", action="store_true", help="a list of rows")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    asked = parser.parse_args()
    common = {**SMALL, "tasks": asked.tasks, "generations": asked.generations}
    rows = [
        row({**common, "genome": {"kind": kind}, "seed": n})
        for kind in asked.genome
        for n in asked.seeds
    ]
    if asked.json:
        return print(json.dumps(rows, indent=1))
    print(machine() + "\n")
    print(table(HEAD, [cells(each) for each in rows], asked.markdown) + "\n")
    head = ("refused", *(f"{each['genome']}, seed {each['seed']}" for each in rows))
    print(table(head, refusals(rows), asked.markdown))


if __name__ == "__main__":
    main()
