"""Nested cross-validation: each fold's choice without its images, and what comes of it on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.halving import halving_trainings
from metaloss.evaluation.tuning import steps_of_tuning, typical_steps
from metaloss.evaluation.variants import Variants, tunes_steps
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.folds import FoldedImages
from metaloss.experiments.recommendation.rivals import rival_steps
from metaloss.experiments.recommendation.selection import (
    ChoiceEvaluation,
    ChoiceOptions,
    Length,
    LossChoice,
    choose,
    evaluate_choice,
    with_rates_between,
)
from metaloss.experiments.recommendation.sentences import fold_in_words
from metaloss.experiments.recommendation.settings import Recommendation
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.protocols import Engine


@dataclass(frozen=True)
class CrossValidation:
    """The folds that have been judged so far.

    Attributes:
        images: cut into folds.
        losses: by their labels, each with the choices of its own parameters.
        options: of every choice.
        recommendation: the settings.
        choices: one per judged fold.
        judged: likewise.
    """

    images: FoldedImages
    losses: Mapping[str, Variants]
    options: ChoiceOptions
    recommendation: Recommendation
    choices: list[LossChoice] = field(default_factory=list)
    judged: list[ChoiceEvaluation] = field(default_factory=list)

    @property
    def _key(self) -> Stream:
        return Stream(self.recommendation.seed)

    def judge_folds(self, engine: Engine, reporter: Reporter) -> None:
        """Choose without each fold's images, and judge the choice on them.

        Raises:
            Interrupted: the user asked to stop; the folds before stay.
        """
        for number in range(self.images.folds):
            key = self._key.at("fold", number)
            choosing, judging = self.images.fold(number, engine.device)
            choice = choose(EpisodeEvaluation(engine, choosing, key), self.losses, self.options)
            tasks = self.recommendation.test_tasks
            judged = evaluate_choice(EpisodeEvaluation(engine, judging, key), choice, tasks)
            self.choices.append(choice)
            self.judged.append(judged)
            found = fold_in_words(choice, judged)
            reporter.on_recommendation_fold(number + 1, self.images.folds, found)

    def choose(self, engine: Engine, whole: Episodes) -> LossChoice:
        """The choice on all images: the folds have told what choosing is worth."""
        evaluation = EpisodeEvaluation(engine, whole, self._key.at("all"))
        return choose(evaluation, self.losses, self.options)

    def results(self) -> FoldResults:
        """What the judged folds say."""
        certainty = self.recommendation.certainty
        return FoldResults.of(
            self.choices,
            self.judged,
            certainty,
            self._key.at("bootstrap"),
            self.images.dataset.groups,
        )


def choice_options(
    recommendation: Recommendation, images: FoldedImages, expected: str = ""
) -> ChoiceOptions:
    """How every choice is made; `expected` as in its options."""
    length: Length = "ce" if images.usual_steps else "family"
    if tunes_steps(recommendation.tune):
        length = "own"
    return ChoiceOptions(
        recommendation.rates,
        recommendation.tuning_tasks,
        length,
        recommendation.rivals,
        expected,
    )


def training_steps(
    recommendation: Recommendation,
    options: ChoiceOptions,
    compared: Sequence[ComparedLoss],
    images: FoldedImages,
) -> int:
    """About how many steps of training it takes."""
    inner = images.family.inner
    rates = len(options.rates)
    # Cross-entropy alone also has the rates half-way between.
    of_ce = len(with_rates_between(options.rates))
    others = [x for x in compared if x.label != CE]
    grid = sum(x.trials for x in others) * rates
    # In full rounds of tasks.
    halving = sum(halving_trainings(x.trials * rates, options.tasks) for x in others)
    halving //= options.tasks
    losses = len(compared)
    typical = typical_steps(inner)
    longest = steps_of_tuning(inner)
    # Each number of steps is a training of its own for those that see how far a training is.
    own = rates * sum(x.trials * steps_of_tuning(inner, x.criterion.reads_clock) for x in others)
    choosing, judging = {
        "family": (
            (grid + of_ce) * inner.steps + rates * longest,
            losses * inner.steps + typical,
        ),
        "ce": (halving * typical + of_ce * longest, losses * typical),
        "own": (own + of_ce * longest, losses * typical),
    }[options.length]
    choices = (images.folds + 1) * options.tasks
    steps = choices * choosing + images.folds * recommendation.test_tasks * judging
    if options.rivals:
        steps += rival_steps(typical, options.tasks, recommendation.test_tasks, images.folds)
    return steps
