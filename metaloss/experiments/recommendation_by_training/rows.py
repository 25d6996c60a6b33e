"""The table of a recommendation by real trainings, as plain values."""

from dataclasses import asdict
from typing import Any

from jaxtyping import Float
from torch import Tensor

from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.records import CHOICE, CHOSEN, LOSS
from metaloss.experiments.recommendation.verdict import ScoreGain
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFolds


def rows(judged: JudgedFolds, lr: float | None, steps: int) -> list[dict[str, Any]]:
    """Cross-entropy, what the folds chose, and what was judged beside, on images not seen before.

    Args:
        judged: the folds.
        lr: cross-entropy's rate on all images; None where none is chosen yet.
        steps: of a training.
    """
    scale = judged.scale
    own = judged.choice_counts.get(CE, 0)
    beside = [judged.fixed_to(name) for name in judged.beside]

    def row(
        name: str,
        kind: str,
        rate: float | None,
        logits: Float[Tensor, "S N C"],
        gain: ScoreGain | None,
        chosen: int | None,
    ) -> dict[str, Any]:
        value, accuracy = judged.values(logits)
        return {
            "loss": name,
            "kind": kind,
            "lr": rate,
            "steps": steps,
            "accuracy": accuracy,
            scale.kind: value,
            "gain": gain and scale.difference(asdict(gain)),
            "chosen": chosen,
        }

    return [
        row(CE, LOSS, lr, judged.ce, None, own),
        row(CHOSEN, CHOICE, None, judged.ours, judged.whole(), len(judged.folds) - own),
        # At cross-entropy's rate, and never chosen.
        *(row(x.fixed, LOSS, lr, x.ours, x.whole(), None) for x in beside),
    ]
