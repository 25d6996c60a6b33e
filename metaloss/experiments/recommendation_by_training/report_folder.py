"""A recommendation by real trainings as a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.tables import csv_bytes
from metaloss.experiments.recommendation.page import FILE
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFolds
from metaloss.experiments.recommendation_by_training.text import report
from metaloss.storage.folders import make_folder


def write(
    out: Path,
    name: str,
    summary: dict[str, Any],
    judged: JudgedFolds,
    page: str,
) -> Path:
    """The new folder under `out`, with `-2`, `-3` … where the name is taken.

    Args:
        out: the parent folder.
        name: of the new one.
        summary: everything but single images.
        judged: the single images.
        page: the report as HTML.

    Raises:
        DiskError: it cannot be made.
    """
    files = {
        FILE: page.encode(),
        "report.txt": "".join(f"{line}\n" for line in report(summary)).encode(),
        "summary.json": storage.json_bytes(summary),
        "results.csv": csv_bytes([_plain(row) for row in summary["rows"]]),
        "per_image.csv": csv_bytes(_per_image(summary, judged)),
    }
    return make_folder(out, name, files, "recommendation")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    gain = row["gain"] or {}
    return {**{k: v for k, v in row.items() if k != "gain"}, **{f"gain_{k}": gain[k] for k in gain}}


def _per_image(summary: dict[str, Any], judged: JudgedFolds) -> list[dict[str, Any]]:
    """Every image with the share of the seeds that answer it rightly."""
    classes = [row["class"] for row in summary["classes"]]
    right = {
        "ce": (judged.ce.argmax(2) == judged.label).double().mean(0),
        "chosen": (judged.ours.argmax(2) == judged.label).double().mean(0),
    }
    folds = [number for number, x in enumerate(judged.folds) for _ in range(len(x.rows))]
    rows = [row for x in judged.folds for row in x.rows.tolist()]
    return [
        {
            "image": image,
            "class": classes[int(judged.label[i])],
            "fold": folds[i],
            **{f"right_{key}": float(values[i]) for key, values in right.items()},
        }
        for i, image in enumerate(rows)
    ]
