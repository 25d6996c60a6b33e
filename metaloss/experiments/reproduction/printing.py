"""A published table of full-size trainings beside ours, as lines of text."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from metaloss.core.formatting import signed
from metaloss.core.tables import record_table
from metaloss.experiments.reproduction.published import TrainingsTable

WHAT = {"accuracy": "test accuracy in %", "iou": "mean IoU in %"}
DIGITS = 2  # behind the point, of ours


def lines(
    table: TrainingsTable,
    cells: Sequence[Mapping[str, Any]],
    missing: Mapping[str, str],
    details: Mapping[str, Any],
    again: str,
) -> list[str]:
    """The table, in what ours departs, what a reader must know, and how to run what was not run.

    Args:
        table: the published one.
        cells: as `ReproducedTable.rows`.
        missing: what was not run: a reason, or commands.
        details: as `ReproducedTable.details`.
        again: the command that runs all that is missing.
    """
    marks = _marks(cells)
    text = [_head(table), *record_table([_row(table, cell, marks) for cell in cells])]
    text += [f"({mark}) {words}" for words, mark in marks.items()]
    text += [f"{name}: {words}" for name, words in details["remarks"].items()]
    for x in details["orders"]:
        ours = " > ".join(x["ours"]) or "not run"
        text.append(f"order on {x['column']}: printed {' > '.join(x['printed'])}; ours {ours}")
    return [*text, table.note, *_undone(cells, missing, again)]


def _head(table: TrainingsTable) -> str:
    runs = f"{table.n} run{'s' * (table.n > 1)}" if table.n else "number of runs not given"
    each = f" of each of {len(table.parts)} networks" if len(table.parts) > 1 else ""
    against = f"; all but {table.against} in points against it" if table.against else ""
    return (
        f"{table.source}, {runs}{each}; {WHAT[table.measure]}{against}; protocol {table.protocol}"
    )


def _marks(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A letter for all cells that depart from the protocol alike."""
    words = dict.fromkeys("; ".join(cell["departures"]) for cell in cells if cell["departures"])
    return {x: ascii_lowercase[i % 26] * (1 + i // 26) for i, x in enumerate(words)}


def _row(
    table: TrainingsTable, cell: Mapping[str, Any], marks: Mapping[str, str]
) -> dict[str, str]:
    relative = bool(table.against) and cell["printed_as"] != table.against
    mark = marks.get("; ".join(cell["departures"]), "")
    cells_of_row = {
        "column": cell["column"],
        "loss": cell["printed_as"],
        "ours is": cell["loss"] or "",
        "printed": _number(cell["printed"], cell["printed_std"], table.digits, relative),
        "ours": cell["state"],
    }
    if cell["state"] != "run":
        return cells_of_row
    delta = (
        ""
        if not relative
        else f" ({_signed(cell['delta'])})"
        if cell["delta"] is not None
        else " (no CE)"
    )
    return {
        **cells_of_row,
        "ours": _number(cell["ours"], cell["ours_std"], DIGITS) + delta,
        "n": f"{cell['n']}, {cell['failed']} failed" if cell["failed"] else str(cell["n"]),
        "rate": ", ".join(f"{x:g}" for x in cell["lr"]),
        "ours - printed": _signed(cell["difference"]),
        "departs": f"({mark})" if mark else "",
    }


def _number(mean: float | None, std: float | None, digits: int, is_difference: bool = False) -> str:
    if mean is None:
        return "–"
    spread = "" if std is None else f" ± {std:.{digits}f}"
    return (signed(mean, digits) if is_difference else f"{mean:.{digits}f}") + spread


def _signed(value: float | None) -> str:
    return "" if value is None else signed(value, DIGITS)


def _undone(
    cells: Sequence[Mapping[str, Any]], missing: Mapping[str, str], again: str
) -> list[str]:
    """What no cell has said: why trainings failed, and the commands for those that were not run."""
    said = {cell["state"] for cell in cells}
    undone = sum(cell["state"] == "not run" for cell in cells)
    # What a cell has said already is not said again.
    text = [f"{name}: {why}" for name, why in missing.items() if why not in said]
    return (
        [*text, f"not run: {undone} of {len(cells)} cells; all of them: {again}"]
        if undone
        else text
    )
