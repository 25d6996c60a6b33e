"""What a recommendation by real trainings is going to do, and what it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from metaloss.core import registry
from metaloss.core.formatting import clock, counted
from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.recommendation_by_training.candidates import candidates
from metaloss.experiments.recommendation_by_training.choice import Choosing
from metaloss.experiments.recommendation_by_training.folds import Part, TrainingFolds
from metaloss.experiments.recommendation_by_training.halving import Candidate, HalvingStage
from metaloss.experiments.recommendation_by_training.settings import TrainingRecommendation
from metaloss.experiments.recommendation_by_training.trainings import (
    AnswerCache,
    FoldTrainer,
    FoldTraining,
    Trainings,
)
from metaloss.inner.metrics import Metric, scale_of
from metaloss.tasks.single_training import seconds_of_training
from metaloss.tasks.uneven import METRIC
from metaloss.training.losses import name_losses
from metaloss.training.models import build, check_batch
from metaloss.training.schedule import make_schedule


@dataclass(frozen=True)
class TrainingCost:
    """What a recommendation costs at most.

    Attributes:
        halving: trainings of one halving; most are shorter than the real one.
        judged: real trainings that the folds judge.
        steps: of all trainings.
    """

    halving: int
    judged: int
    steps: int


def cost_of(choosing: Choosing) -> TrainingCost:
    """The cost, at most, of folds + 1 halvings and of the trainings that the folds judge."""
    trainings: set[FoldTraining] = set()

    def count(candidates: Sequence[Candidate], stage: HalvingStage) -> list[float]:
        trainings.update(t for x in candidates for t in choosing.of_stage(None, x, stage))
        # Most is trained where what is left shares nothing: losses that come last, at the end of
        # their rates, and cross-entropy at the end of its own.
        return [float(i) for i in range(len(candidates))]

    choosing.halve(count)
    folds = choosing.trainings.trainer.folds
    compared = 3 if choosing.expected else 2
    judged = compared * folds.folds * choosing.seeds
    halving_steps = sum(x.steps for x in trainings)
    steps = (folds.folds + 1) * halving_steps + judged * folds.steps
    return TrainingCost(len(trainings), judged, steps)


@dataclass(frozen=True)
class Plan:
    """What is about to happen, for who watches.

    Attributes:
        asked: the settings.
        folds: the images.
        candidates: losses with their own parameters, each at every rate.
        scale: how the metric is shown.
        cost: in trainings.
        seconds: about how long it takes.
        workers: trainings at once.
        expected: the loss that is known to help, and judged beside what is left of the candidates;
            "" where none is.
    """

    asked: TrainingRecommendation
    folds: TrainingFolds
    candidates: Sequence[Candidate]
    scale: MetricScale
    cost: TrainingCost
    seconds: float
    workers: int
    expected: str = ""


def plan_of(choosing: Choosing, asked: TrainingRecommendation) -> Plan:
    """The plan of a recommendation; a few steps are trained for the estimate of its time."""
    cost = cost_of(choosing)
    trainings = choosing.trainings
    return Plan(
        asked,
        trainings.trainer.folds,
        choosing.candidates,
        choosing.scale,
        cost,
        _seconds(choosing, cost),
        trainings.at_once,
        choosing.expected.label if choosing.expected else "",
    )


def choosing_of(
    asked: TrainingRecommendation,
    folds: TrainingFolds,
    compared: Sequence[ComparedLoss],
    expected: str,
    device: torch.device,
    stop: Callable[[], bool],
    on_progress: Callable[[int], None],
) -> Choosing:
    """All that trains; whether losses, network and metric fit the images is looked at here.

    Args:
        asked: the settings.
        folds: the images.
        compared: the losses.
        expected: which of them is known to help and judged beside the others; "" where none is.
        device: where networks train.
        stop: asked before every step.
        on_progress: is told of the steps of every training that is over.

    Raises:
        SettingsError: one does not.
    """
    classes = folds.dataset.classes
    name_losses([x.label for x in compared], [x.criterion for x in compared], len(classes))
    chosen_among = [x for x in compared if x.label != expected]
    usual = folds.settings.rate
    tried, losses = candidates(chosen_among, asked.rates, usual, asked.own, folds.uneven)
    known = None
    for loss in compared:
        if loss.label == expected:
            known = Candidate(expected, "", len(losses), usual)
            losses = [*losses, *loss.variants().values()]
    trainer = FoldTrainer(folds, losses, device, asked.seed)
    _check_network(asked, trainer)
    metric = _metric(asked, folds)
    trainings = Trainings(trainer, asked, AnswerCache(), stop, on_progress)
    scale = scale_of(metric, len(classes))
    fixed = bool(asked.rates)
    return Choosing(trainings, tried, asked.stages, asked.seeds, metric, scale, fixed, known)


def _check_network(asked: TrainingRecommendation, trainer: FoldTrainer) -> None:
    """Build the network once, which tries it on the images.

    Raises:
        SettingsError: it does not fit them, or not the batch.
    """
    folds = trainer.folds
    classifier = trainer.classifier(folds.images, Stream(0))
    build(asked.train, classifier.shape, Stream(0), pretrained=folds.settings.pretrained)
    check_batch(classifier, folds.settings.batch or 0)


def _metric(asked: TrainingRecommendation, folds: TrainingFolds) -> Metric:
    """What losses are scored by, of these classes."""
    table = metric_table(asked, folds) or {"kind": "accuracy"}
    metric: Metric = registry.build("metrics", table, "recommend: metric")
    classes = folds.dataset.classes
    return metric.for_classes(classes, len(classes))


def metric_table(asked: TrainingRecommendation, folds: TrainingFolds) -> dict[str, Any] | None:
    """What losses are scored by, our choice where none is named; None: accuracy."""
    return asked.metric or ({"kind": METRIC} if folds.uneven else None)


def _seconds(choosing: Choosing, cost: TrainingCost) -> float:
    """About how long all trainings take, by the time of a few steps of one."""
    trainings = choosing.trainings
    folds = trainings.trainer.folds
    first = FoldTraining(0, choosing.candidates[0].lr, Part(0), folds.steps)

    def train(steps: int) -> object:
        return trainings.trainer.attempt(replace(first, steps=steps), trainings.stop)

    images = len(folds.cut(first.part)[0])
    schedule = make_schedule(folds.training(folds.steps), images)
    whole = seconds_of_training(train, schedule)
    return whole * cost.steps / folds.steps / trainings.at_once


def heading(plan: Plan) -> list[str]:
    """The images, the training, and what all of it costs, a line each."""
    folds = plan.folds
    asked = plan.asked
    settings = folds.settings
    cost = plan.cost
    classes = folds.dataset.classes
    counts = ", ".join(f"{name} {n}" for name, n in zip(classes, folds.counts, strict=True))
    whole = cost.steps / folds.steps
    corrections = " and prior corrections" if any(x.tau for x in plan.candidates) else ""
    losses = len({x.label for x in plan.candidates if not x.tau})
    judged = "what is left and cross-entropy"
    if plan.expected:
        judged = f"what is left, cross-entropy and {plan.expected}, which is known to help,"
    ours = "" if asked.metric or not folds.uneven else ", as classes are uneven"
    groups = (
        f"groups  {folds.group_count}, each whole in one fold and one inner part; intervals count "
        "groups"
    )
    return [
        f"data    {folds.dataset.origin} ({counts})",
        f"train   {settings.model}, {folds.steps} steps of {settings.batch} images, "
        f"{settings.optimiser}, augmentation {settings.augment.kind}",
        f"metric  {plan.scale.title}{ours} (--metric names another)",
        f"folds   {folds.folds}; inside each, {len(plan.candidates)} candidates "
        f"({counted(losses, 'loss')} with their own parameters{corrections}, each at some "
        f"rates) are reduced in {len(asked.stages)} stages, from short trainings to real ones, on "
        f"{folds.splits} inner parts; {judged} are judged with {asked.seeds} seeds",
        *([groups] if folds.group_count else []),
        f"cost    {folds.folds + 1} halvings of {cost.halving} trainings and {cost.judged} that "
        f"are judged: as much as {whole:.0f} whole trainings; {plan.workers} at once take about "
        f"{clock(plan.seconds)}",
    ]
