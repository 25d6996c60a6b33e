"""A recommendation by real trainings as lines to print."""

import shlex
from typing import Any

from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import record_table
from metaloss.experiments.recommendation.text import after_tables, answer_lines


def lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The table, the answer and the command, as they are printed."""
    return [*record_table(table(summary), width), "", *answer_lines(_printed(summary), width)]


def report(summary: dict[str, Any]) -> list[str]:
    """All that can be said: the table, the answer, notes for experts, and the code."""
    return [*record_table(table(summary)), *after_tables(_printed(summary))]


def _printed(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with its command as one line."""
    return {**summary, "train": shlex.join(summary["train"])}


def table(summary: dict[str, Any]) -> list[dict[str, str]]:
    """What was reached on images that no choice has seen, a row each with texts by columns."""
    scale = MetricScale.of(summary)
    folds = len(summary["folds"])
    certainty = 100 * summary["certainty"]
    return [
        {
            "loss": row["loss"],
            scale.title: scale.text(row[scale.kind]),
            "accuracy": percent(row["accuracy"]),
            f"gain over ce [{certainty:g} %]": scale.interval(row["gain"]) if row["gain"] else "",
            "chosen": "" if row["chosen"] is None else f"{row['chosen']}/{folds}",
        }
        for row in summary["rows"]
    ]
