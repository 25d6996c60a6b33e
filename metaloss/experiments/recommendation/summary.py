"""A recommendation as plain values, as lines to print, and as a folder."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from metaloss import storage
from metaloss.core import registry
from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import csv_bytes, record_table
from metaloss.data.shapes import images_of
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.report_folder import results
from metaloss.experiments.comparison.summary import loss_records
from metaloss.experiments.recommendation.folds import FoldedImages
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import (
    FoldResults,
    Verdict,
    accuracy,
    sentences,
    small,
)
from metaloss.inner.loop import Inner
from metaloss.inner.observers import Measures
from metaloss.storage.folders import make_folder
from metaloss.tasks.episodic_family import TaskFamily

OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def summarise(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    specs: Mapping[str, Any],
    folded: FoldedImages,
    final: LossChoice,
    folds: FoldResults,
    verdict: Verdict,
) -> dict[str, Any]:
    """Everything but single tasks.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        specs: how each of them was asked for, by its label.
        folded: the images.
        final: the choice on all images.
        folds: the choices and what came of them.
        verdict: what follows.
    """
    family = folded.family
    images = _images(folded)
    spec = verdict.setting.spec or specs.get(verdict.loss, verdict.loss)
    summary: dict[str, Any] = storage.json_safe(
        {
            **about,
            **folds.scale.entry(),
            "family": registry.table(family),
            "data": images,
            "losses": loss_records(compared),
            "rows": [_row(x.label, final, folds) for x in compared] + _late(final, folds),
            "verdict": _verdict(verdict),
            "folds": [_fold(x, folds.scale) for x in folds.choices],
            "sentences": [
                *sentences(verdict, final, images["images"]),
                _small(family, folds),
                *_share(folded),
            ],
            "code": _code(spec, verdict, final, family.inner, compared),
        }
    )
    return summary


def _images(folded: FoldedImages) -> dict[str, Any]:
    """The images and how they are cut."""
    return {
        "images": sum(map(len, folded.rows)),
        "per_class": dict(zip(folded.dataset.classes, map(len, folded.rows), strict=True)),
        "copies_left_out": folded.copies,
        "folds": folded.folds,
        "held_out_val": folded.val,
        "origin": folded.dataset.origin,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, its gains in the metric's own sign."""
    scale = verdict.scale
    table = asdict(verdict)
    del table["scale"]
    return {
        **table,
        "gain": scale.difference(table["gain"]),
        "late": table["late"] and scale.difference(table["late"]),
        "setting": verdict.setting.plain(scale),
        "evidence": verdict.evidence,
    }


def _fold(choice: LossChoice, scale: MetricScale) -> dict[str, Any]:
    """A fold's choice, with every loss's setting."""
    return {
        "chosen": choice.winner,
        "settings": {loss: setting.plain(scale) for loss, setting in choice.settings.items()},
        "late": choice.late.plain(scale) if choice.late else None,
    }


def _row(name: str, final: LossChoice, folds: FoldResults) -> dict[str, Any]:
    """A loss: its setting on all images, and what it reached with each fold's setting."""
    setting = final.settings[name]
    measures = folds.of_loss(name)
    diverged = torch.cat([x.diverged for x in measures]).double().mean()
    return {
        "loss": name,
        "lr": setting.lr,
        "steps": setting.steps,
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
        "gain": None if name == CE else folds.scale.difference(asdict(folds.gain(name))),
        "chosen": folds.choice_counts[name],
        "diverged": float(diverged),
        "rates": [x.settings[name].lr for x in folds.choices],
        **({"spec": setting.spec} if setting.spec else {}),
    }


def _late(final: LossChoice, folds: FoldResults) -> list[dict[str, Any]]:
    """Cross-entropy with its best number of steps."""
    measures = folds.of_late()
    gain = folds.late_over_own()
    setting = final.late
    if setting is None or gain is None:
        return []
    diverged = float(torch.cat([x.diverged for x in measures]).double().mean())
    row = {
        "loss": f"{CE}, best steps",
        "lr": setting.lr,
        "steps": setting.steps,
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
    }
    rates = [x.late.lr for x in folds.choices if x.late]
    return [
        {
            **row,
            "gain": folds.scale.difference(asdict(gain)),
            "chosen": None,
            "diverged": diverged,
            "rates": rates,
        }
    ]


