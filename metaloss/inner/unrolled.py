"""The gradient of validation cross-entropy through whole trainings, with respect to the losses.

Reverse mode, exact, step by step. A step of gradient descent takes the parameters θ to
θ' = θ - rate · Jᵀ G(z; φ), with z the logits of the images that it sees, J their derivative by θ
and G the loss's gradient at them, a function of the loss's numbers φ. Where λ is the adjoint of θ',
and d = -rate · λ, the adjoints of θ and φ get the derivatives of <J d, G(z; φ)> with d held fixed:
the change of the logits along d, times G. Autograd takes them; nothing is kept of a step but θ.
Momentum, Nesterov and L2 decay only change d, and what of it is handed on.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import Bound, Classifier, Params, Reversible
from metaloss.inner.followed_losses import FollowedLosses
from metaloss.inner.loop import Inner, batches
from metaloss.inner.optimisers import Sgd
from metaloss.inner.unrolled_steps import Adjoint, UnrolledTraining
from metaloss.losses.base import Clock, Losses, TrainingTargets

MEMORY = 1 << 30  # bytes of parameters that are kept, where nothing else is said


class ValidationGradient(NamedTuple):
    """What `validation_gradient` gives.

    Attributes:
        value: the validation cross-entropy of every training.
        gradient: of every candidate's sum over its tasks, by its numbers.
    """

    value: Float[Tensor, "P T"]
    gradient: Float[Tensor, "P D"]


def validation_gradient(
    losses: Callable[[Float[Tensor, "P D"]], Losses],
    vectors: Float[Tensor, "P D"],
    model: Classifier,
    bound: Bound,
    tasks: Tasks,
    *,
    inner: Inner,
    lr: float | None = None,
    keys: Sequence[Stream] = (),
    block: int,
    memory: int = MEMORY,
    stop: Callable[[], bool] = lambda: False,
) -> ValidationGradient:
    """The gradient of validation cross-entropy after trainings, by the numbers of their losses.

    Each candidate is trained from the same start as its neighbours on each task, as `train` does
    it. Nothing mixes candidates: where a training of one diverges, its own gradient is NaN.

    Args:
        losses: from numbers to losses, through which autograd goes.
        vectors: the numbers of P candidates.
        model: the stacked classifier; `Reversible`.
        bound: the tasks as the classifier wants them, and its start.
        tasks: T tasks.
        inner: the optimiser's settings, SGD's.
        lr: the learning rate; the family's own where None.
        keys: one per task, for its order of images; needed for minibatches only.
        block: how many validation images to look at at once.
        memory: bytes that parameters kept for the way back may take; where those of all steps take
            more, some are kept, and the steps between them are made again.
        stop: asked before every step; True drops the work and raises `Interrupted`.

    Raises:
        ValueError: the classifier or the optimiser allows no such gradient.
    """
    if not isinstance(model, Reversible) or not inner.linear:
        raise ValueError(f"no gradient goes through {type(model).__name__} and '{inner.optimiser}'")
    images = tasks.train
    like = next(iter(bound.start.values()))
    targets = TrainingTargets(
        images.target.to(like), images.weight, images.class_counts, tasks.costs
    )
    order = batches(len(bound.train), inner, keys, like.device, images.count, images.choices)
    training = UnrolledTraining(
        FollowedLosses.of(losses, vectors, targets, Clock.of(0, inner.steps)),
        model,
        bound.train,
        inner,
        inner.lr if lr is None else lr,
        list(order),
        stop,
    )
    params = bound.init(len(vectors))
    with torch.no_grad():
        path = _Path.walked(training, params, kept_every(inner.steps, _bytes(params), memory))
        value, adjoint = _validated(model, path.end, bound.val, tasks, block)
        return ValidationGradient(value, path.back(adjoint))


def kept_every(steps: int, size: int, memory: int) -> int:
    """Between how many steps parameters are kept: all of them, where they fit the memory.

    Else about √steps: then there are as many of those as of the steps between two.

    Args:
        steps: of a training.
        size: of the parameters, in bytes.
        memory: in bytes.
    """
    return steps if steps * size <= memory else math.ceil(math.sqrt(steps))


def _bytes(params: Params) -> int:
    return sum(x.numel() * x.element_size() for x in params.values())


@dataclass(frozen=True)
class _Path:
    """The states of a training, or some of them, from which the others are made again.

    Attributes:
        training: its steps.
        segments: the numbers of the steps between two states that are kept.
        starts: the state before each segment but the last: parameters and optimiser.
        last: the parameters before each step of the last segment.
        end: the parameters after the training.
    """

    training: UnrolledTraining
    segments: list[range]
    starts: list[tuple[Params, Sgd]]
    last: list[Params]
    end: Params

    @classmethod
    def walked(cls, training: UnrolledTraining, params: Params, every: int) -> "_Path":
        """Train, with the states before every so many steps kept.

        Args:
            training: the steps.
            params: at the start; they are overwritten.
            every: of so many steps the state before the first is kept, of the last ones all.
        """
        optimiser = training.inner.start()
        assert isinstance(optimiser, Sgd)
        steps = training.inner.steps
        segments = [range(i, min(i + every, steps)) for i in range(0, steps, every)]
        starts = []
        for segment in segments[:-1]:
            starts.append((_copy(params), copy.deepcopy(optimiser)))
            for _ in training.walk(segment, params, optimiser):
                pass
        last = _kept(training, segments[-1], params, optimiser)
        return cls(training, segments, starts, last, params)

    def back(self, adjoint: Adjoint) -> Float[Tensor, "P D"]:
        """The gradient by the losses' numbers, from the adjoint of the last state.

        The states are used up.
        """
        totals: list[Tensor] = []
        states = self.last
        for segment in reversed(self.segments):
            if segment != self.segments[-1]:
                states = _kept(self.training, segment, *self.starts.pop())
            for number in reversed(segment):
                adjoint, by_step = self.training.step_back(number, states.pop(), adjoint)
                # In float64: so many steps are summed up.
                parts = [part.double() for part in by_step]
                totals = list(map(torch.add, totals, parts)) if totals else parts
        return self.training.losses.by_vectors(totals)


def _kept(
    training: UnrolledTraining, segment: range, params: Params, optimiser: Sgd
) -> list[Params]:
    """The parameters before each of some steps, which are made."""
    return [_copy(params) for _ in training.walk(segment, params, optimiser)]


def _copy(params: Params) -> Params:
    return {name: x.clone() for name, x in params.items()}


def _validated(
    model: Reversible, params: Params, val: Any, tasks: Tasks, block: int
) -> tuple[Float[Tensor, "P T"], Adjoint]:
    """Every classifier's mean cross-entropy on its validation images, and its gradient.

    Args:
        model: the classifier.
        params: its parameters.
        val: the validation images.
        tasks: their labels.
        block: how many images at once.
    """
    total = {name: torch.zeros_like(x) for name, x in params.items()}
    values: list[Float[Tensor, "P T"]] = []

    def slope(logits: Tensor) -> Tensor:
        logp = logits.mT.log_softmax(-2)  # [P T C V]
        index = label.expand(len(logp), -1, -1)[:, :, None]
        values.append(-logp.gather(2, index).sum((2, 3)) / len(val))
        share = torch.full_like(index, 1, dtype=logp.dtype)
        return logp.exp_().scatter_add_(2, index, -share).div_(len(val)).mT

    for first in range(0, len(val), block):
        images = slice(first, first + block)
        label = tasks.val.label[:, images]
        for name, x in model.adjoint(params, val.block(images), slope).items():
            total[name] += x
    return torch.stack(values).sum(0), Adjoint(total)
