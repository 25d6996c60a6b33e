"""Rivals that are no losses, beside the losses of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metaloss.core.metric_scale import MetricScale
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.rivals import adjust_logits, fit_methods
from metaloss.evaluation.statistics import paired, rank_test
from metaloss.experiments.comparison.family_results import FamilyResults
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.results import (
    BaselineDifference,
    Performance,
    RivalResult,
    difference_values,
    performance,
    values,
)
from metaloss.experiments.comparison.sentences import name_in_sentence
from metaloss.experiments.comparison.settings import Comparison
from metaloss.inner.observers import Measures

# The measures of trained networks that a row of a rival has none of.
OF_LOSSES_ALONE = ("plain", "best", "at_best", "late", "latest", "seen")


@dataclass(frozen=True)
class FamilyRivals:
    """The rivals of one family.

    Attributes:
        rows: one per rival.
        sentence: which of them does as well as the best loss; "" where none does.
    """

    rows: list[RivalResult]
    sentence: str


def evaluate_rivals(
    evaluation: EpisodeEvaluation,
    comparison: Comparison,
    compared: Sequence[ComparedLoss],
    family: FamilyResults,
    baseline: str,
) -> FamilyRivals:
    """All rivals on the tasks that the losses of a comparison were tuned and tested on.

    Args:
        evaluation: of the family.
        comparison: the settings.
        compared: the losses, cross-entropy among them.
        family: what they reached.
        baseline: the label of the loss that all are set beside.
    """
    budget = comparison.tuning_tasks, comparison.test_tasks
    ce = next(x for x in compared if x.label == CE)
    # At its best number of steps: as strong as it can be made.
    setting = family.strongest
    network = f"{CE}, {setting.steps} steps"
    rivals = [
        *fit_methods(evaluation, *budget),
        *adjust_logits(evaluation, network, ce.criterion.losses(), setting, *budget),
    ]
    key = evaluation.key.at("bootstrap")
    resamples = evaluation.resamples(comparison.test_tasks, key)
    base = family.trainings[baseline].tuned

    def difference(ours: Measures, theirs: Measures) -> BaselineDifference:
        gain = paired(ours.score, theirs.score, key.at("tasks"))
        low, high = resamples.gain_interval(ours.answers, theirs.answers)
        test = rank_test(ours.score, theirs.score)
        return BaselineDifference(gain, low, high, test, test.p, None)

    rows = [RivalResult(x, performance(x.measures), difference(x.measures, base)) for x in rivals]
    label, best = _best_loss(family)
    strongest = max(rows, key=lambda row: row.reached.score)
    beside = difference(strongest.rival.measures, best)
    return FamilyRivals(
        rows, _sentence(strongest, label, performance(best), beside, evaluation.family.scale)
    )


def _best_loss(family: FamilyResults) -> tuple[str, Measures]:
    """The loss with the highest score, and its measures, at its best number of steps, too."""
    candidates = [
        (setting.spec or label, measures)
        for label, trained in family.trainings.items()
        for setting, measures in (
            (trained.setting, trained.tuned),
            (trained.best_setting, trained.at_best_steps),
        )
        if setting is not None and measures is not None
    ]
    return max(candidates, key=lambda x: float(x[1].score.nan_to_num().mean()))


def _sentence(
    strongest: RivalResult,
    loss: str,
    best: Performance,
    beside: BaselineDifference,
    scale: MetricScale,
) -> str:
    """What the strongest rival is beside the best loss; "" where it is worse.

    Args:
        strongest: of the rivals.
        loss: the best loss's label.
        best: what the best loss reached.
        beside: the rival's difference from it.
        scale: how scores are shown.
    """
    ours, theirs = (scale.text(scale.value(x.score)) for x in (strongest.reached, best))
    reached = f"{ours} beside {theirs}"
    name = f"{strongest.rival.name}, which is no loss,"
    other = f"the best loss here, {name_in_sentence(loss)}"
    if beside.direction > 0:
        return f"{name} is better than {other}: {reached}."
    if beside.direction < 0:
        return ""
    if beside.verdict(scale) == "no difference":
        return f"{name} does as well as {other}: {reached}."
    if beside.gain.mean >= 0:
        return f"{name} reaches at least what {other}, does: {reached}; too few images to tell."
    return ""


def as_row(result: RivalResult, family: str, scale: MetricScale) -> dict[str, Any]:
    """A rival's result as plain values, under the keys that a loss's row has.

    Args:
        result: the rival's.
        family: the name of the family.
        scale: how its scores are shown.
    """
    rival = result.rival
    return {
        "family": family,
        "loss": rival.name,
        "kind": rival.kind,
        "setting": {rival.constant: rival.value} if rival.constant else None,
        "at": values(result.reached, scale),
        "against": difference_values(result.vs_baseline, scale),
        "data": "",
        **dict.fromkeys(OF_LOSSES_ALONE),
    }
