"""A published table of full-size trainings beside ours.

Finished trainings are looked up; those that are missing can be run.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloss.core import registry
from metaloss.core.reporting import Reporter
from metaloss.errors import DataError, MetalossError, SettingsError
from metaloss.experiments.reproduction import commands as command_lines
from metaloss.experiments.reproduction import printing
from metaloss.experiments.reproduction.cells import CellSpec, ColumnRun, Request, column_runs
from metaloss.experiments.reproduction.folders import (
    TrainingFolder,
    nearest_finished,
    training_folders,
    unfinished,
)
from metaloss.experiments.reproduction.published import Row, TrainingsTable
from metaloss.experiments.reproduction.reproduced_table import ReproducedTable


def reproduce(
    name: str,
    table: TrainingsTable,
    *,
    losses: Sequence[str],
    columns: Sequence[str],
    run: bool,
    trainings: Path,
    changes: Mapping[str, Any],
    reporter: Reporter,
    stop: Callable[[], bool],
) -> ReproducedTable:
    """Look up the table's cells among finished trainings.

    Args and errors: as for `metaloss.reproduce`.
    """
    if "loss" in changes:
        raise SettingsError("loss is what a table's rows are told by: name rows by --loss")
    rows = _rows(table, losses)
    request = Request(name, table, rows, column_runs(table, columns, changes), changes, trainings)
    # What is missing runs first, and is then found among finished trainings like all others.
    failed = _run(request, reporter, stop) if run else {}
    folders = training_folders(trainings, reporter)
    cells = [
        _cell(request, column_run, row, folders)
        for column_run in request.column_runs
        for row in rows
    ]
    _compared(table, cells)
    orders = _orders(table, request.column_runs, cells) if table.order else []
    missing = {**_missing(request, folders), **failed}
    details = {
        "table": name,
        "protocol": table.protocol,
        "n": table.n or None,
        "measure": table.measure,
        "against": table.against or None,
        "orders": orders,
        "stand_ins": dict(changes),
        "remarks": command_lines.remarks(rows, request.column_runs),
    }
    text = printing.lines(
        request.table, cells, missing, details, command_lines.again(name, request)
    )
    return ReproducedTable(cells, missing, table.note, table.source, text, details)


def _rows(table: TrainingsTable, losses: Sequence[str]) -> list[Row]:
    """The rows that are meant by printed names or names of ours; all where there are none."""
    known = {key.lower(): row for row in table.rows for key in (row.loss, row.name) if key}
    for x in losses:
        if x.strip().lower() not in known:
            raise SettingsError(registry.unknown_message("loss", x, known))
    wanted = [known[x.strip().lower()] for x in losses]
    return [row for row in table.rows if row in wanted or not wanted]


def _cell(
    request: Request, column_run: ColumnRun, row: Row, trainings: Sequence[TrainingFolder]
) -> dict[str, Any]:
    """A cell as values for JSON, without the differences."""
    mean, std = request.table.printed(row, column_run.column)
    cell: dict[str, Any] = {
        "column": column_run.column.name,
        "printed_as": row.name,
        "loss": row.loss or None,
        "printed": mean,
        "printed_std": std,
        "ours": None,
        "ours_std": None,
        "n": 0,
        "failed": 0,
        "lr": [],
        "delta": None,
        "difference": None,
        "departures": [],
        "folders": [],
    }
    if reason := row.cannot or column_run.reason:
        return {**cell, "state": reason}
    return {**cell, **_ours(request.table.measure, column_run, row.loss, trainings)}


def _ours(
    measure: str, column_run: ColumnRun, loss: str, trainings: Sequence[TrainingFolder]
) -> dict[str, Any]:
    """What finished trainings of a loss say of a cell, and that it was run; or that it was not.

    Args:
        measure: of the table.
        column_run: the cell's column.
        loss: the cell's row.
        trainings: all that there are.
    """
    nearest = [(spec, nearest_finished(spec, loss, trainings)) for spec in column_run.cell_specs]
    finished = [
        (spec, training, line)
        for spec, training in nearest
        if training is not None and (line := training.row(loss)) is not None
    ]
    # A mean over some of the settings would not be the printed one over all.
    if len(finished) < len(nearest):
        return {"state": "not run"}
    lines = [line for *_, line in finished]
    departures = [
        words for spec, training, _ in finished for words in spec.departures(training.settings)
    ]
    return {
        **_numbers(measure, lines),
        "state": "run",
        "lr": sorted({line["lr"] for line in lines}),
        "n": sum(line["n"] for line in lines),
        "failed": sum(line["failed"] for line in lines),
        "departures": list(dict.fromkeys(departures)),
        "folders": [str(training.folder) for _, training, _ in finished],
    }


def _numbers(measure: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean and standard deviation in percent.

    Of several settings: the mean of their means, and the pooled standard deviation.
    """
    means = [x[measure] for x in lines]
    stds = [x[f"{measure}_std"] for x in lines]
    return {
        "ours": None if None in means else 100 * statistics.fmean(means),
        # Pooled: variances are averaged, not deviations.
        "ours_std": None
        if None in stds
        else 100 * math.sqrt(statistics.fmean(x * x for x in stds)),
    }


