"""What a loss is inside the engine: P losses at once, row p seeing only row p of the logits.

Logits are [P T B C] and lie class by class in memory (`logits.mT` is contiguous): what runs over
the classes then runs along long rows, several times faster than along the ten numbers of one image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.errors import SettingsError
from metaloss.losses.clock import DEFAULT_LOGN, HALFWAY, clock_terminals
from metaloss.losses.costs import image_costs
from metaloss.losses.prior import class_terminals


@dataclass(frozen=True)
class Clock:
    """How far a training is, in numbers or in tensors of one number.

    Attributes:
        t: the share of the steps that is done, 0 at the first step.
        logn: the natural logarithm of the number of steps.
    """

    t: float | Tensor = HALFWAY
    logn: float | Tensor = DEFAULT_LOGN

    @classmethod
    def of(cls, step: int, steps: int) -> Self:
        """The clock at a step, counted from 0."""
        return cls(*clock_terminals(step, steps))

    def to(self, like: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """`t` and `logn` as tensors of this kind."""
        t, logn = (
            x.to(like) if isinstance(x, Tensor) else like.new_tensor(x) for x in (self.t, self.logn)
        )
        return t, logn

    @property
    def centred(self) -> tuple[float | Tensor, float | Tensor]:
        """t - 1/2 and ln(N/50)/4 for N steps: 0 at the default, within about ±1/2 for 7 to 370."""
        return self.t - HALFWAY, (self.logn - DEFAULT_LOGN) / 4


@dataclass(frozen=True)
class TrainingTargets:
    """What a loss may see of the images that a classifier trains on, for T tasks.

    Attributes:
        target: the labels as distributions over the classes.
        weight: how much each image counts in a mean over images, at least one of a task above 0;
            an image of weight 0 pads a task, and has neither value nor gradient. None: all alike.
        counts: images of each class among all that the training sees, never those of a minibatch
            alone; None: even classes.
        costs: what each answer (column) costs for each true class (row), as `relative_costs` gives
            it; None: all mistakes cost alike.
    """

    target: Float[Tensor, "T B C"]
    weight: Float[Tensor, "T B"] | None = None
    counts: Float[Tensor, "T C"] | None = None
    costs: Float[Tensor, "T C C"] | None = None

    @property
    def cost(self) -> Float[Tensor, "T B C"]:
        """What expressions read of the costs, `cost`: of each class as the answer."""
        costs = None if self.costs is None else self.costs.to(self.target)
        return image_costs(self.target, costs)

    @property
    def shares(self) -> dict[str, Float[Tensor, "T C"]]:
        """What expressions read of the images of each class: `prior`, `logprior`, `count`."""
        if self.counts is None:
            return class_terminals(self.target.new_ones(self.target.shape[::2]))
        return class_terminals(self.counts.to(self.target))


class Losses(Protocol):
    """P losses, evaluated together."""

    # Tasks that a call should have, where there are as many, to spread over what it costs.
    tasks_per_call: ClassVar[int]

    def bind(self, targets: TrainingTargets) -> Self:
        """Prepare what depends on the targets alone, once per generation."""

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for some images of every task: a minibatch."""

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """The terms whose sum is an image's value: one per class (K = C), or one in all (K = 1).

        Raises:
            SettingsError: the loss reads a whole batch, so that no image has a value of its own.
        """

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value under its own loss.

        Terms are summed, then averaged over the batch, each image by its weight, unless the loss
        reads a whole batch.
        """

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each classifier's value with respect to its logits.

        It is all that the inner loop needs of a loss. Where the losses' own numbers require a
        gradient, autograd goes through it, to them and to the logits.
        """

    def __len__(self) -> int:
        """The number of losses P."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Return the losses of these rows."""


class ClockLosses(Losses, Protocol):
    """Losses that may see how far the training is; others say nothing of it."""

    @property
    def reads_clock(self) -> bool:
        """Whether one of them does."""

    @property
    def clock(self) -> Clock:
        """How far the training is."""

    def at(self, clock: Clock) -> Self:
        """The losses, bound or not, at another point of the training."""


