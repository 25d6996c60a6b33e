"""The table of a recommendation as plain values: a row for every loss, and for what is none."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.fold_results import FoldResults, accuracy
from metaloss.experiments.recommendation.records import LOSS
from metaloss.experiments.recommendation.rivals import RivalChoice, setting_in_words
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.inner.observers import Measures


def rows(
    compared: Sequence[ComparedLoss], final: LossChoice, folds: FoldResults
) -> list[dict[str, Any]]:
    """The table: losses, and then what is none."""
    return [
        *(_row(x.label, final, folds) for x in compared),
        *_late(final, folds),
        *(_rival(final.rivals[x], folds) for x in folds.rivals if x in final.rivals),
    ]


def _row(name: str, final: LossChoice, folds: FoldResults) -> dict[str, Any]:
    """A loss: its setting on all images, and what it reached with each fold's setting."""
    setting = final.settings[name]
    measures = folds.of_loss(name)
    diverged = torch.cat([x.diverged for x in measures]).double().mean()
    return {
        "loss": name,
        "kind": LOSS,
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
        "kind": LOSS,
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


def _rival(rival: RivalChoice, folds: FoldResults) -> dict[str, Any]:
    """What is no loss: what was chosen for it on all images, and what it reached."""
    measures = folds.of_loss(rival.name)
    return {
        "loss": rival.name,
        "kind": rival.kind,
        "setting": setting_in_words(rival),
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
        "gain": folds.scale.difference(asdict(folds.gain(rival.name))),
        "chosen": folds.choice_counts[rival.name],
        "diverged": float(torch.cat([x.diverged for x in measures]).double().mean()),
    }


def _beside(measures: Sequence[Measures], scale: MetricScale) -> dict[str, float]:
    """The accuracy, where losses are compared by another metric."""
    return {} if scale.is_accuracy else {"accuracy": accuracy(measures)}
