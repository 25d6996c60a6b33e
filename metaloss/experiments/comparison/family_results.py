"""All losses of a comparison tuned and tested on one family."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from metaloss.evaluation.episode_evaluation import EpisodeEvaluation, curve_moments
from metaloss.evaluation.mixture_evaluation import MixtureEvaluation
from metaloss.evaluation.tuning import Setting, steps_of_tuning, typical_steps
from metaloss.evaluation.variants import TunedVariant, tune_variants, tunes_steps
from metaloss.experiments.comparison.kinds import gains_by_kind
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.results import (
    LossMeasures,
    LossResult,
    compared_with_baseline,
)
from metaloss.experiments.comparison.settings import Comparison

# Of one kind of episodes, or of a mixture of many.
Evaluation = EpisodeEvaluation | MixtureEvaluation


@dataclass(frozen=True)
class FamilyResults:
    """The results of one family.

    Attributes:
        rows: one per loss.
        strongest: cross-entropy's best rate and number of steps.
        trainings: all of every loss's trainings on the test tasks, by its label.
        moments: the steps at which learning curves are read.
        curves: training and validation scores at these steps, by the loss's label.
        by_kind: of a mixture, what losses gain at each kind.
    """

    rows: list[LossResult]
    strongest: Setting
    trainings: dict[str, LossMeasures]
    moments: tuple[int, ...]
    curves: dict[str, Float[Tensor, "M T 2"]]
    by_kind: list[dict[str, Any]]


def evaluate_family(
    evaluation: Evaluation,
    comparison: Comparison,
    compared: Sequence[ComparedLoss],
    baseline: str,
) -> FamilyResults:
    """Tune and test all losses on one family, and record their learning curves."""
    labels = [x.label for x in compared]
    tuned, tuned_steps = _tune(evaluation, comparison, compared)
    losses = [x.losses for x in tuned]
    rates = [x.setting for x in tuned]
    best_settings = [x.setting if x else None for x in tuned_steps]
    tasks = comparison.test_tasks
    # At the family's rate, too: a loss that is ahead only there may be a mere rescaling.
    tested = evaluation.test_tuned(losses, rates, tasks)
    with_best_steps = [(x or at_rate).losses for x, at_rate in zip(tuned_steps, tuned, strict=True)]
    tested_at_best_steps = evaluation.test_each(with_best_steps, best_settings, tasks)
    measured = [
        LossMeasures(label, rate, at_best_rate, at_family_rate, best_setting, at_best_steps)
        for label, rate, (at_best_rate, at_family_rate), best_setting, at_best_steps in zip(
            labels, rates, tested, best_settings, tested_at_best_steps, strict=True
        )
    ]
    # One set of resamples for all losses, so that their intervals compare.
    key = evaluation.key.at("bootstrap")
    resamples = evaluation.resamples(tasks, key)
    moments, curves = evaluation.curves(losses, rates, min(comparison.curve_tasks, tasks))
    strongest = best_settings[labels.index(CE)]
    assert strongest is not None
    return FamilyResults(
        compared_with_baseline(measured, baseline, CE, resamples, key),
        strongest,
        {x.loss: x for x in measured},
        moments,
        dict(zip(labels, curves, strict=True)),
        gains_by_kind(evaluation, measured, baseline, tasks)
        if isinstance(evaluation, MixtureEvaluation)
        else [],
    )


def _tune(
    evaluation: Evaluation, comparison: Comparison, compared: Sequence[ComparedLoss]
) -> tuple[list[TunedVariant], list[TunedVariant | None]]:
    """Each loss at its best rate, and at its best rate and number of steps where those are wanted.

    On meta-validation tasks: test tasks that choose a rate would flatter it. What is chosen of a
    loss's own parameters may differ between the two.

    Args:
        evaluation: of the family.
        comparison: the settings.
        compared: the losses.
    """
    rates = comparison.rates
    tasks = comparison.tuning_tasks
    variants = [x.variants() for x in compared]
    tuned = tune_variants(partial(evaluation.tune, rates=rates, tasks=tasks), variants)
    # The baseline may have more steps in any case: a loss that is merely faster must not look
    # better than that.
    longer = [i for i, x in enumerate(compared) if tunes_steps(comparison.tune) or x.label == CE]
    tuned_steps = tune_variants(
        partial(evaluation.tune_steps, rates=rates, tasks=tasks), [variants[i] for i in longer]
    )
    best_steps = dict(zip(longer, tuned_steps, strict=True))
    return tuned, [best_steps.get(i) for i in range(len(compared))]


def training_steps(
    comparison: Comparison, compared: Sequence[ComparedLoss], evaluation: Evaluation
) -> int:
    """The approximate number of training steps on a family."""
    steps = evaluation.own_steps
    tasks = comparison.test_tasks
    rates = len(evaluation.family.rates(comparison.rates))
    grid = rates * comparison.tuning_tasks
    longer = [x for x in compared if tunes_steps(comparison.tune) or x.label == CE]
    if isinstance(evaluation, MixtureEvaluation):
        of_tuning = {False: steps, True: steps}  # by whether a loss reads the clock
        of_curves = {False: 0, True: 0}
        of_longer = steps
    else:
        inner = evaluation.inner
        of_tuning = {clock: steps_of_tuning(inner, clock) for clock in (False, True)}
        of_longer = typical_steps(inner)
        curve_tasks = min(comparison.curve_tasks, tasks)
        moments = curve_moments(inner.steps)
        of_curves = {False: steps * curve_tasks, True: sum(moments) * curve_tasks}
    return (
        sum(steps * (grid * x.trials + 2 * tasks) for x in compared)
        + sum(of_curves[x.criterion.reads_clock] for x in compared)
        + sum(of_tuning[x.criterion.reads_clock] * grid * x.trials for x in longer)
        + len(longer) * of_longer * tasks
    )
