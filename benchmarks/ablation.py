"""What a mixture of kinds of tasks, the clock and unit gain each bring to a search.

    python benchmarks/ablation.py FOLDER [--seeds 3] [--generations 100] [--tasks 32] [--part 0/2]
    python benchmarks/ablation.py FOLDER --report

Learned targets are searched with and without each of the three: eight searches a seed, all of as
many trainings. Without a mixture all tasks are of one kind, the middle of the mixture's ranges.
Fitness is the gain over cross-entropy at its best rate in all of them (`objective = "regret"`).

Winners are compared on kinds that were never mixed in: those of another draw, on Fashion-MNIST's
meta-test images, and kinds of scikit-learn's digits. Each has the multiple of cross-entropy's best
rate that is best for it on meta-validation tasks.

Searches are kept in FOLDER, and a second call goes on with those that are not there yet; `--part
0/2` and `--part 1/2` share them between two processes. `--report` compares all that are finished.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from timing import machine, table

import metaloss

EFFECTS = ("mixture", "clock", "unit gain")
RANGES: dict[str, Any] = {
    "steps": [10, 400],
    "lr_factor": [0.5, 2.0],
    "shots": [1, 50],
    "images_seen": 40_000,
    "ways": [5, 10],
    "width": [32, 128],
    "depth": [0, 2],
    "init_scale": [0.7, 1.4],
    "noise": [0.1, 0.4],
    "noisy": 0.25,
    "augmented": 0.1,
    "permuted": 0.25,
    "inverted": 0.25,
}
# The geometric middle of what is even on a logarithmic scale.
ONE_KIND = {
    "dataset": "fashionmnist",
    "ways": 10,
    "shots": 7,
    "val": 100,
    "classifier": {"kind": "mlp", "hidden": [64]},
    "inner": {"steps": 63, "lr": 0.1},
}


class Cell(NamedTuple):
    """One search: which of the three it has, and its seed."""

    mixture: bool
    clock: bool
    unit_gain: bool
    seed: int

    @property
    def name(self) -> str:
        """Its folder's."""
        parts = (self.mixture, self.clock, self.unit_gain)
        has = [name.replace(" ", "-") for name, there in zip(EFFECTS, parts, strict=True) if there]
        return f"{'+'.join(has) or 'none'}-{self.seed}"


def cells(seeds: int) -> list[Cell]:
    """All searches, seed by seed: what is finished first is a whole ablation."""
    parts = list(itertools.product((True, False), repeat=len(EFFECTS)))
    return [Cell(*part, seed) for seed in range(1, seeds + 1) for part in parts]


def family(folder: Path, name: str, settings: Mapping[str, Any]) -> str:
    """The path of a task family's file, which is written."""
    file = folder / f"{name}.toml"
    file.write_text(tomli_w.dumps(settings))
    return str(file)


def mixture(dataset: str, kinds: int, seed: int, val: int) -> dict[str, Any]:
    """A mixture's settings."""
    few = {"shots": [1, 20]} if dataset == "digits" else {}
    return {
        "kind": "mixture",
        "datasets": [dataset],
        "kinds": kinds,
        "kinds_seed": seed,
        "tasks_per_kind": 1,
        "val": val,
        "ranges": {**RANGES, **few},
    }


def search(cell: Cell, folder: Path, chosen: argparse.Namespace) -> None:
    """Search one cell's loss, unless that is done."""
    if finished(folder, cell):
        return
    tasks = (
        family(folder, "mixed", mixture("fashionmnist", chosen.kinds, 0, 100))
        if cell.mixture
        else family(folder, "one-kind", ONE_KIND)
    )
    result = metaloss.evolve(
        tasks,
        genome={"kind": "targets", "clock": cell.clock},
        objective="regret",
        unit_gain=cell.unit_gain,
        seed=cell.seed,
        generations=chosen.generations,
        tasks_per_generation=chosen.tasks,
        winner_tasks=chosen.winner_tasks,
        test_tasks=16,  # of the search's own kinds: the report has the others
        out=folder / cell.name,
        reporter=metaloss.Console(),
    )
    print(f"{cell.name}: {result.folder}", flush=True)