def reads_clock(losses: Losses) -> TypeGuard[ClockLosses]:
    """Whether losses depend on how far the training is."""
    return bool(getattr(losses, "reads_clock", False))


def at(losses: Losses, clock: Clock) -> Losses:
    """Losses at another point of the training; those that see nothing of it as they are."""
    return losses.at(clock) if reads_clock(losses) else losses


class PastLosses(Losses, Protocol):
    """Losses that may see what was predicted for each image before; others say nothing of it."""

    @property
    def reads_past(self) -> bool:
        """Whether one of them does."""

    def after(self, logits: Float[Tensor, "P T B C"]) -> Self:
        """The bound losses after these predictions for all images, as the next step has them."""


def reads_past(losses: Losses) -> TypeGuard[PastLosses]:
    """Whether losses depend on what was predicted for each image before."""
    return bool(getattr(losses, "reads_past", False))


def past_refused(name: str, obstacle: str) -> SettingsError:
    """What to raise where a loss reads `past` and a family or training cannot show it."""
    return SettingsError(
        f"{name} has {obstacle}, and then no loss can see what was predicted for an image before: "
        "leave it out, or take a loss without `past`"
    )


def after(losses: Losses, logits: Float[Tensor, "P T B C"]) -> Losses:
    """Losses after these predictions; those that see nothing of them as they are."""
    return losses.after(logits) if reads_past(losses) else losses


def one_hot(label: Int[Tensor, "..."], classes: int) -> Float[Tensor, "... C"]:
    """Hard labels as distributions."""
    return torch.nn.functional.one_hot(label, classes).float()


def log_softmax(logits: Float[Tensor, "... B C"]) -> Float[Tensor, "... B C"]:
    """Log-probabilities, in the memory order that the engine's logits have."""
    # Not softmax and then log: a probability that underflows would become -inf.
    return logits.mT.log_softmax(-2).mT


def images(x: Float[Tensor, "... T B C"], index: Int[Tensor, "T b"]) -> Float[Tensor, "... T b C"]:
    """Some images of every task, class by class in memory."""
    # [... T C B]: one index per task serves all candidates and classes, without a copy.
    x = x.mT
    return x.gather(-1, index[:, None].expand(*x.shape[:-1], index.shape[1])).mT


def chosen_weights(
    weight: Float[Tensor, "T B"] | None, index: Int[Tensor, "T b"]
) -> Float[Tensor, "T b"] | None:
    """The weights of some images of every task."""
    return None if weight is None else weight.gather(1, index)


def mean_over_images(
    value: Float[Tensor, "P T B"], weight: Float[Tensor, "T B"] | None
) -> Float[Tensor, "P T"]:
    """The mean of the images' values, each counted by its weight."""
    if weight is None:
        return value.mean(-1)
    # Selected, not multiplied by 0: an image that pads a task may have an infinite value.
    return (value * weight).where(weight > 0, 0).sum(-1) / weight.sum(-1)


def weigh_images(
    gradient: Float[Tensor, "P T B C"], weight: Float[Tensor, "T B"] | None
) -> Float[Tensor, "P T B C"]:
    """The gradient of `mean_over_images`, from that of the plain mean, in its memory."""
    if weight is None:
        return gradient
    # Of the plain mean an image has a share of 1/B, of the other w/Σw.
    factor = weight * (weight.shape[1] / weight.sum(1, keepdim=True))
    gradient = gradient.mul_(factor[..., None])
    # Selected as well: what is not finite times 0 would be NaN.
    return gradient.masked_fill_((weight == 0)[..., None], 0)


