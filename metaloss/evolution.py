"""The program in one page.

Candidates train classifiers, the classifiers' accuracy is the fitness, and the strategy learns from
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.errors import Interrupted
from metaloss.genomes import SearchSpace
from metaloss.inner.classifiers import Bound, Classifier, Params
from metaloss.inner.loop import Inner, train
from metaloss.inner.observers import Observer, scores
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses, TrainingTargets
from metaloss.strategies import GradientStrategy, Strategy

# Trains P losses on a task epoch's tasks: validation accuracies [P, T], or columns [P, T, K] of
# which the first is they, and the family [T] of every task.
Evaluator = Callable[[Losses, Stream], tuple[Float[Tensor, "P T *K"], Tensor]]
# What cross-entropy reaches on the same tasks, for an objective that compares with it.
Baseline = Callable[[Stream], Float[Tensor, "T *K"]]
# The gradient of validation cross-entropy at every candidate, on a task epoch's tasks.
Gradients = Callable[[Population, Stream], Float[Tensor, "P D"]]
# Validation accuracies (NaN = failed), the number of each task's family, and what cross-entropy at
# its tuned rate reached on the same tasks. Families with more tasks never weigh more.
Objective = Callable[
    [Float[Tensor, "P T *K"], Int[Tensor, " T"], Float[Tensor, "T *K"] | None],
    Float[Tensor, " P"],
]


@dataclass(frozen=True)
class Scored:
    """One generation's candidates, what they were measured to be, and their fitness.

    Attributes:
        population: the candidates.
        measured: their scores, or columns of which the first is they.
        fitness: what became of these.
        family: the number of each task's family, or of its kind.
        refused: 0, or the code of why a candidate was not worth a training; then it has no scores.
        baseline: what cross-entropy was measured to be on the same tasks, where that was needed.
        refined: how many of the candidates a refinement made better.
    """

    population: Population
    measured: Float[Tensor, "P T *K"]
    fitness: Float[Tensor, " P"]
    family: Int[Tensor, " T"]
    refused: Int[Tensor, " P"]
    baseline: Float[Tensor, "T *K"] | None = None
    refined: int = 0

    @property
    def score(self) -> Float[Tensor, "P T"]:
        """What they are searched by: the first of the columns, where there are more."""
        return self.measured if self.measured.ndim == 2 else self.measured[..., 0]


def generation(
    strategy: Strategy,
    state: Any,
    genome: SearchSpace,
    evaluator: Evaluator,
    objective: Objective,
    key: Stream,
    number: int,
    baseline: Baseline | None = None,
    gradients: Gradients | None = None,
    refine: Callable[[Scored, Stream], Scored] | None = None,
) -> tuple[Any, Scored]:
    """Ask for candidates, score them all on the same tasks, and tell the strategy.

    Args:
        strategy: the outer algorithm.
        state: its state.
        genome: the search space.
        evaluator: trains the candidates.
        objective: from scores to fitness.
        key: of the whole run.
        number: of the generation: 1, 2, ...
        baseline: scores cross-entropy, where the objective needs it.
        gradients: go through trainings, where the strategy follows them.
        refine: makes some of the scored candidates better, from the tasks' key.
    """
    population, state = strategy.ask(state, genome, key.at("vary", number))
    # Tasks depend on the epoch alone, so two strategies with one seed and the same epochs meet the
    # same ones.
    tasks = key.at("tasks", strategy.epoch(number))
    refused = genome.valid(population)
    measured, family = _measured(genome, population, refused == 0, evaluator, tasks)
    of_baseline = baseline(tasks) if baseline else None
    fitness = objective(measured, family, of_baseline)
    scored = Scored(population, measured, fitness, family, refused, of_baseline)
    if refine is not None:
        scored = refine(scored, tasks)
    state = strategy.tell(state, scored.population, scored.fitness)
    if gradients is not None and isinstance(strategy, GradientStrategy):
        state = strategy.follow(state, gradients(population, tasks))
    return state, scored


def _measured(
    genome: SearchSpace,
    population: Population,
    worth: Bool[Tensor, " P"],
    evaluator: Evaluator,
    tasks: Stream,
) -> tuple[Float[Tensor, "P T *K"], Int[Tensor, " T"]]:
    """The candidates' scores and the tasks' families.

    Args:
        genome: the search space.
        population: the candidates.
        worth: which are worth a training; the others have scores of NaN.
        evaluator: trains them.
        tasks: the tasks' key.
    """
    if worth.all():
        return evaluator(genome.losses(population), tasks)
    # Where none is, one is trained all the same, for the number of tasks and their families.
    some = worth if worth.any() else torch.arange(len(worth)) == 0
    trained, family = evaluator(genome.losses(population[some]), tasks)
    measured = trained.new_full((len(worth), *trained.shape[1:]), torch.nan)
    if worth.any():
        measured[worth] = trained
    return measured, family


def evaluate(
    losses: Losses,
    model: Classifier,
    bound: Bound,
    tasks: Tasks,
    *,
    inner: Inner,
    lr: Rate | None = None,
    keys: Sequence[Stream] = (),
    marks: tuple[int, ...] = (),
    block: int,
    metric: Observer = scores,
    stop: Callable[[], bool] = lambda: False,
) -> Float[Tensor, "M P T ..."]:
    """What the metric, by default the validation accuracy, shows of P·T classifiers.

    Each is trained from the same start as its neighbours on its task.

    Args:
        losses: P candidates.
        model: the stacked classifier.
        bound: the tasks as the classifier wants them, and its start.
        tasks: T tasks.
        inner: the optimiser's settings.
        lr: a learning rate for all, or one per candidate; the family's own where None.
        keys: one per task, for its order of images; needed for minibatches only.
        marks: the M steps after which to look, in ascending order; the last one alone by default.
        block: how many validation images to look at at once.
        metric: looks at the classifiers.
        stop: asked after every step; True drops the work and raises `Interrupted`.
    """
    shown = []

    def look(step: int, params: Params) -> None:
        if stop():
            raise Interrupted
        if step in (marks or (inner.steps,)):
            shown.append(metric(model, params, bound, tasks, block))

    images = tasks.train
    # Of the labels as they are given to training, wrong ones too.
    targets = TrainingTargets(images.target, images.weight, images.class_counts, tasks.costs)
    train(
        losses.bind(targets),
        model,
        bound.init(len(losses)),
        bound.train,
        inner=inner,
        lr=lr,
        keys=keys,
        count=images.count,
        choices=images.choices,
        probe=look,
    )
    return torch.stack(shown)
