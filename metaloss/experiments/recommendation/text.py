"""A recommendation as lines to print."""

from typing import Any

from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import record_table
from metaloss.experiments.recommendation.summary import LOSS


def lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The table, what it allows one to say, and the code, as they are printed."""
    about = len(summary["folds"]), summary["certainty"], MetricScale.of(summary)
    losses = [_cells(row, *about) for row in summary["rows"] if row["kind"] == LOSS]
    others = [_rival_cells(row, *about) for row in summary["rows"] if row["kind"] != LOSS]
    return [
        *record_table(losses, width),
        *(["no losses, on the same folds:", *record_table(others, width)] if others else []),
        *summary["sentences"],
        *([f"    {summary['train']}"] if summary.get("train") else []),
        *(f"    {line}" for line in summary["code"]),
    ]


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
        f"Δ to ce [{100 * certainty:g} % CI]": "" if gain is None else scale.interval(gain),
        "chosen": "" if row["chosen"] is None else f"{row['chosen']}/{folds}",
        "diverged": f"{100 * row['diverged']:.1f} %" if row["diverged"] else "",
    }
