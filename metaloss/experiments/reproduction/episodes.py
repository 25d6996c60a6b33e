"""A published table of few-shot tasks beside ours: at the paper's way and with every loss tuned."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.reporting import Reporter
from metaloss.core.tables import record_table
from metaloss.errors import DataError, SettingsError
from metaloss.experiments import comparison
from metaloss.experiments.comparison import Report
from metaloss.experiments.reproduction.published import EpisodesTable
from metaloss.experiments.reproduction.reproduced_table import ReproducedTable
from metaloss.search import program
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic import open_episodes

NAME = 22  # characters of a loss


def reproduce(
    table: EpisodesTable,
    *,
    loss: Any,
    evolve: bool,
    out: str | Path,
    runs: str | Path,
    reporter: Reporter,
    stop: Callable[[], bool],
    others: Mapping[str, Any],
) -> ReproducedTable:
    """Compare the table's losses on the data sets that are here.

    Args and errors: as for `metaloss.reproduce`.
    """
    if "tasks" in others:
        raise SettingsError("the tasks are what a table is told by: they cannot be set")
    here, missing = _here(table)
    if evolve:
        loss = program.evolve(
            here[0], genome=table.genome, out=runs, reporter=reporter, stop=stop
        ).folder
    ours = loss or table.shipped
    # All that are printed but the paper's own, which ours stands for.
    published_losses = [k for k in table.printed[here[0]] if k != table.evolved]
    # Papers' tables hold losses alone.
    settings = {**others, "tasks": tuple(here), "rivals": False}
    reporter.on_work(
        f"comparing {1 + len(published_losses)} losses on {len(here)} families; it may take minutes"
    )
    report = comparison.start(
        [ours, *published_losses],
        settings,
        out=out,
        name="",
        runs=runs,
        reporter=reporter,
        stop=stop,
    )
    rows = _rows(table, report)
    text = _lines(table, rows, missing, report)
    details = {"folder": str(report.folder)}
    return ReproducedTable(rows, missing, table.note, table.source, text, details, report)


def _here(table: EpisodesTable) -> tuple[list[str], dict[str, str]]:
    """The families whose data is here, and why the others are not."""
    here = []
    missing = {}
    for name in table.printed:
        try:
            open_episodes(episodic_family.read(name))
            here.append(name)
        except DataError as error:
            missing[name] = str(error)
    if not here:
        raise DataError("none of the table's data sets is here: " + "; ".join(missing.values()))
    return here, missing


def _rows(table: EpisodesTable, report: Report) -> list[dict[str, Any]]:
    rows = []
    for row in report.table:
        printed: Mapping[str, tuple[float, float]] = table.printed[row["family"]]
        # A loss that the table does not print stands for the paper's own.
        name = row["loss"] if row["loss"] in printed else table.evolved
        mean, std = printed[name]
        rows.append(
            {
                "family": row["family"],
                "loss": row["loss"],
                "printed_as": name,
                "printed": mean,
                "printed_std": std,
                "one_rate": row["plain"]["accuracy"],
                "one_rate_std": row["plain"]["std"],
                "tuned": row["at"]["accuracy"],
                "tuned_std": row["at"]["std"],
                "lr": row["setting"]["lr"],
            }
        )
    return rows


def _lines(
    table: EpisodesTable,
    rows: Sequence[Mapping[str, Any]],
    missing: Mapping[str, str],
    report: Report,
) -> Sequence[str]:
    """The tables as text."""
    family_rates = {f["name"]: f["inner"]["lr"] for f in report.summary["families"]}
    tasks = report.summary["settings"]["test_tasks"]
    text = [
        f"{table.source}; ours on {tasks} meta-test tasks; mean ± standard deviation over tasks",
        *record_table(
            [
                {
                    "family": row["family"],
                    "loss": row["loss"][:NAME],
                    "printed": _share(row, "printed"),
                    "ours, one rate (lr)": f"{_share(row, 'one_rate')} "
                    f"({family_rates[row['family']]:g})",
                    "ours, tuned in rate (lr)": f"{_share(row, 'tuned')} ({row['lr']:g})",
                }
                for row in rows
            ]
        ),
    ]
    text += [f"not run: {name} ({reason})" for name, reason in missing.items()]
    return [*text, table.note, *report.sentences]


def _share(row: Mapping[str, Any], key: str) -> str:
    return f"{100 * row[key]:.1f} ± {100 * row[key + '_std']:.1f} %"
