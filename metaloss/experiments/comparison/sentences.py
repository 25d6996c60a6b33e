"""What the numbers of a family allow one to say of a loss, as one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.kinds import worst_kinds
from metaloss.experiments.comparison.results import LossResult


def sentence(
    result: LossResult,
    baseline: str,
    steps: int,
    strongest: Setting,
    scale: MetricScale = ACCURACY,
) -> str:
    """What the numbers of a family allow one to say of a loss.

    Args:
        result: of the loss.
        baseline: the name of the loss that it is compared with.
        steps: the family's own number.
        strongest: cross-entropy's best rate and number of steps.
        scale: how scores are shown.
    """
    difference = result.vs_baseline
    assert difference is not None
    loss = result.name
    other = name_in_sentence(baseline)
    if difference.direction > 0:
        longer = _beside_longer_training(result, steps, strongest, scale)
        return f"{loss} is better than {other} at {steps} steps on these tasks; {longer}."
    rescaling = _rescaling(result, other)
    if difference.direction < 0:
        return f"{loss} is worse than {other} at {steps} steps on these tasks{rescaling}."
    if difference.verdict(scale) != "no difference":
        return f"{loss}: too few images to tell it from {other} at {steps} steps{rescaling}."
    return f"{loss}: these tasks show no difference from {other} at {steps} steps{rescaling}."


def mixture_sentence(
    result: LossResult,
    baseline: str,
    by_kind: Sequence[Mapping[str, Any]],
    scale: MetricScale = ACCURACY,
) -> str:
    """What the numbers of a mixture of kinds of tasks allow one to say of a loss.

    Args:
        result: of the loss.
        baseline: the name of the loss that it is compared with.
        by_kind: what losses gain at each kind.
        scale: how scores are shown.
    """
    difference = result.vs_baseline
    assert difference is not None
    other = name_in_sentence(baseline)
    behind, worst = worst_kinds(by_kind, result.loss)
    words = {
        "better": f"is better than {other} over these kinds of tasks",
        "worse": f"is worse than {other} over these kinds of tasks",
        "no difference": f"shows no difference from {other} over these kinds of tasks",
    }
    said = words.get(difference.verdict(scale), f"cannot be told from {other} on so few tasks")
    return (
        f"{result.name} {said}; it is behind at {behind} of {len(by_kind)} kinds, and "
        f"{scale.change(worst)} at the worst tenth of them."
    )


def _beside_longer_training(
    result: LossResult, steps: int, strongest: Setting, scale: MetricScale
) -> str:
    """What is left of a gain where cross-entropy may train for longer.

    Args:
        result: of the loss.
        steps: the family's own number.
        strongest: cross-entropy's best rate and number of steps.
        scale: how scores are shown.
    """
    gain = result.vs_ce_best_steps
    gain_of_both = result.both_best_steps
    assert gain is not None
    ce = f"with {strongest.steps} steps cross-entropy"
    if strongest.steps == steps:
        ce = "at its best number of steps, the same one, cross-entropy"
    # From what speaks most against the loss to what speaks most for it.
    if gain.high < 0:
        return f"{ce} is better still" + _with_own_best_steps(result, scale)
    if gain.low <= 0:
        return f"{ce} reaches the same" + _with_own_best_steps(result, scale)
    if gain_of_both is not None and gain_of_both.low <= 0:
        return (
            f"{ce} does not reach it, but the two do not differ where each has its best number "
            "of steps"
        )
    return f"{ce}, its best number, does not reach it: it generalises better there"


def _with_own_best_steps(result: LossResult, scale: MetricScale) -> str:
    """How a loss that may train for longer, too, stands to cross-entropy; empty where not known."""
    gain = result.both_best_steps
    if gain is None or result.best_setting is None:
        return ""
    longer = f"{result.name_with_best_steps} with {result.best_setting.steps} steps"
    if gain.low > 0:
        amount = f"{scale.number(gain.mean):.{scale.digits}f}{scale.unit}"
        return f"; {longer} is ahead of that by {amount}"
    return f"; {longer} is {'behind' if gain.high < 0 else 'level with'} that"


def _rescaling(result: LossResult, other: str) -> str:
    """That a loss is ahead at the family's own rate alone, as a rescaled loss may be; or empty."""
    assert result.vs_baseline is not None
    gain = result.vs_baseline.gain_at_family_rate
    # Ahead at that rate only where the whole interval lies above 0.
    if gain is None or gain.low <= 0:
        return ""
    return (
        f"; it is ahead of {other} at the family's own learning rate only, as a mere rescaling "
        "may be"
    )


def name_in_sentence(label: str) -> str:
    """A loss's name within a sentence."""
    return "cross-entropy" if label == "ce" else label