def logit_gradient_by_autograd(
    losses: Callable[[Tensor], Tensor], logits: Float[Tensor, "P T B C"], create_graph: bool = False
) -> Float[Tensor, "P T B C"]:
    """`losses.logit_gradient`, for losses that do not write down their own.

    With a graph it is differentiable in the losses' parameters, and in logits that require it.
    """
    # The inner loop runs without gradients; here a graph is needed.
    with torch.enable_grad():
        followed = create_graph and logits.requires_grad
        leaf = logits if followed else logits.detach().requires_grad_()
        # Classifier (p, t) reaches only value (p, t), so the sum's gradient is each one's own.
        # `materialize_grads`: zeros, not None, where a value does not depend on the logits.
        (gradient,) = torch.autograd.grad(
            losses(leaf).sum(), leaf, materialize_grads=True, create_graph=create_graph
        )
    return gradient


@dataclass(frozen=True)
class CrossEntropies:
    """P cross-entropies -Σ_c y_c log p_c with label smoothing (Szegedy 2016).

    They are the baselines, as one population.
    """

    smoothing: Float[Tensor, " P"]
    target: Float[Tensor, "#P T B C"] | None = None
    weight: Float[Tensor, "T B"] | None = None

    tasks_per_call: ClassVar[int] = 1

    @classmethod
    def of(cls, n: int, smoothing: float = 0.0) -> Self:
        """The same loss n times, as a grid of learning rates needs it."""
        return cls(torch.full((n,), smoothing))

    def __len__(self) -> int:
        return len(self.smoothing)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        # A target of one row belongs to all losses (`#P`), and is not cut.
        target = self.target if self.target is None or len(self.target) == 1 else self.target[rows]
        return replace(self, smoothing=self.smoothing[rows], target=target)

    def bind(self, targets: TrainingTargets) -> Self:
        """Smooth the targets, y' = (1-s) y + s/C."""
        target = targets.target
        s = self.smoothing.to(target)[:, None, None, None]
        # Class by class in memory, as the logits are, so that both are read along long rows.
        smoothed = (1 - s) * target.mT.contiguous().mT + s / target.shape[-1]
        return replace(self, target=smoothed, weight=targets.weight)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(
            self, target=images(self._bound, index), weight=chosen_weights(self.weight, index)
        )

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """-y'_c log p_c."""
        return -self._bound * log_softmax(logits)

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The mean over the batch of -Σ_c y'_c log p_c."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """(p Σ_c y'_c - y') / B."""
        if self._compiles(logits):
            return self._compiled_gradient(logits)
        # [P T C B]; y may have one row for all P.
        y = self._bound.mT
        p = logits.mT.softmax(-2)
        # In place: p is a fresh tensor, and another one of its size costs time.
        gradient = p.mul_(y.sum(-2, keepdim=True)).sub_(y).div_(logits.shape[2]).mT
        return weigh_images(gradient, self.weight)

    @property
    def _bound(self) -> Tensor:
        assert self.target is not None, "bind the targets first"
        return self.target

    def _compiles(self, logits: Float[Tensor, "P T B C"]) -> bool:
        """Whether the gradient is one compiled loop: of float32 on a CPU, without a graph."""
        return (
            self._kernel_args != ()
            and (logits.device.type, logits.dtype) == ("cpu", torch.float32)
            and not logits.requires_grad
            and not torch.compiler.is_compiling()
        )

    @cached_property
    def _kernel_args(self) -> tuple[Any, ...]:
        """The targets and the share of each image as the compiled loop reads them."""
        y = self._bound
        known = (y.device.type, y.dtype) == ("cpu", torch.float32) and not y.requires_grad
        if not known or not kernels.available():
            return ()
        weight = y.new_ones(1, y.shape[2]) if self.weight is None else self.weight
        share = weight / weight.sum(1, keepdim=True)
        return y.mT.contiguous().flatten(0, 1).numpy(), share.numpy()

    def _compiled_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The same in one pass."""
        from metaloss.kernels.losses import cross_entropy

        z = logits.mT.contiguous()
        gradient = torch.empty_like(z)
        before, after = (x.flatten(0, 1).numpy() for x in (z, gradient))
        cross_entropy.logit_gradient(before, *self._kernel_args, after)
        return gradient.mT