def _beside(measures: Sequence[Measures], scale: MetricScale) -> dict[str, float]:
    """The accuracy, where losses are compared by another metric."""
    return {} if scale.is_accuracy else {"accuracy": accuracy(measures)}


def _small(family: TaskFamily, folds: FoldResults) -> str:
    inner = family.inner
    return small(
        family.ways,
        images_of(family.shots),
        inner.steps,
        family.classifier["kind"],
        accuracy(folds.of_loss(CE)),
    )


def _share(folded: FoldedImages) -> list[str]:
    """How much of what the user has a task trains on."""
    shots = folded.family.shots
    scarcest = folded.scarcest
    if not isinstance(shots, int) or 2 * shots >= scarcest:
        return []
    # As many as fit outside the largest fold, with one image left to validate on.
    most = scarcest - -(-scarcest // folded.folds) - 1
    option = f"--set shots={min(most, 2 * shots)}"
    return [
        f"A task trained on {images_of(shots)} class, of {scarcest} or more that are here; "
        f"{option} is nearer to all."
    ]


def _code(
    spec: Any, verdict: Verdict, final: LossChoice, inner: Inner, compared: Sequence[ComparedLoss]
) -> list[str]:
    """Python that uses the loss as its tasks did, and what to use for a longer training."""
    if not isinstance(spec, str | os.PathLike):
        spec = next(x.criterion.describe() for x in compared if x.label == verdict.loss)
    loss = f"loss = metaloss.load({json.dumps(os.fspath(spec))})"
    lines = [loss, f"optimiser = {_optimiser(inner, verdict.setting)}"]
    if verdict.faster and final.late is not None:
        lines += [
            f"# with {final.late.steps} steps: metaloss.load({json.dumps(CE)}), "
            f"lr={final.late.lr:g}"
        ]
    return lines


def _optimiser(inner: Inner, setting: Setting) -> str:
    options: dict[str, Any] = {"weight_decay": inner.weight_decay}
    if inner.optimiser == "sgd":
        options |= {"momentum": inner.momentum, "nesterov": inner.nesterov}
    else:
        options |= {"betas": inner.betas, "eps": inner.eps}
    # torch's AdamW decays by 0.01 where nothing is said; what is left out of the others is 0 there.
    said = {
        key: value
        for key, value in options.items()
        if value or (key == "weight_decay" and inner.optimiser == "adamw")
    }
    arguments = "".join(f", {key}={value!r}" for key, value in said.items())
    name = f"torch.optim.{OPTIMISERS[inner.optimiser]}"
    return f"{name}(model.parameters(), lr={setting.lr:g}{arguments})"


def write(out: Path, name: str, summary: dict[str, Any], folds: FoldResults) -> Path:
    """The new folder under `out`, with `-2`, `-3` … where the name is taken.

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


def lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The table, what it allows one to say, and the code, as they are printed."""
    cells = [
        _cells(
            row,
            summary["data"]["folds"],
            summary["verdict"]["certainty"],
            MetricScale.of(summary),
        )
        for row in summary["rows"]
    ]
    return [
        *record_table(cells, width),
        *summary["sentences"],
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
    gain = row["gain"]
    return {
        "loss": row.get("spec") or row["loss"],
        "lr": f"{row['lr']:g}",
        "steps": str(row["steps"]),
        scale.title: scale.text(row[scale.kind]),
        "accuracy": percent(row["accuracy"]),
        f"Δ to ce [{100 * certainty:g} % CI]": "" if gain is None else scale.interval(gain),
        "chosen": "" if row["chosen"] is None else f"{row['chosen']}/{folds}",
        "diverged": f"{100 * row['diverged']:.1f} %" if row["diverged"] else "",
    }
