"""The inner loop: P·T classifiers train at once, each on its own task with its own loss."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.inner.classifiers import Classifier, Descending, Params
from metaloss.inner.optimiser_settings import (
    Betas,
    LearningRate,
    Momentum,
    OptimiserName,
    Warmup,
    WeightDecay,
    check_nesterov,
)
from metaloss.inner.optimisers import Adam, Rate, Sgd
from metaloss.losses.base import Clock, Losses, after, at, reads_past


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Inner:
    """How a classifier trains.

    Attributes:
        steps: updates of the parameters.
        lr: the learning rate; what the schedule and the warm-up scale.
        batch: images per step, from a fresh permutation every epoch whose rest is dropped; None:
            all images.
        optimiser: "sgd", "adam" (L2 decay in the gradient) or "adamw" (decay apart), as
            torch.optim's.
        momentum, nesterov: of "sgd".
        betas, eps: of "adam" and "adamw".
        weight_decay: of every parameter, biases too.
        schedule: the rate's course over the steps after the warm-up: down to 0 along a half cosine
            or a line.
        warmup: steps in which the rate rises along a line.
    """

    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    lr: LearningRate = 0.1
    batch: Annotated[int, Field(ge=1)] | None = None
    optimiser: OptimiserName = "sgd"
    momentum: Momentum = 0.0
    nesterov: bool = False
    betas: Betas = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    weight_decay: WeightDecay = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: Warmup = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.optimiser != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(
                f"momentum and nesterov belong to 'sgd', and optimiser is '{self.optimiser}'"
            )
        check_nesterov(self.nesterov, self.momentum)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup must be below steps = {self.steps}, got {self.warmup}")
        return self

    @property
    def linear(self) -> bool:
        """Whether updates are linear in the gradients, as `in_span` classifiers need it."""
        return self.optimiser == "sgd"

    @property
    def plain(self) -> bool:
        """Whether a step adds the gradient times the rate, and nothing else."""
        return self.linear and not (self.momentum or self.weight_decay)

    @property
    def anytime(self) -> bool:
        """Whether a shorter training is the beginning of a longer one, but for the loss."""
        return self.schedule == "constant"

    def start(self) -> Sgd | Adam:
        """A fresh optimiser."""
        if self.optimiser == "sgd":
            return Sgd(self.momentum, self.nesterov, self.weight_decay)
        return Adam(self.betas, self.eps, self.weight_decay, self.optimiser == "adamw")

    def scale(self, step: int) -> float:
        """What the learning rate is multiplied by in this step, counted from 1."""
        if step <= self.warmup:
            return step / self.warmup
        done = (step - 1 - self.warmup) / (self.steps - self.warmup)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
            self.schedule
        ]


@dataclass
class _Slope:
    """The gradient at a step's logits, and after it the losses as the next step has them."""

    losses: Losses

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        gradient = self.losses.logit_gradient(logits)
        self.losses = after(self.losses, logits)
        return gradient

    @property
    def perceptron_step(self) -> Any:
        """What the losses have to step perceptrons whole; None: nothing."""
        return getattr(self.losses, "perceptron_step", None)