def finished(folder: Path, cell: Cell) -> Path | None:
    """The run of a cell, where it has come to its end."""
    runs = [path.parent for path in (folder / cell.name).glob("*/summary.json")]
    return runs[0] if runs else None


def report(folder: Path, chosen: argparse.Namespace) -> None:
    """Compare all winners on kinds that were never mixed in, and print what each part brings."""
    runs = {cell: run for cell in cells(chosen.seeds) if (run := finished(folder, cell))}
    tasks = [
        family(folder, "new-kinds", mixture("fashionmnist", chosen.kinds, 1, 100)),
        family(folder, "digit-kinds", mixture("digits", chosen.kinds, 2, 15)),
    ]
    compared = metaloss.compare(
        ["label_smoothing(alpha=0.2)", *map(str, runs.values())],
        tasks,
        tuning_tasks=chosen.kinds,
        test_tasks=chosen.test_tasks,
        rivals=False,
        out=folder / "compare",
        reporter=metaloss.Console(),
    )
    # Runs of one name are told apart by a number behind it: losses stand in the order given.
    labels = [x["loss"] for x in compared.summary["losses"]][1:]
    gains = {
        cell: gains_of(compared.summary, label) for cell, label in zip(runs, labels, strict=False)
    }
    (folder / "gains.json").write_text(
        json.dumps([{**cell._asdict(), "gains": x} for cell, x in gains.items()], indent=1)
    )
    print(machine())
    for title, found in (("searches", cell_rows(gains)), ("effects", effects(gains))):
        print(f"\n{title}\n")
        rows = list(found)
        print(table(list(rows[0]), [list(row.values()) for row in rows], markdown=True))


def gains_of(summary: Mapping[str, Any], loss: str) -> dict[str, float]:
    """A winner's gain over cross-entropy on every family, in points."""
    return {
        row["family"]: 100 * row["against"]["gain"]["mean"]
        for row in summary["rows"]
        if row["loss"] == loss
    }


def cell_rows(gains: Mapping[Cell, Mapping[str, float]]) -> Iterator[dict[str, str]]:
    """Of every combination the mean gain over the seeds, and the gains of the seeds."""
    for part in dict.fromkeys(cell[:-1] for cell in gains):
        of_seeds = [gains[cell] for cell in gains if cell[:-1] == part]
        row = {name: "yes" if has else "-" for name, has in zip(EFFECTS, part, strict=True)}
        for name in of_seeds[0]:
            values = [x[name] for x in of_seeds]
            seeds = ", ".join(f"{x:+.1f}" for x in values)
            row[name] = f"{statistics.mean(values):+.2f} ({seeds})"
        yield row


def effects(gains: Mapping[Cell, Mapping[str, float]]) -> Iterator[dict[str, str]]:
    """What each of the three brings: the mean over pairs of searches that differ in it alone."""
    for place, name in enumerate(EFFECTS):
        without = {cell: cell._replace(**{Cell._fields[place]: False}) for cell in gains}
        both = [(gains[x], gains[y]) for x, y in without.items() if y != x and y in gains]
        row = {"with against without": name, "pairs": str(len(both))}
        for family_name in both[0][0] if both else ():
            differences = [one[family_name] - other[family_name] for one, other in both]
            error = (
                statistics.stdev(differences) / len(differences) ** 0.5
                if len(differences) > 1
                else float("nan")
            )
            row[family_name] = f"{statistics.mean(differences):+.2f} ± {error:.2f}"
        yield row


def main() -> None:
    """Search what is missing, or report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=32, help="a generation")
    parser.add_argument("--kinds", type=int, default=64)
    parser.add_argument("--winner-tasks", type=int, default=200)
    parser.add_argument("--test-tasks", type=int, default=320)
    parser.add_argument("--part", default="0/1", help="which of how many shares of the searches")
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.report:
        report(chosen.folder, chosen)
        return
    number, parts = map(int, chosen.part.split("/"))
    for cell in cells(chosen.seeds)[number::parts]:
        search(cell, chosen.folder, chosen)


if __name__ == "__main__":
    main()
