"""How a loss is chosen on some images, and what each loss reaches on other images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal

from metaloss.core.metric_scale import MetricScale
from metaloss.data.episodes import Tasks
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.halving import tune_by_halving
from metaloss.evaluation.tuning import Setting
from metaloss.evaluation.variants import Variants, tune_variants
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation import rivals
from metaloss.experiments.recommendation.losses import FEW_SHOT
from metaloss.experiments.recommendation.rivals import RivalChoice
from metaloss.inner.metrics import Metric
from metaloss.inner.observers import Measures
from metaloss.losses.base import Losses

# How long losses train: for the family's number of steps; all for cross-entropy's best number; each
# for its own best number.
Length = Literal["family", "ce", "own"]


@dataclass(frozen=True)
class ChoiceOptions:
    """How a choice is made.

    Attributes:
        rates: learning rates among which each loss's is chosen.
        tasks: on how many.
        length: how long losses train.
        rivals: whether what is no loss is chosen beside them.
        expected: the loss that is known to help, which is judged and not chosen; "" where none is.
    """

    rates: Sequence[float]
    tasks: int
    length: Length = "family"
    rivals: bool = False
    expected: str = ""


@dataclass(frozen=True)
class LossChoice:
    """What some images say.

    Attributes:
        settings: of each loss, cross-entropy first.
        late: cross-entropy's best rate and number of steps; None where it has its best number
            anyway.
        losses: each loss as it was chosen, with its own parameters.
        rivals: what is no loss, as it was chosen, by its name.
        shown: losses and rivals that are set beside the others and never chosen.
    """

    settings: dict[str, Setting]
    late: Setting | None
    losses: Mapping[str, Losses] = field(default_factory=dict)
    rivals: Mapping[str, RivalChoice] = field(default_factory=dict)
    shown: frozenset[str] = frozenset()

    @property
    def scores(self) -> dict[str, float]:
        """What each loss reached, cross-entropy first, then what is no loss and may be chosen."""
        every = {name: x.score or 0.0 for name, x in self.settings.items()}
        every |= {name: x.score for name, x in self.rivals.items()}
        return {name: score for name, score in every.items() if name not in self.shown}

    @property
    def best_loss(self) -> str:
        """The loss that reached most, whatever else is no loss, of those that tell whether a search
        is worth it.
        """
        scores = self.scores
        counted = (x for x in self.settings if x in scores and x != FEW_SHOT)
        return max(counted, key=lambda name: scores[name])

    @property
    def winner(self) -> str:
        """What reached most; of equals the first, so cross-entropy before any other."""
        scores = self.scores
        return max(scores, key=lambda name: scores[name])


@dataclass(frozen=True)
class ChoiceEvaluation:
    """A choice's losses on T tasks whose validation images it has not seen.

    Attributes:
        measures: of each loss, and of each rival.
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
    evaluation: EpisodeEvaluation, losses: Mapping[str, Variants], options: ChoiceOptions
) -> LossChoice:
    """Tune every loss, and choose what is set beside them.

    Cross-entropy also has the rates half-way between: a mere rescaling of it must not win by lying
    between two rates.

    Args:
        evaluation: has the images as its meta-validation pool.
        losses: by name, cross-entropy among them; each with the choices of its own parameters.
        options: rates, tasks and lengths.
    """
    rates, tasks = options.rates, options.tasks
    numbers = () if options.length == "family" else evaluation.family.step_choices()
    (ce,) = tune_variants(
        partial(evaluation.tune, rates=with_rates_between(rates), tasks=tasks, steps=numbers),
        [losses[CE]],
    )
    others = [name for name in losses if name != CE]
    variants = [losses[name] for name in others]
    if options.length == "ce":
        # The same for all: a loss that merely learns faster gains nothing by that.
        best = tune_by_halving(evaluation, variants, rates, tasks, ce.setting.steps)
    else:
        best = tune_variants(
            partial(evaluation.tune, rates=rates, tasks=tasks, steps=numbers), variants
        )
    tuned = {CE: ce} | dict(zip(others, best, strict=True))
    settings = {name: x.setting for name, x in tuned.items()}
    best_losses = {name: x.losses for name, x in tuned.items()}
    late = None
    if options.length == "family":
        (ce_best_steps,) = evaluation.tune_steps([ce.losses], rates, tasks)
        late = ce_best_steps.setting
    chosen = (
        rivals.choose_rivals(evaluation, ce.losses, ce.setting, tasks) if options.rivals else {}
    )
    scarcest = min(map(len, evaluation.family.pools["validation"]))
    shown = rivals.too_flexible(chosen, scarcest) | frozenset({options.expected} - {""})
    return LossChoice(settings, late, best_losses, chosen, shown)


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
    by_name = {name: x for name, x in zip(names, tested, strict=True) if x is not None}
    (ce_best_steps,) = evaluation.test_each([choice.losses[CE]], [choice.late], tasks)
    if choice.rivals:
        by_name |= rivals.measure_rivals(
            evaluation, choice.rivals, choice.losses[CE], choice.settings[CE], tasks
        )
    family = evaluation.family
    return ChoiceEvaluation(
        by_name, ce_best_steps, evaluation.test_tasks(range(tasks)), family.metric, family.scale
    )


def with_rates_between(rates: Sequence[float]) -> list[float]:
    """Rates, and the geometric mean of every two neighbours.

    >>> with_rates_between([0.1, 0.4])
    [0.1, 0.2, 0.4]
    """
    # The geometric mean, because what matters of a rate is its factor.
    known = sorted(set(rates))
    return sorted({*known, *(float(f"{math.sqrt(a * b):.3g}") for a, b in pairwise(known))})