@torch.no_grad()
def train(
    losses: Losses,
    model: Classifier,
    params: Params,
    inputs: Any,
    *,
    inner: Inner,
    lr: Rate | None = None,
    keys: Sequence[Stream] = (),
    count: Int[Tensor, " T"] | None = None,
    choices: int = 1,
    probe: Callable[[int, Params], None] | None = None,
) -> Params:
    """The parameters after `inner.steps` steps; the given ones are overwritten.

    Args:
        losses: bound to the training targets; those that read the images' past need all of them at
            every step.
        model: the stacked classifier.
        params: what `model.init` gave, [P, T, ...].
        inputs: the training half of what `model.bind` gave.
        inner: the optimiser's settings.
        lr: a learning rate for all, or one per candidate [P]; the family's own where None.
        keys: one per task, for the order of its images and of their versions; needed for
            minibatches and versions only.
        count: how many rows are each task's own, where others pad it.
        choices: how many rows side by side are versions of one image, of which a step takes one.
        probe: called after each step with its number, from 1, and the parameters.

    Raises:
        ValueError: the optimiser is not exact for this form of the classifier.
    """
    if model.in_span and not inner.linear:
        raise ValueError(f"{type(model).__name__} does not train exactly with '{inner.optimiser}'")
    optimiser = inner.start()
    rate = inner.lr if lr is None else lr
    like = next(iter(params.values()))
    rate = rate.to(like) if isinstance(rate, Tensor) else rate
    # Once with the number of steps: what depends on that alone is then ready for all of them.
    losses = at(losses, Clock.of(0, inner.steps))
    past = reads_past(losses)
    descend = None
    if inner.plain and isinstance(model, Descending):
        descend = model.descent(params, inputs)
    indices = batches(len(inputs), inner, keys, like.device, count, choices)
    for step, index in enumerate(indices, 1):
        bound, shown = seen_by_step(losses, inputs, index, Clock.of(step - 1, inner.steps))
        slope = _Slope(bound)
        moved = rate * inner.scale(step)
        if descend is not None and index is None:
            descend(slope, moved)
        else:
            optimiser.step(params, model.gradients(params, shown, slope), moved)
        if past:
            losses = slope.losses
        if probe is not None:
            probe(step, params)
    return params


def seen_by_step(
    losses: Losses, inputs: Any, index: Int[Tensor, "T b"] | None, clock: Clock
) -> tuple[Losses, Any]:
    """The bound losses and the inputs of one step.

    Args:
        losses: of all training images.
        inputs: of all training images.
        index: the step's minibatch; None: all images.
        clock: how far the training is.
    """
    # Without minibatches nothing is gathered: losses and inputs serve as they are.
    if index is not None:
        losses, inputs = losses.minibatch(index), inputs.minibatch(index)
    return at(losses, clock), inputs


def batches(
    rows: int,
    inner: Inner,
    keys: Sequence[Stream],
    device: torch.device | str = "cpu",
    count: Int[Tensor, " T"] | None = None,
    choices: int = 1,
) -> Iterator[Int[Tensor, "T b"] | None]:
    """Which of its rows every task trains on, step after step; None: all of them.

    Args:
        rows: of a task, with those that pad it.
        inner: the optimiser's settings.
        keys: one per task.
        device: of the training.
        count: how many rows are each task's own, where others pad it.
        choices: how many rows side by side are versions of one image, of which a step takes one.
    """
    images = rows // choices
    batch = images if inner.batch is None else min(inner.batch, images)
    if batch == images and choices == 1:
        yield from [None] * inner.steps
        return
    own = [images] * len(keys) if count is None else (count // choices).tolist()
    # From each task's own key: its order does not depend on the other tasks.
    orders = [_order(n, batch, key, choices) for n, key in zip(own, keys, strict=True)]
    for _ in range(inner.steps):
        yield torch.stack([next(order) for order in orders]).to(device)


def _order(images: int, batch: int, key: Stream, choices: int) -> Iterator[Int[Tensor, " b"]]:
    """Which of its rows one task trains on, step after step without end."""
    turns = torch.zeros(choices, max(images, batch), dtype=torch.long)
    for cycle in itertools.count():
        if choices > 1:
            # Every image passes through all of its versions before one comes again.
            drawn = key.at("versions", cycle).uniform(images, choices)
            turns[:, :images] = drawn.argsort(dim=1, stable=True).T
        for place, version in enumerate(turns):
            if images <= batch:
                # All of them; those behind them pad the task.
                order = torch.arange(batch)
            else:
                epoch = cycle * choices + place
                order = key.at("order", epoch).permutation(images)[: images // batch * batch]
            yield from (order * choices + version[order]).split(batch)
