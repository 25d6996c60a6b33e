"""What a comparison found, as plain values: its tables, sentences, learning curves and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from metaloss import storage
from metaloss.core import registry
from metaloss.criterion.leakage import DataOverlap
from metaloss.evaluation.statistics import critical_difference, mean_ranks
from metaloss.experiments.comparison.family_evaluation import Setting
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.comparison.results import (
    LossMeasures,
    LossResult,
    accuracies,
    as_row,
    holm_corrected,
)
from metaloss.experiments.comparison.sentences import sentence
from metaloss.tasks.episodic import Episodes


@dataclass(frozen=True)
class FamilyResults:
    """All that was found on one family."""

    rows: list[LossResult]
    strongest: Setting  # cross-entropy's
    trainings: dict[str, LossMeasures]
    moments: tuple[int, ...]
    curves: dict[str, Float[Tensor, "M T 2"]]


def summarise(
    about: Mapping[str, Any],
    found: Sequence[ComparedLoss],
    opened: Sequence[Episodes],
    exposures: Sequence[Sequence[DataOverlap]],
    played: Sequence[FamilyResults],
) -> dict[str, Any]:
    """Everything but single tasks, as plain values.

    Args:
        about: how the comparison was made, the `baseline` among it.
        found: the losses.
        opened: the families.
        exposures: per family what its data is to every loss.
        played: per family what was found.
    """
    labels = [x.label for x in found]
    final = holm_corrected([x.rows for x in played])
    rows = []
    sentences = []
    for e, family, each, seen in zip(opened, played, final, exposures, strict=True):
        for row, one in zip(each, seen, strict=True):
            rows.append(
                {**as_row(row, e.family.name), "data": one.text, "seen": one.refusal or None}
            )
            if row.vs_baseline:
                text = sentence(row, about["baseline"], e.family.inner.steps, family.strongest)
                sentences.append({"family": e.family.name, "loss": row.loss, "text": text})
    result = {
        **about,
        "families": [_about(e, x.strongest) for e, x in zip(opened, played, strict=True)],
        "losses": [
            {"loss": x.label, "formula": x.criterion.describe(), "about": x.criterion.about}
            for x in found
        ],
        "rows": rows,
        "sentences": sentences,
        "curves": {e.family.name: _bands(x) for e, x in zip(opened, played, strict=True)},
        "ranks": _ranks(labels, final),
    }
    plain: dict[str, Any] = storage.json_safe(result)
    return plain


def _about(e: Episodes, strongest: Setting) -> dict[str, Any]:
    pool = sum(map(len, e.pools["test"]))
    own = registry.table(e.family)
    return {
        **own,
        "data": e.dataset.origin,
        "fingerprint": e.dataset.fingerprint(),
        "test_images": pool,
        "strongest": asdict(strongest),
    }


def _bands(family: FamilyResults) -> dict[str, Any]:
    """Mean learning curves, and the tasks' standard deviation about them."""
    found: dict[str, Any] = {"steps": list(family.moments), "losses": {}}
    for label, curve in family.curves.items():
        x = curve.double().nan_to_num(nan=0.0)
        mean = x.mean(1).T.tolist()
        std = x.std(1).T.tolist()
        found["losses"][label] = {"train": [mean[0], std[0]], "validation": [mean[1], std[1]]}
    return found


def _ranks(labels: Sequence[str], rows: Sequence[Sequence[LossResult]]) -> dict[str, Any] | None:
    """Mean ranks over the families, and how far apart two must lie; None with one family."""
    if len(rows) < 2:
        return None
    ranks = dict(zip(labels, mean_ranks(accuracies(rows)), strict=True))
    return {
        "mean": ranks,
        "critical_difference": critical_difference(len(labels), len(rows)),
        "families": len(rows),
    }
