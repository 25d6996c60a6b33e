"""`reproduce`: a paper's table beside ours, at the paper's way and with every loss tuned, and what was not run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metaloss import families, registry, search
from metaloss.comparison import Report, compare
from metaloss.errors import DataError, SettingsError
from metaloss.families import open_family


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        source: where it was read.
        printed: mean and standard deviation over tasks, by family and loss.
        evolved: the name under which the paper's own loss stands there.
        shipped: the loss that comes with the package for it.
        genome: what is evolved for it.
        tasks: how many the printed numbers are means of.
        note: what a reader must know to compare.
    """

    source: str
    printed: Mapping[str, Mapping[str, tuple[float, float]]]
    evolved: str
    shipped: str
    genome: str
    tasks: int
    note: str


TABLES = {
    "mln": Table(
        "Hai and Liu 2021, table 1",
        {
            "fashionmnist": {"ce": (0.5922, 0.0474), "mse": (0.4807, 0.0451), "mln": (0.646, 0.0392)},
            "cifar10": {"ce": (0.1771, 0.0241), "mse": (0.1263, 0.0284), "mln": (0.1935, 0.0328)},
        },
        "mln",
        "mln-fashionmnist",
        "mln",
        10,
        "The paper prints neither task sizes, classifier widths nor the learning rate, and chose its network on the "
        "tasks it reports. What can be reproduced is the order MLN > CE > MSE at 20 steps and one learning rate. "
        "There it is partly a matter of scale: with ten classes MSE first pulls a fifth as hard as CE and the evolved "
        "network several times as hard. The tuned columns take that away.",
    )
}


@dataclass(frozen=True)
class Reproduced:
    """A published table beside ours.

    Attributes:
        rows: one per family and loss: what is printed, ours at one learning rate, and ours tuned.
        missing: families whose data is not here, with the reason.
        note: what a reader must know to compare.
        source: where the table was read.
        report: the comparison that ours comes from.
    """

    rows: list[dict[str, Any]]
    missing: dict[str, str]
    note: str
    source: str
    report: Report

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        table = {key: value for key, value in asdict(self).items() if key != "report"}
        return {**table, "folder": str(self.report.folder)}


def reproduce(
    name: str, *, loss: Any = None, evolve: bool = False, out: str | Path = "compare", runs: str | Path = "runs",
    reporter: Any = None, stop: Callable[[], bool] = lambda: False, **others: Any,
) -> Reproduced:  # fmt: skip
    """Run a paper's table on the data sets that are here.

    Args:
        name: the table's: "mln".
        loss: what stands for the paper's own loss; the shipped one by default.
        evolve: evolve it anew on the first of the table's families that is here, by the default search.
        out: the folder that the comparison's report goes to.
        runs: where runs are made and looked for.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        others: any further field of `Comparison`, as `test_tasks=50`.

    Raises:
        SettingsError: there is no such table, or a loss or setting that cannot be.
        DataError: none of its data sets is here.
    """
    if name not in TABLES:
        raise SettingsError(registry.unknown("table", name, TABLES))
    table = TABLES[name]
    here, missing = _here(table)
    if evolve:
        loss = search.evolve(here[0], genome=table.genome, out=runs, reporter=reporter, stop=stop).folder
    ours, plain = loss or table.shipped, [k for k in table.printed[here[0]] if k != table.evolved]
    report = compare([ours, *plain], here, out=out, runs=runs, reporter=reporter, stop=stop, **others)
    return Reproduced(_rows(table, report), missing, table.note, table.source, report)


def _here(table: Table) -> tuple[list[str], dict[str, str]]:
    """The families whose data is here, and why the others are not."""
    here, missing = [], {}
    for name in table.printed:
        try:
            open_family(families.read(name))
            here.append(name)
        except DataError as error:
            missing[name] = str(error)
    if not here:
        raise DataError("none of the table's data sets is here: " + "; ".join(missing.values()))
    return here, missing


def _rows(table: Table, report: Report) -> list[dict[str, Any]]:
    found = []
    for row in report.table:
        printed: Mapping[str, tuple[float, float]] = table.printed[row["family"]]
        name = row["loss"] if row["loss"] in printed else table.evolved
        mean, std = printed[name]
        found.append({
            "family": row["family"], "loss": row["loss"], "printed_as": name, "printed": mean, "printed_std": std,
            "one_rate": row["plain"]["accuracy"], "one_rate_std": row["plain"]["std"],
            "tuned": row["at"]["accuracy"], "tuned_std": row["at"]["std"], "lr": row["setting"]["lr"],
        })  # fmt: skip
    return found


def lines(found: Reproduced) -> Sequence[str]:
    """The tables as text."""
    settings = found.report.summary["settings"]
    own = {f["name"]: f["inner"]["lr"] for f in found.report.summary["families"]}
    text = [
        f"{found.source}; ours on {settings['test_tasks']} meta-test tasks; mean ± standard deviation over tasks",
        f"{'family':12}  {'loss':22}  {'printed':12}  {'ours, one rate (lr)':21}  ours, tuned in rate (lr)",
    ]
    for r in found.rows:
        one, tuned = f"{_share(r, 'one_rate')} ({own[r['family']]:g})", f"{_share(r, 'tuned')} ({r['lr']:g})"
        text.append(f"{r['family']:12}  {r['loss'][:22]:22}  {_share(r, 'printed')}  {one:21}  {tuned}")
    text += [f"not run: {name} ({reason})" for name, reason in found.missing.items()]
    return [*text, found.note, *found.report.sentences]


def _share(row: Mapping[str, Any], key: str) -> str:
    return f"{100 * row[key]:.1f} ± {100 * row[key + '_std']:.1f} %"