def _compared(table: TrainingsTable, cells: Sequence[dict[str, Any]]) -> None:
    """Fill in the differences from the printed numbers.

    Where the table prints differences from a baseline, ours are such differences, too.
    """
    baseline_of_column = {
        cell["column"]: cell["ours"] for cell in cells if cell["printed_as"] == table.against
    }
    for cell in cells:
        ours = cell["ours"]
        if table.against and cell["printed_as"] != table.against:
            baseline = baseline_of_column.get(cell["column"])
            cell["delta"] = ours = None if None in (ours, baseline) else ours - baseline
        if None not in (ours, cell["printed"]):
            cell["difference"] = ours - cell["printed"]


def _orders(
    table: TrainingsTable, column_runs: Sequence[ColumnRun], cells: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Of every column the printed order of losses, and ours of those that were run."""
    orders = []
    for column_run in column_runs:
        run_cells = [
            x for x in cells if x["column"] == column_run.column.name and x["ours"] is not None
        ]
        ours = [x["printed_as"] for x in sorted(run_cells, key=lambda x: -x["ours"])]
        orders.append(
            {"column": column_run.column.name, "printed": list(table.order), "ours": ours}
        )
    return orders


def _missing(request: Request, trainings: Sequence[TrainingFolder]) -> dict[str, str]:
    """What was not run: the reason, or the commands that run it."""
    reasons = {row.name: row.cannot for row in request.rows if row.cannot}
    for column_run in request.column_runs:
        if column_run.reason:
            reasons[column_run.column.name] = column_run.reason
            continue
        commands = []
        for spec in column_run.cell_specs:
            losses = _without(request, spec, trainings)
            for x, resumed in unfinished(spec, losses, trainings):
                commands.append(command_lines.resume(x.folder))
                losses = [loss for loss in losses if loss not in resumed]
            commands += [command_lines.train(request, spec, losses)] if losses else []
        if commands:
            reasons[column_run.column.name] = " && ".join(commands)
    return reasons


def _without(
    request: Request, spec: CellSpec, trainings: Sequence[TrainingFolder], seeds: int = 1
) -> list[str]:
    """The losses that have no finished training of so many seeds."""
    return [
        row.loss
        for row in request.rows
        if row.loss and nearest_finished(spec, row.loss, trainings, seeds) is None
    ]


def _run(request: Request, reporter: Reporter, stop: Callable[[], bool]) -> dict[str, str]:
    """Train what is missing, column by column; gives those whose images are missing, or that
    failed, with the reason.

    Raises:
        SettingsError: Lightning is not installed, or a setting that cannot be.
        DataError: none of the columns has its images.
    """
    from metaloss.training import fitting

    fitting.needed()
    runnable = [column_run for column_run in request.column_runs if not column_run.reason]
    failed = dict[str, str]()
    here = 0
    # A column without its images must not keep the others from being run.
    for column_run in runnable:
        try:
            for spec in column_run.cell_specs:
                _train(request, spec, reporter, stop)
            here += 1
        except DataError as error:
            failed[column_run.column.name] = str(error)
        except MetalossError as error:
            if type(error) is not MetalossError:  # what did not come from a loss
                raise
            failed[column_run.column.name], here = str(error), here + 1
    if runnable and not here:
        raise DataError("no column has its images: " + "; ".join(dict.fromkeys(failed.values())))
    return failed


def _train(request: Request, spec: CellSpec, reporter: Reporter, stop: Callable[[], bool]) -> None:
    """Go on with what was interrupted, then train the losses that are left."""
    from metaloss.training import fitting

    seeds = spec.wanted.seeds
    parent = request.parent
    trainings = training_folders(parent, Reporter())
    for x, _ in unfinished(spec, _without(request, spec, trainings, seeds), trainings):
        fitting.go_on(x.folder, out=parent, reporter=reporter, stop=stop)
    # Read again: what has just been finished is no longer missing.
    missing = _without(request, spec, training_folders(parent, Reporter()), seeds)
    if missing:
        fitting.start(
            replace(spec.wanted, loss=tuple(missing)), parent, reporter=reporter, stop=stop
        )
