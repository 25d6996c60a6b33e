"""What a recommendation comes to: advice, or the part of it that is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from metaloss.criterion.base import Criterion
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict


@dataclass(frozen=True)
class Partial:
    """What the folds say that were judged before the user stopped.

    Attributes:
        summary: all of it.
        folder: where it was written.
    """

    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        loss: to train with; cross-entropy where there is no evidence for another, or where what is
            recommended is no loss.
        name: of what is recommended, with its own parameters where those were chosen.
        lr: its learning rate.
        steps: its number of steps.
        evidence: whether another loss than cross-entropy is recommended.
        gain: of choosing so, over cross-entropy, on new images.
        table: one row per loss.
        answer: what to use and why, in plain words, a part each with its `label` and `text`.
        sentences: what the numbers allow one to say, for who knows the field.
        code: lines of Python that use the loss.
        summary: all of it.
        folder: where it was written.
    """

    loss: Criterion
    name: str
    lr: float
    steps: int
    evidence: bool
    gain: ScoreGain
    table: list[dict[str, Any]]
    answer: list[dict[str, str]]
    sentences: list[str]
    code: list[str]
    summary: dict[str, Any]
    folder: Path

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        compared: Sequence[ComparedLoss],
        summary: dict[str, Any],
        folder: Path,
    ) -> Self:
        """The advice that follows from a verdict.

        Args:
            verdict: the loss, its setting and the evidence.
            compared: the losses.
            summary: all of it as plain values.
            folder: where it was written.
        """
        # What is no loss has cross-entropy before it, or none at all.
        label = CE if verdict.rival else verdict.loss
        loss = next(x for x in compared if x.label == label)
        return cls(
            loss=loss.with_parameters(verdict.setting.spec),
            name=verdict.name,
            lr=verdict.setting.lr,
            steps=verdict.setting.steps,
            evidence=verdict.evidence,
            gain=verdict.gain,
            table=summary["rows"],
            answer=summary["answer"],
            sentences=summary["sentences"],
            code=summary["code"],
            summary=summary,
            folder=folder,
        )
