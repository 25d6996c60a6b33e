"""A comparison's folder: the report, its tables and its figures; nothing that exists is touched."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import csv_bytes, flatten
from metaloss.experiments.comparison import figures, webpage
from metaloss.experiments.comparison.results import LossMeasures
from metaloss.storage.folders import make_folder

MEASURES = ("accuracy", "f1", "nll", "calibration")


def write(
    out: Path, name: str, summary: dict[str, Any], trainings: Sequence[Mapping[str, LossMeasures]]
) -> Path:
    """The new folder under `out`, with `-2`, `-3` … where the name is taken.

    Raises:
        DiskError: it cannot be made.
    """
    # Drawn first: where a figure fails there is no folder yet.
    pictures = figures.draw(summary)
    files = {
        "summary.json": storage.json_bytes(summary),
        "results.csv": results(summary),
        "per_task.csv": per_task(summary["families"], trainings),
        "report.html": webpage.page(summary, pictures).encode(),
        **{f"{p.name}.png": p.png for p in pictures},
        **{f"{p.name}.pdf": p.pdf for p in pictures},
    }
    return make_folder(out, name, files, "report")


def results(summary: dict[str, Any]) -> bytes:
    """One line per family and loss, every number of its result in a column."""
    rows = [flatten({k: v for k, v in row.items() if v is not None}) for row in summary["rows"]]
    return csv_bytes(rows)


def per_task(
    families: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, LossMeasures]]
) -> bytes:
    """One line per family, loss and meta-test task.

    The cells of a training that diverged are empty.
    """
    rows = []
    for about, losses in zip(families, trainings, strict=True):
        family = about["name"]
        scale = MetricScale.of(about)
        for loss, measures in losses.items():
            columns = {m: getattr(measures.tuned, m).tolist() for m in MEASURES}
            if measures.tuned.by_metric is not None:
                scores = measures.tuned.by_metric.tolist()
                columns = {scale.kind: [scale.value(x) for x in scores], **columns}
            columns["accuracy_at_the_family_s_rate"] = measures.at_family_rate.accuracy.tolist()
            if measures.at_best_steps is not None:
                columns["accuracy_at_the_best_steps"] = measures.at_best_steps.accuracy.tolist()
            for task, values in enumerate(zip(*columns.values(), strict=True)):
                numbers = {k: v for k, v in zip(columns, values, strict=True) if not math.isnan(v)}
                rows.append({"family": family, "loss": loss, "task": task, **numbers})
    return csv_bytes(rows)
