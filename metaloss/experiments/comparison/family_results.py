"""All losses of a comparison tuned and tested on one family."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting, steps_of_tuning, typical_steps
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.results import (
    LossMeasures,
    LossResult,
    compared_with_baseline,
)
from metaloss.experiments.comparison.settings import Comparison
from metaloss.losses.base import Losses
from metaloss.tasks.episodic import Episodes


@dataclass(frozen=True)
class FamilyResults:
    """The results of one family.

    Attributes:
        rows: one per loss.
        strongest: cross-entropy's best rate and number of steps.
        trainings: all of every loss's trainings on the test tasks, by its label.
        moments: the steps at which learning curves are read.
        curves: training and validation accuracy at these steps, by the loss's label.
    """

    rows: list[LossResult]
    strongest: Setting
    trainings: dict[str, LossMeasures]
    moments: tuple[int, ...]
    curves: dict[str, Float[Tensor, "M T 2"]]


def evaluate_family(
    evaluation: EpisodeEvaluation,
    comparison: Comparison,
    compared: Sequence[ComparedLoss],
    baseline: str,
) -> FamilyResults:
    """Tune and test all losses on one family, and record their learning curves."""
    losses = [x.criterion.losses() for x in compared]
    labels = [x.label for x in compared]
    rates, best_settings = _tune(evaluation, comparison, labels, losses)
    tasks = comparison.test_tasks
    # At the family's rate, too: a loss that is ahead only there may be a mere rescaling.
    family_setting = Setting(evaluation.inner.lr, evaluation.inner.steps)
    tested = evaluation.test(losses, [(rate, family_setting) for rate in rates], tasks)
    tested_at_best_steps = evaluation.test_each(losses, best_settings, tasks)
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
    )


def _tune(
    evaluation: EpisodeEvaluation,
    comparison: Comparison,
    labels: Sequence[str],
    losses: Sequence[Losses],
) -> tuple[list[Setting], list[Setting | None]]:
    """Each loss's best rate, and its best rate and number of steps where those are wanted.

    On meta-validation tasks: test tasks that choose a rate would flatter it.

    Args:
        evaluation: of the family.
        comparison: the settings.
        labels: of the losses.
        losses: single ones.
    """
    budget = comparison.rates, comparison.tuning_tasks
    rates = [x.setting for x in evaluation.tune(losses, *budget)]
    # The baseline may have more steps in any case: a loss that is merely faster must not look
    # better than that.
    longer = [i for i, label in enumerate(labels) if comparison.tune == "steps" or label == CE]
    tuned_steps = evaluation.tune_steps([losses[i] for i in longer], *budget)
    best_steps = dict(zip(longer, (x.setting for x in tuned_steps), strict=True))
    return rates, [best_steps.get(i) for i in range(len(losses))]


def training_steps(comparison: Comparison, losses: int, episodes: Episodes) -> int:
    """The approximate number of training steps on a family."""
    inner = episodes.family.inner
    grid = len(comparison.rates) * comparison.tuning_tasks
    longer = losses if comparison.tune == "steps" else 1
    each_loss = inner.steps * (
        grid + 2 * comparison.test_tasks + min(comparison.curve_tasks, comparison.test_tasks)
    )
    each_longer = steps_of_tuning(inner) * grid + typical_steps(inner) * comparison.test_tasks
    return losses * each_loss + longer * each_longer
