"""How a loss is chosen on some images, and what each loss reaches on other images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from metaloss.core.metric_scale import MetricScale
from metaloss.data.episodes import Tasks
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting
from metaloss.evaluation.variants import Variants, tune_variants
from metaloss.experiments.comparison.losses import CE
from metaloss.inner.metrics import Metric
from metaloss.inner.observers import Measures
from metaloss.losses.base import Losses


@dataclass(frozen=True)
class LossChoice:
    """What some images say.

    Attributes:
        settings: of each loss, cross-entropy first.
        late: cross-entropy's best rate and number of steps; None where every loss has its best
            number anyway.
        losses: each loss as it was chosen, with its own parameters.
    """

    settings: dict[str, Setting]
    late: Setting | None
    losses: Mapping[str, Losses] = field(default_factory=dict)

    @property
    def winner(self) -> str:
        """The loss that reached most; of equals the first, so cross-entropy before any other."""
        return max(self.settings, key=lambda name: self.settings[name].score or 0.0)


@dataclass(frozen=True)
class ChoiceEvaluation:
    """A choice's losses on T tasks whose validation images it has not seen.

    Attributes:
        measures: of each loss.
        late: of cross-entropy with its best number of steps.
        tasks: what they were judged on.
        metric: what they were scored by; None: accuracy.
        scale: how scores are shown.
    """

    measures: dict[str, Measures]
    late: Measures | None
    tasks: Tasks
    metric: Metric | None
    scale: MetricScale


def choose(
    evaluation: EpisodeEvaluation,
    losses: Mapping[str, Variants],
    rates: Sequence[float],
    tasks: int,
    steps: bool = False,
) -> LossChoice:
    """Tune every loss.

    Cross-entropy also has the rates half-way between: a mere rescaling of it must not win by lying
    between two rates.

    Args:
        evaluation: has the images as its meta-validation pool.
        losses: by name, cross-entropy among them; each with the choices of its own parameters.
        rates: among which each one's is chosen.
        tasks: on which.
        steps: whether each one's number of steps is chosen, too.
    """
    tune = evaluation.tune_steps if steps else evaluation.tune
    others = [name for name in losses if name != CE]
    (ce,) = tune_variants(partial(tune, rates=with_rates_between(rates), tasks=tasks), [losses[CE]])
    best = tune_variants(partial(tune, rates=rates, tasks=tasks), [losses[name] for name in others])
    tuned = {CE: ce} | dict(zip(others, best, strict=True))
    settings = {name: x.setting for name, x in tuned.items()}
    best_losses = {name: x.losses for name, x in tuned.items()}
    # Where every loss has its best number of steps, cross-entropy has it already.
    if steps:
        return LossChoice(settings, None, best_losses)
    (ce_best_steps,) = evaluation.tune_steps([ce.losses], rates, tasks)
    return LossChoice(settings, ce_best_steps.setting, best_losses)


def evaluate_choice(
    evaluation: EpisodeEvaluation, choice: LossChoice, tasks: int
) -> ChoiceEvaluation:
    """What each loss reaches on held-out images with the setting that a choice gave it.

    Args:
        evaluation: has the held-out images as its meta-test pool.
        choice: has each loss and its setting.
        tasks: how many.
    """
    names = list(choice.settings)
    tested = evaluation.test_each(
        [choice.losses[name] for name in names], list(choice.settings.values()), tasks
    )
    by_label = {name: x for name, x in zip(names, tested, strict=True) if x is not None}
    (ce_best_steps,) = evaluation.test_each([choice.losses[CE]], [choice.late], tasks)
    family = evaluation.family
    return ChoiceEvaluation(
        by_label, ce_best_steps, evaluation.test_tasks(tasks), family.metric, family.scale
    )


def with_rates_between(rates: Sequence[float]) -> list[float]:
    """Rates, and the geometric mean of every two neighbours.

    >>> with_rates_between([0.1, 0.4])
    [0.1, 0.2, 0.4]
    """
    # The geometric mean, because what matters of a rate is its factor.
    known = sorted(set(rates))
    return sorted({*known, *(float(f"{math.sqrt(a * b):.3g}") for a, b in pairwise(known))})
