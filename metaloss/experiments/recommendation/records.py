"""What the summaries of a recommendation have in common, whatever trainings have judged it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.comparison.summary import loss_records
from metaloss.experiments.recommendation.verdict import Verdict

LOSS = "loss"  # the kind of a row that is one
CHOSEN = "chosen by the folds"  # what each fold chose, as one row or record
CHOICE = "choice"  # the kind of such a row


def head(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    data: Mapping[str, Any],
    scale: MetricScale,
    certainty: float,
) -> dict[str, Any]:
    """What was asked, of which images and losses.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        data: the images and how they are cut.
        scale: how scores are shown.
        certainty: of the intervals.
    """
    return {
        **about,
        **scale.entry(),
        "data": data,
        "losses": loss_records(compared),
        "certainty": certainty,
    }


def part(judged: int, folds: int, sentences: Sequence[str]) -> dict[str, Any]:
    """What stands in the place of an answer where the user stopped before it.

    Args:
        judged: folds that were judged before.
        folds: all of them.
        sentences: what can be said.
    """
    return {
        "verdict": None,
        "partial": {"folds": judged, "of": folds},
        "sentences": list(sentences),
        "code": [],
    }


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, its gains in the metric's own sign."""
    scale = verdict.scale
    table: dict[str, Any] = {f.name: getattr(verdict, f.name) for f in fields(verdict)}
    del table["scale"], table["rival"]
    return {
        **table,
        "kind": verdict.rival.kind if verdict.rival else LOSS,
        "gain": scale.difference(asdict(verdict.gain)),
        "late": scale.difference(asdict(verdict.late)) if verdict.late else None,
        "setting": verdict.setting.plain(scale),
        "evidence": verdict.evidence,
    }
