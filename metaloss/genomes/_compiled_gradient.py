"""What losses share whose gradient is one compiled loop, for a CPU."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.kernels import LANES
from metaloss.losses.base import Clock
from metaloss.losses.prior_adjusted import LogitGradient


class CompiledGradient:
    """Losses bound to targets, with a compiled gradient of float32; torch computes all else."""

    target: Float[Tensor, "T C B"] | None
    weight: Float[Tensor, "T B"] | None

    # What is the same at every step of a training: it is made ready once.
    kept: ClassVar[tuple[str, ...]] = ("_known", "_share")

    def at(self, clock: Clock) -> Self:
        """The losses at another point of the training."""
        moved: Self = super().at(clock)  # type: ignore[misc]
        if self.target is not None and self._known:
            moved.__dict__.update({name: getattr(self, name) for name in self.kept})
        return moved

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if torch.compiler.is_compiling() or not self._known:
            by_torch: Tensor = super().logit_gradient(logits)  # type: ignore[misc]
            return by_torch
        return self._compiled(logits)

    @property
    def _compiled(self) -> LogitGradient:
        """The compiled gradient with everything but the logits in place."""
        raise NotImplementedError

    @property
    def _trained_through(self) -> bool:
        """Whether autograd goes through the losses' own numbers, which no compiled loop allows."""
        raise NotImplementedError

    @cached_property
    def _known(self) -> bool:
        """Whether the compiled loop computes these losses."""
        y = self._bound_target
        return y.device.type == "cpu" and y.dtype == torch.float32 and not self._trained_through

    @cached_property
    def _share(self) -> Float[Tensor, "T B"]:
        """The share of each image in the mean over the images."""
        return image_shares(self._bound_target, self.weight)

    @property
    def _bound_target(self) -> Float[Tensor, "T C B"]:
        assert self.target is not None, "bind the targets first"
        return self.target


def filled_gradient(
    kernel: Callable[..., None], kernel_args: tuple[Any, ...], logits: Float[Tensor, "P T B C"]
) -> Float[Tensor, "P T B C"]:
    """The gradient that a compiled loop fills, for losses whose arguments are made ready.

    Args:
        kernel: the loop.
        kernel_args: what it reads beside the logits.
        logits: of the classifiers.
    """
    z = logits.mT.contiguous()
    gradient = torch.empty_like(z)
    before, after = (x.flatten(0, 1).numpy() for x in (z, gradient))
    kernel(before, *kernel_args, LANES, after)
    return gradient.mT


def filled_adjoint(
    kernel: Callable[..., None],
    kernel_args: tuple[Any, ...],
    logits: Float[Tensor, "P T B C"],
    change: Float[Tensor, "P T B C"],
    numbers: Any,
) -> tuple[Float[Tensor, "P T B C"], Float[Tensor, "P T B C"]]:
    """The gradient, and the derivatives by the logits of its product with a change of these.

    Args:
        kernel: the loop.
        kernel_args: what it reads beside the logits and their change.
        logits: of the classifiers.
        change: of these.
        numbers: arrays to which the loop adds the derivatives by the losses' numbers.
    """
    z, v = (x.mT.contiguous() for x in (logits, change))
    gradient, by_logits = torch.empty_like(z), torch.empty_like(z)
    before, moves, *after = (x.flatten(0, 1).numpy() for x in (z, v, gradient, by_logits))
    kernel(before, *kernel_args, LANES, moves, *after, numbers)
    return gradient.mT, by_logits.mT


def image_shares(y: Float[Tensor, "T C B"], weight: Float[Tensor, "T B"] | None) -> Tensor:
    """The share [T B] of each image in the mean over the images; they weigh alike where None."""
    weight = y.new_ones(y.shape[::2]) if weight is None else weight
    return weight / weight.sum(1, keepdim=True)


def by_course(by_now: Tensor, reads_clock: bool, clock: Clock) -> tuple[Tensor, ...]:
    """The derivatives by numbers, from those by what they are at this point of the training.

    Args:
        by_now: by what the numbers are now.
        reads_clock: whether there are numbers at the start, numbers at the end, and a rise; else
            they stay.
        clock: how far the training is.
    """
    if not reads_clock:
        return (by_now,)
    _, steps = clock.centred
    return by_now * (1 - clock.t), by_now * clock.t, by_now * steps
