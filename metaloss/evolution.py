"""The program in one page: candidates train classifiers, their accuracy is the fitness, the strategy learns from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.classifiers import Bound, Classifier, Inputs, Params
from metaloss.inner import Inner, accuracy, train
from metaloss.losses import Losses
from metaloss.objectives import Objective
from metaloss.optimisers import Rate
from metaloss.population import Population
from metaloss.strategies import Genome, Strategy
from metaloss.streams import Stream
from metaloss.tasks import Tasks

# Trains P losses on a task epoch's tasks: validation accuracies [P, T], and the family [T] of every task.
Evaluator = Callable[[Losses, Stream], tuple[Float[Tensor, "P T"], Tensor]]
# What is seen of trained classifiers: one number or more for each, from the tasks, in blocks of so many images.
Gauge = Callable[[Classifier, Params, Bound, Tasks, int], Float[Tensor, "P T ..."]]
# What cross-entropy reaches on the same tasks, for an objective that compares with it.
Baseline = Callable[[Stream], Float[Tensor, " T"]]


class Space(Genome, Protocol):
    """What a strategy varies, and what candidates are as losses."""

    def losses(self, population: Any) -> Losses:
        """The candidates as losses that run together."""


@dataclass(frozen=True)
class Scored:
    """One generation's candidates and what they reached."""

    population: Population
    score: Float[Tensor, "P T"]
    fitness: Float[Tensor, " P"]


def generation(
    strategy: Strategy, state: Any, genome: Space, evaluator: Evaluator, objective: Objective, key: Stream,
    number: int, baseline: Baseline | None = None,
) -> tuple[Any, Scored]:  # fmt: skip
    """Ask for candidates, score them all on the same tasks, and tell the strategy."""
    population, state = strategy.ask(state, genome, key.at("vary", number))
    # Tasks depend on the epoch alone, so two strategies with one seed and the same epochs meet the same ones.
    tasks = key.at("tasks", strategy.epoch(number))
    score, family = evaluator(genome.losses(population), tasks)
    fitness = objective(score, family, baseline(tasks) if baseline else None)
    return strategy.tell(state, population, fitness), Scored(population, score, fitness)


def scores(model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int) -> Float[Tensor, "P T"]:
    """The gauge that searches use: the validation accuracy."""
    return validate(model, params, bound.val, tasks.val.label, block)


def evaluate(
    losses: Losses, model: Classifier, bound: Bound, tasks: Tasks, *,
    inner: Inner, lr: Rate | None = None, keys: Sequence[Stream] = (), marks: tuple[int, ...] = (), block: int,
    gauge: Gauge = scores,
) -> Float[Tensor, "M P T ..."]:  # fmt: skip
    """What the gauge, by default the validation accuracy, shows of P·T classifiers.

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
        gauge: looks at the classifiers.
    """
    found = []

    def look(step: int, params: Params) -> None:
        if step in (marks or (inner.steps,)):
            found.append(gauge(model, params, bound, tasks, block))

    bound_losses = losses.bind(tasks.train.target)
    train(bound_losses, model, bound.init(len(losses)), bound.train, inner=inner, lr=lr, keys=keys, probe=look)
    return torch.stack(found)


@torch.no_grad()
def right_answers(model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int) -> Float[Tensor, "P T V"]:
    """The gauge of a search's test: 1 for a validation image whose class is found, else 0; NaN: not finite logits."""
    found = []
    for first in range(0, len(bound.val), block):
        images = slice(first, first + block)
        logits = model(params, bound.val.block(images))
        right = (logits.argmax(-1) == tasks.val.label[:, images]).to(logits)
        found.append(right.where(logits.isfinite().all(-1), torch.nan))
    return torch.cat(found, 2)


@torch.no_grad()
def validate(
    model: Classifier, params: Params, inputs: Inputs, label: Int[Tensor, "T V"], block: int
) -> Float[Tensor, "P T"]:
    """The accuracy on all validation images, a block of them at a time."""
    right: Tensor | float = 0.0
    for first in range(0, len(inputs), block):
        images = slice(first, first + block)
        some = label[:, images]
        right = right + accuracy(model(params, inputs.block(images)), some) * some.shape[1]
    return torch.as_tensor(right / len(inputs))
