"""The steps of trainings that gradients go through, on their way there and on their way back.

How a step is gone back is derived in `unrolled.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int
from torch import Tensor

from metaloss.errors import Interrupted
from metaloss.inner.classifiers import Descending, Params
from metaloss.inner.followed_losses import FollowedLosses
from metaloss.inner.loop import Inner, seen_by_step
from metaloss.inner.optimisers import Sgd
from metaloss.losses.base import Clock, Losses


@dataclass
class Adjoint:
    """The derivatives of the value by a state: by the parameters, and by their velocities."""

    params: Params
    velocity: Params = field(default_factory=dict)


@dataclass(frozen=True)
class UnrolledTraining:
    """The steps of P·T trainings, each on its way there and on its way back.

    Attributes:
        losses: bound.
        model: the classifier.
        inputs: the training images.
        inner: the optimiser's settings.
        lr: the learning rate.
        order: the minibatch of every step.
        stop: asked before every step.
    """

    losses: FollowedLosses
    model: Any
    inputs: Any
    inner: Inner
    lr: float
    order: list[Int[Tensor, "T b"] | None]
    stop: Callable[[], bool]

    def _seen(self, losses: Losses, number: int) -> tuple[Losses, Any]:
        if self.stop():
            raise Interrupted
        clock = Clock.of(number, self.inner.steps)
        return seen_by_step(losses, self.inputs, self.order[number], clock)

    def _rate(self, number: int) -> float:
        return self.lr * self.inner.scale(number + 1)

    def walk(self, segment: range, params: Params, optimiser: Sgd) -> Iterator[None]:
        """Make the steps of these numbers, counted from 0: the parameters are overwritten.

        It stops before each of them, as `train` makes them.
        """
        descend = None
        if self.inner.plain and isinstance(self.model, Descending):
            descend = self.model.descent(params, self.inputs)
        for number in segment:
            yield
            losses, inputs = self._seen(self.losses.plain, number)
            if descend is not None and self.order[number] is None:
                descend(losses.logit_gradient, self._rate(number))
                continue
            gradients = self.model.gradients(params, inputs, losses.logit_gradient)
            optimiser.step(params, gradients, self._rate(number))

    def step_back(
        self, number: int, params: Params, adjoint: Adjoint
    ) -> tuple[Adjoint, tuple[Tensor, ...]]:
        """The adjoint before a step, and what the step adds to the derivatives by the numbers.

        Args:
            number: of the step, counted from 0.
            params: before the step.
            adjoint: after it.
        """
        direction, velocity = self._direction(number, adjoint)
        losses, inputs = self._seen(self.losses.on_the_way_back, number)
        by_numbers: list[tuple[Tensor, ...]] = []

        def slope_adjoint(logits: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
            adjoint = self.losses.adjoint(losses, logits, change)
            by_numbers.append(adjoint.by_numbers)
            return adjoint.gradient, adjoint.by_logits

        own = self.model.gradients_adjoint(params, direction, inputs, slope_adjoint)
        for name, x in adjoint.params.items():
            if name in own:
                x.add_(own[name])
            if self.inner.weight_decay:
                x.add_(direction[name], alpha=self.inner.weight_decay)
        return Adjoint(adjoint.params, velocity), by_numbers[0]

    def _direction(self, number: int, adjoint: Adjoint) -> tuple[Params, Params]:
        """The adjoint of a step's gradients, decay included, and of the velocities before it."""
        inner = self.inner
        update = {name: x * -self._rate(number) for name, x in adjoint.params.items()}
        if not inner.momentum:
            return update, {}
        # v' = momentum · v + g; the update is v', or with Nesterov g + momentum · v'.
        share = inner.momentum if inner.nesterov else 1.0
        after = {name: x * share + adjoint.velocity.get(name, 0.0) for name, x in update.items()}
        before = {name: x * inner.momentum for name, x in after.items()}
        if not inner.nesterov:
            return after, before
        return {name: x + update[name] for name, x in after.items()}, before
