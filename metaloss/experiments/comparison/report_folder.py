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
from metaloss.experiments.comparison.rivals import FamilyRivals
from metaloss.inner.observers import Measures
from metaloss.storage.folders import make_folder

MEASURES = ("accuracy", "f1", "nll", "calibration")


def write(
    out: Path,
    name: str,
    summary: dict[str, Any],
    trainings: Sequence[Mapping[str, LossMeasures]],
    rivals: Sequence[FamilyRivals] = (),
) -> Path:
    """The new folder under `out`, with `-2`, `-3` … where the name is taken.

    Args:
        out: the parent folder.
        name: of the new one.
        summary: everything but single tasks.
        trainings: of every family, by the loss's label.
        rivals: of every family, where there are any.

    Raises:
        DiskError: it cannot be made.
    """
    # Drawn first: where a figure fails there is no folder yet.
    pictures = figures.draw(summary)
    files = {
        "summary.json": storage.json_bytes(summary),
        "results.csv": results(summary),
        "per_task.csv": per_task(summary["families"], trainings, rivals),
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
    families: Sequence[Mapping[str, Any]],
    trainings: Sequence[Mapping[str, LossMeasures]],
    rivals: Sequence[FamilyRivals] = (),
) -> bytes:
    """One line per family, loss or rival, and meta-test task.

    The cells of a training that diverged are empty.
    """
    rows: list[dict[str, Any]] = []
    for about, losses in zip(families, trainings, strict=True):
        family = about["name"]
        scale = MetricScale.of(about)
        for loss, measures in losses.items():
            columns = _columns(measures.tuned, scale)
            columns |= _scores_at("the_family_s_rate", measures.at_family_rate, scale)
            if measures.at_best_steps is not None:
                columns |= _scores_at("the_best_steps", measures.at_best_steps, scale)
            rows += _lines({"family": family, "loss": loss, "kind": "loss"}, columns)
    for about, of_family in zip(families, rivals, strict=False):
        for row in of_family.rows:
            marks = {"family": about["name"], "loss": row.rival.name, "kind": row.rival.kind}
            rows += _lines(marks, _columns(row.rival.measures, MetricScale.of(about)))
    return csv_bytes(rows)


def _columns(measures: Measures, scale: MetricScale) -> dict[str, list[float]]:
    """The measures of every task, the family's metric first where it names one."""
    columns = {m: getattr(measures, m).tolist() for m in MEASURES}
    if measures.by_metric is None:
        return columns
    return {scale.kind: [scale.value(x) for x in measures.by_metric.tolist()], **columns}


def _scores_at(setting: str, measures: Measures, scale: MetricScale) -> dict[str, list[float]]:
    """The metric and the accuracy of every task with another setting, in columns that name it."""
    names = dict.fromkeys((scale.kind, "accuracy"))
    columns = _columns(measures, scale)
    return {f"{name}_at_{setting}": columns[name] for name in names}


def _lines(about: dict[str, Any], columns: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A line for every task; what is no number is left out."""
    return [
        {
            **about,
            "task": task,
            **{k: v for k, v in zip(columns, values, strict=True) if not math.isnan(v)},
        }
        for task, values in enumerate(zip(*columns.values(), strict=True))
    ]
