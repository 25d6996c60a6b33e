"""Trainings per second: populations trained at once, beside the same trainings done without
Metaloss.

One training: initialise a 784-128-64-10 MLP (or a small CNN), 20 full-batch SGD steps on a 10-way
5-shot task, validate on 2,000 images, in float32. Rivals: a plain loop with torch.nn and
torch.optim, `torch.func.vmap` over trainings, JAX `vmap` + `jit` of whole trainings, each at its
better of one and all cores and at its best number of trainings at once; and the plain loop once per
core, in a process each. All take turns with us, `--repeats` times; medians are printed.

    python benchmarks/engine.py [--quick] [--growth] [--long] [--head] [--json | --markdown]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import growth
from cases import APART, SEARCHED, Case, problem
from engine_table import HEAD, RIVALS, caption, cells
from timing import CORES, held_by, median, peak, quartiles, rate, table
from worker import Worker

from metaloss.engines.local import Local
from metaloss.inner.loop import Inner

# Candidates × tasks.
SIZES = ((1, 1), (1, 16), (16, 1), (2, 8), (8, 8), (32, 8), (128, 8), (256, 16))
LOSSES = ("mln", "ce", "targets", "taylor", "formulas", *SEARCHED)
# The MLP's grids for them.
WITHOUT_RIVALS = {
    "formulas": ((128, 8),),
    **dict.fromkeys(("targets", "taylor", *SEARCHED), ((32, 8), (128, 8))),
}
# Trainings at once that are tried.
CHUNKS = {"sequential": (1,), "vmap": (4, 16, 64), "jax": (1, 4, 16, 64)}
# Rows for optimisers: settings of a family's `inner`, left out where this version has no such
# setting.
OPTIMISERS: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 1e-3},
    "adam": {"optimiser": "adam"},
    "minibatches": {"batch": 10},
}
OPTIMISED = (32, 8)  # the grid they, and the cases apart, are measured on

Option = tuple[str, int, int]  # a rival, how many trainings at once, how many threads


@dataclass(frozen=True)
class Budget:
    """How long to measure."""

    repeats: int = 5
    least: float = 0.3  # seconds per measurement
    most: int = 64  # trainings that a rival is timed on: its speed does not grow with their number
    rivals: tuple[str, ...] = RIVALS
    sizes: tuple[tuple[int, int], ...] = SIZES
    classifiers: tuple[str, ...] = ("mlp", "cnn")
    chunks: dict[str, tuple[int, ...]] = field(default_factory=lambda: CHUNKS)


QUICK = Budget(
    2,
    0.02,
    16,
    ("sequential", "vmap"),
    ((1, 1), (16, 1), (32, 8)),
    ("mlp",),
    {"sequential": (1,), "vmap": (16,)},
)


class Bench:
    """Our engine in this process, the rivals in processes of their own."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.stack = ExitStack()
        self.engine = self.stack.enter_context(Local())
        self.torch = [
            self.stack.enter_context(Worker())
            for _ in CORES[: None if "loops" in budget.rivals else 1]
        ]
        self.jax: dict[int, Worker] = {}
        if "jax" in budget.rivals:
            self.jax = {n: self.stack.enter_context(Worker(CORES[:n])) for n in {1, len(CORES)}}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def section(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """A row for each of some cases of one size, measured together."""
        ours = [self.ours(case) for case in cases]
        held = [held_by(run) for run in ours]  # warms up, too
        rivals = [self.chosen(self.fair(case)) for case in cases]
        seen: list[list[dict[str, float]]] = [[] for _ in cases]
        for _ in range(self.budget.repeats):
            most = peak()
            for found, run in zip(seen, ours, strict=True):
                found.append({"peak": most, "ours": run()})
            for found, case, options in zip(seen, cases, rivals, strict=True):
                found[-1] |= {
                    name: self.best(self.fair(case), some) for name, some in options.items()
                }
        speeds = {
            case.loss: [x["ours"] for x in found] for case, found in zip(cases, seen, strict=True)
        }
        return [row(*each, speeds) for each in zip(cases, seen, rivals, held, strict=True)]

    def ours(self, case: Case) -> Callable[[], float]:
        """Measures our engine once."""
        x = problem(case)
        run = partial(self.engine.score, x.losses, x.episodes, x.tasks, x.keys)
        return lambda: rate(run, len(case), self.budget.least)

    def fair(self, case: Case) -> Case:
        """What rivals are timed on: fewer where a training takes ten times as long, or more."""
        dear = case.classifier == "cnn" or case.kind
        return case.share(max(4, self.budget.most // 16) if dear else self.budget.most)

    def chosen(self, case: Case) -> dict[str, list[Option]]:
        """Each rival's two fastest ways, of all that are tried.

        The better one counts every time.
        """
        found = {}
        for name in self.budget.rivals:
            if options := self.options(name, case):
                found[name] = (
                    sorted(options, key=lambda o: self.tried(case, o))[-2:]
                    if options[2:]
                    else options
                )
        return found

    def tried(self, case: Case, option: Option) -> float:
        """A rival's speed in one way, on no more trainings than show it."""
        return self.measured(case.share(max(option[1], 16)), *option)

    def options(self, name: str, case: Case) -> list[Option]:
        """The ways a rival can do a case; none where it cannot."""
        if case.loss in WITHOUT_RIVALS:
            return []
        if name == "loops":
            return [(name, 1, 1)] if len(CORES) > 1 else []
        if name == "jax" and (case.classifier != "mlp" or find_spec("jax") is None):
            return []
        if name != "sequential" and (case.optimiser or case.kind):
            return []
        chunks = [c for c in self.budget.chunks[name] if c < len(case)]
        larger = [c for c in self.budget.chunks[name] if c >= len(case)][:1]
        return [
            (name, chunk, threads)
            for chunk in chunks + larger
            for threads in sorted({1, len(CORES)})
        ]

    def best(self, case: Case, options: Iterable[Option]) -> float:
        """The fastest option's trainings per second, each measured once."""
        return max(self.measured(case, *option) for option in options)

    def measured(self, case: Case, name: str, chunk: int, threads: int) -> float:
        """A rival's trainings per second; the loops, one per core, run at the same time."""
        several = name == "loops"
        workers = (
            self.torch if several else [self.jax[threads]] if name == "jax" else self.torch[:1]
        )
        for worker in workers:
            worker.ask("sequential" if several else name, case, chunk, threads, self.budget.least)
        return float(sum(worker.answer()["rate"] for worker in workers))


def row(
    case: Case,
    seen: list[dict[str, float]],
    rivals: dict[str, list[Option]],
    held: int,
    speeds: dict[str, list[float]],
) -> dict[str, Any]:
    """What a case's measurements come to, beside the speeds of all losses of its size.

    None where nothing is known.
    """
    ours = [x["ours"] for x in seen]
    result: dict[str, Any] = {
        "name": name_of(case),
        "loss": case.loss,
        "classifier": case.classifier,
        "optimiser": optimiser_of(case),
        "shots": case.shots,
        "steps": case.steps,
        "candidates": case.candidates,
        "tasks": case.tasks,
        "trainings_per_second": median(ours),
        "quartiles": quartiles(ours),
        "repeats": len(seen),
    }
    for name in RIVALS:
        known = name in rivals
        result[name] = median([x[name] for x in seen]) if known else None
        result[f"ratio_to_{name}"] = median([x["ours"] / x[name] for x in seen]) if known else None
    shared = case.classifier == "mlp" and not case.optimiser
    result["peak"] = median([x["peak"] for x in seen])
    result["peak_share"] = (
        median([x["ours"] * case.operations() / x["peak"] for x in seen]) if shared else None
    )
    for other, asks in (("ce", case.loss != "ce"), ("mln", case.loss in WITHOUT_RIVALS)):
        pairs = zip(ours, speeds[other], strict=True) if asks and other in speeds else ()
        result[f"share_of_{other}"] = median([a / b for a, b in pairs])
    result["peak_memory"] = held / 2**30
    result["ways"] = {
        name: [f"{c} at once, threads: {t}" for _, c, t in options]
        for name, options in rivals.items()
    }
    return result


def name_of(case: Case) -> str:
    """A name by which a row can be found again."""
    kind = f"-{case.kind}" if case.kind else ""
    kind += f"-{optimiser_of(case)}" if case.optimiser else ""
    return f"{case.classifier}-{case.loss}{kind}-{case.candidates}x{case.tasks}"


def optimiser_of(case: Case) -> str:
    """The name of the case's optimiser in the tables."""
    return next(
        (name for name, settings in OPTIMISERS.items() if settings == case.optimiser), "sgd"
    )


def measured_on(loss: str, classifier: str, size: tuple[int, int]) -> bool:
    """Whether a loss has a row for this classifier and grid."""
    return loss not in WITHOUT_RIVALS or (classifier == "mlp" and size in WITHOUT_RIVALS[loss])


def sections(budget: Budget, optimisers: bool, apart: Sequence[str] = ()) -> list[list[Case]]:
    """The cases, by what is measured together; those apart instead of all others."""
    if apart:
        return [
            [Case(loss=loss, candidates=P, tasks=T, **APART[name]) for loss in LOSSES[:2]]
            for name in apart
            for P, T in budget.sizes
        ]
    sizes = [
        [Case(kind, loss, *size) for loss in LOSSES if measured_on(loss, kind, size)]
        for kind in budget.classifiers
        for size in budget.sizes
    ]
    known = [x for x in OPTIMISERS.values() if x.keys() <= Inner.__dataclass_fields__.keys()]
    grids = [[Case("mlp", loss, *OPTIMISED, optimiser=x) for loss in LOSSES[:2]] for x in known]
    return sizes + (grids if optimisers else [])


def measure(budget: Budget, optimisers: bool, apart: Sequence[str]) -> list[dict[str, Any]]:
    """All rows; the names go to the error stream as they come."""
    found = []
    with Bench(budget) as bench:
        for cases in sections(budget, optimisers, apart):
            found += bench.section(cases)
            print(f"{found[-1]['name']} done", file=sys.stderr, flush=True)
    return found


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="under a minute, without JAX and the CNN"
    )
    parser.add_argument(
        "--growth", action="store_true", help="how cost grows with every size, instead"
    )
    parser.add_argument(
        "--long", action="store_true", help="the MLP with 20 shots and 200 steps, instead"
    )
    parser.add_argument(
        "--head", action="store_true", help="a linear layer on 1,280 numbers, likewise, instead"
    )
    parser.add_argument("--optimisers", action="store_true", help="rows for other optimisers too")
    parser.add_argument("--json", action="store_true", help="a list of rows")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--repeats", type=int)
    parser.add_argument(
        "--sizes", nargs="+", metavar="PxT", type=lambda x: tuple(map(int, x.split("x")))
    )
    parser.add_argument("--classifiers", nargs="+", choices=("mlp", "cnn"))
    parser.add_argument("--rivals", nargs="*", choices=RIVALS)
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table."""
    asked = arguments()
    given = {
        k: v
        for k in ("repeats", "sizes", "classifiers", "rivals")
        if (v := getattr(asked, k)) is not None
    }
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    apart = [name for name in APART if getattr(asked, name)]
    if apart:
        given.setdefault("sizes", (OPTIMISED,))
    budget = replace(QUICK if asked.quick else Budget(), **given)
    if asked.growth:
        return growth.main(budget.repeats, asked.quick, asked.json, asked.markdown)
    rows = measure(budget, asked.optimisers, apart)
    if asked.json:
        return print(json.dumps(rows, indent=1))
    print(caption(rows) + "\n")
    print(table(HEAD, [cells(row) for row in rows], asked.markdown))


if __name__ == "__main__":
    main()
