"""A recommendation as lines to print: what was tried, and then the answer on one screen."""

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from metaloss.core.formatting import percent, printable
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import INDENT, record_table
from metaloss.experiments.recommendation.records import LOSS

WIDTH = 100  # of the answer, on wide terminals and in files
SHOWN = 6  # rows of the table on a terminal; the files have all
LEVEL = ("gain", "reached")  # labels of the part that says what is reached, and in which classes
CONTINUED = " \\"  # at the end of a command's line that is not the last
NARROW = 30  # columns that a text needs beside its label


def lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The best of what was tried, and the answer, as they are printed.

    Args:
        summary: of a recommendation, or of the part of one that was stopped.
        width: of the terminal; None: there is none.
    """
    if summary["verdict"] is None:
        return [*_table(summary, width), *summary["sentences"]]
    return [*_table(summary, width), "", *answer_lines(summary, width)]


def report(summary: dict[str, Any]) -> list[str]:
    """All that can be said: every loss and method, the answer, notes for experts, and the code."""
    losses, others = tables(summary)
    rivals = ["", "No losses, on the same folds:", *record_table(others)] if others else []
    return [*record_table(losses), *rivals, *after_tables(summary)]


def after_tables(summary: dict[str, Any]) -> list[str]:
    """What stands below the tables in a file: the answer, notes for experts, and the code."""
    answer = ["", *answer_lines(summary)] if summary.get("answer") else []
    code = ["", "In Python:", *(f"    {x}" for x in summary["code"])] if summary["code"] else []
    return [*answer, "", "Notes:", *summary["sentences"], *code]


def tables(summary: dict[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What losses reached, and what is no loss, a row each with texts by their columns."""
    about = len(summary["folds"]), summary["certainty"], MetricScale.of(summary)
    losses = [_cells(row, *about) for row in summary["rows"] if row["kind"] == LOSS]
    others = [_rival_cells(row, *about) for row in summary["rows"] if row["kind"] != LOSS]
    return losses, others


def answer_lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The answer: labelled parts, the classes behind what is gained, and the command at the end.

    Args:
        summary: has `answer`, `recognised`, `train` and `code`.
        width: of the terminal; None: there is none.
    """
    width = min(width or WIDTH, WIDTH)
    shown = []
    for part in summary["answer"]:
        shown += labelled(part["label"], part["text"], width)
        if part["label"] in LEVEL:
            table = record_table(summary["recognised"], width - INDENT)
            shown += [f"{'':{INDENT}}{line}" for line in table] if summary["recognised"] else []
    if summary.get("train"):
        return [*shown, *_beside("command", command_lines(summary["train"], width - INDENT))]
    return [*shown, *_beside("Python", summary["code"])]


def command_lines(command: str, width: int) -> list[str]:
    """A command of a shell, on as many lines as it needs; the shell reads them as one.

    >>> command_lines("metaloss train --loss 'a b' --lr 0.1", 26)
    ['metaloss train --loss \\\\', "'a b' --lr 0.1"]

    Args:
        command: on one line.
        width: of a line.
    """
    words = [shlex.quote(word) for word in shlex.split(command)]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + len(CONTINUED) + 1 > width:
            lines[-1] += CONTINUED
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def labelled(label: str, text: str, width: int) -> list[str]:
    """A text beside its label, cut at spaces.

    >>> labelled("answer", "Keep it as it is, for all that can be told.", 40)
    ['answer  Keep it as it is, for all that', '        can be told.']

    Args:
        label: a word.
        text: of the part.
        width: of a line.
    """
    texts = textwrap.wrap(
        printable(text),
        max(width - INDENT, NARROW),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return _beside(label, texts)


def _beside(label: str, lines: Sequence[str]) -> list[str]:
    labels = [label, *[""] * (len(lines) - 1)]
    return [f"{name:{INDENT}}{line}" for name, line in zip(labels, lines, strict=True)]


def _table(summary: dict[str, Any], width: int | None) -> list[str]:
    """Cross-entropy, what folds chose, what is recommended, and the best of the others."""
    folds, certainty, scale = len(summary["folds"]), summary["certainty"], MetricScale.of(summary)
    rows = summary["rows"]
    kept = _kept(rows, summary["verdict"], scale)
    cells = [
        {
            "loss or method": row.get("spec") or row["loss"],
            "settings": _settings(row),
            **_reached(row, folds, certainty, scale),
        }
        for row in kept
    ]
    rest = len(rows) - len(kept)
    more = f"; {rest} more are in results.csv" if rest else ""
    heading = (
        "tried   on images held out, beside cross-entropy (ce), the usual loss; the best of many "
        f"looks better than it is{more}"
    )
    return [heading, *record_table(cells, width)]


def _kept(
    rows: Sequence[dict[str, Any]], verdict: dict[str, Any] | None, scale: MetricScale
) -> list[dict[str, Any]]:
    """The rows that are shown: cross-entropy first, the others from the best on."""
    first, *others = rows
    others.sort(key=lambda row: scale.score(row[scale.kind]), reverse=True)
    used = verdict["loss"] if verdict else ""
    matter = [row for row in others if row["chosen"] or row["loss"] == used]
    best = [row for row in others if row not in matter][: max(0, SHOWN - 1 - len(matter))]
    return [first, *(row for row in others if row in matter or row in best)]


def _settings(row: dict[str, Any]) -> str:
    """How a row's loss trains, or what was chosen for what is no loss."""
    if row["kind"] != LOSS:
        return str(row["setting"])
    return f"rate {row['lr']:g}, {row['steps']} steps"


def _cells(row: dict[str, Any], folds: int, certainty: float, scale: MetricScale) -> dict[str, str]:
    """One line of the table.

    Args:
        row: a loss.
        folds: how many.
        certainty: of the intervals.
        scale: how values are shown.
    """
    return {
        "loss": row.get("spec") or row["loss"],
        "lr": f"{row['lr']:g}",
        "steps": str(row["steps"]),
        **_reached(row, folds, certainty, scale),
    }


def _rival_cells(
    row: dict[str, Any], folds: int, certainty: float, scale: MetricScale
) -> dict[str, str]:
    """The line of what is no loss."""
    about = {"no loss": row["loss"], "kind": row["kind"], "chosen on all": row["setting"]}
    return {**about, **_reached(row, folds, certainty, scale)}


def _reached(
    row: dict[str, Any], folds: int, certainty: float, scale: MetricScale
) -> dict[str, str]:
    """What a row's loss reached, beside cross-entropy."""
    gain = row["gain"]
    return {
        scale.title: scale.text(row[scale.kind]),
        "accuracy": percent(row["accuracy"]),
        f"gain over ce [{100 * certainty:g} %]": "" if gain is None else scale.interval(gain),
        "chosen": "" if row["chosen"] is None else f"{row['chosen']}/{folds}",
        "diverged": f"{100 * row['diverged']:.1f} %" if row["diverged"] else "",
    }
