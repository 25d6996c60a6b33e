"""A recommendation as a folder."""

import math
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import csv_bytes
from metaloss.experiments.comparison.report_folder import results
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.page import FILE
from metaloss.experiments.recommendation.text import report
from metaloss.inner.observers import Measures
from metaloss.storage.folders import make_folder


def write(
    out: Path,
    name: str,
    summary: dict[str, Any],
    folds: FoldResults,
    page: str,
) -> Path:
    """The new folder under `out`, with `-2`, `-3` … where the name is taken.

    Args:
        out: the parent folder.
        name: of the new one.
        summary: everything but single tasks.
        folds: the single tasks.
        page: the report as HTML.

    Raises:
        DiskError: it cannot be made.
    """
    tasks = [
        {"fold": number, "loss": loss, "task": task, **_task_values(measures, task, folds.scale)}
        for number, fold in enumerate(folds.judged)
        for loss, measures in fold.measures.items()
        for task in range(len(measures.accuracy))
    ]
    rows = [{key: value for key, value in row.items() if key != "rates"} for row in summary["rows"]]
    files = {
        FILE: page.encode(),
        "report.txt": "".join(f"{line}\n" for line in report(summary)).encode(),
        "summary.json": storage.json_bytes(summary),
        "results.csv": results({"rows": rows}),
        "per_task.csv": csv_bytes(tasks),
    }
    return make_folder(out, name, files, "recommendation")


def _task_values(measures: Measures, task: int, scale: MetricScale) -> dict[str, float | None]:
    """A task's value by the family's metric and its accuracy; None of a training that diverged."""
    values = {
        scale.kind: scale.value(float(measures.score[task])),
        "accuracy": float(measures.accuracy[task]),
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}
