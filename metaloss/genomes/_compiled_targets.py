"""Learned targets whose gradient is one compiled loop, for a CPU."""

import math
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.genomes._channels import class_count_scale
from metaloss.genomes._compiled_gradient import (
    CompiledGradient,
    by_course,
    filled_adjoint,
    filled_gradient,
)
from metaloss.genomes._targets import Targets, moved_by_cost
from metaloss.losses.prior_adjusted import LogitGradient
from metaloss.losses.written_adjoint import LogitAdjoint


class CompiledTargets(CompiledGradient, Targets):
    """The losses of `Targets`, with a compiled gradient of float32; torch computes all else."""

    kept: ClassVar[tuple[str, ...]] = (*CompiledGradient.kept, "_no_shift", "_fixed_args")

    def adjusted_logit_gradient(
        self, shift: Float[Tensor, "P T 1 C"], importance: Float[Tensor, "P T B"]
    ) -> LogitGradient | None:
        """The gradient at shifted logits, times the images' importance, where it is compiled."""
        if not self._known:
            return None
        return self._gradient_of(shift[:, :, 0], importance * self._share)

    @cached_property
    def _compiled(self) -> LogitGradient:
        return self._gradient_of(self._no_shift, self._share[None])

    @cached_property
    def _no_shift(self) -> Float[Tensor, "1 T C"]:
        return self._y.new_zeros(1, *self._y.shape[:2])

    def _gradient_of(
        self, shift: Float[Tensor, "#P T C"], importance: Float[Tensor, "#P T B"]
    ) -> LogitGradient:
        """The compiled gradient with everything but the logits in place."""
        from metaloss.kernels.losses import targets

        # Of tensors alone: what held these losses would be kept alive by them.
        args = self._kernel_args(shift, importance)
        if self.margin is None or self.cost is None:
            return partial(filled_gradient, targets.logit_gradient, args)
        return partial(gradient_by_cost, args, self.margin, self.cost)

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """The curves; where the clock is seen, also those at the end and their rise."""
        if self.last is None or self.rise is None:
            return (self.curves,)
        return self.curves, self.last, self.rise

    @property
    def writes_adjoint(self) -> bool:
        """Whether a compiled loop computes the adjoint of these losses' gradient."""
        return self._known and self.margin is None

    def logit_gradient_adjoint(
        self, logits: Float[Tensor, "P T B C"], change: Float[Tensor, "P T B C"]
    ) -> LogitAdjoint:
        """The gradient at logits, and the derivatives of its product with a change of these."""
        from metaloss.kernels.losses import targets_adjoint

        by_curves = torch.zeros(self.curves.shape)
        args = self._kernel_args(self._no_shift, self._share[None])
        adjoint = filled_adjoint(
            targets_adjoint.logit_gradient_adjoint, args, logits, change, by_curves.numpy()
        )
        return LogitAdjoint(*adjoint, by_course(by_curves, self.reads_clock, self.clock))

    def _kernel_args(
        self, shift: Float[Tensor, "#P T C"], importance: Float[Tensor, "#P T B"]
    ) -> tuple[Any, ...]:
        """What the loop reads beside the logits."""
        y, knots, reference, factors = self._fixed_args
        curves = self._curves_now.contiguous().numpy()
        moves = (shift.flatten(0, 1).numpy(), importance.flatten(0, 1).numpy())
        return (y, curves, knots, reference, *moves, factors)

    @cached_property
    def _fixed_args(self) -> tuple[Any, ...]:
        """Labels, knots, how log p is read, and the factors of targets."""
        # Without costs there are no factors: 1 for each class of an image.
        none = self._y.new_ones(1, *self._y.shape[1:])
        factors = none if self.factors is None else self.factors.flatten(0, 1)
        arrays = (self._y.numpy(), self.knots.numpy(), factors.contiguous().numpy())
        return (*arrays[:2], self._reference, arrays[2])

    @property
    def _trained_through(self) -> bool:
        numbers = (self.curves, self.last, self.rise, self.margin, self.decay)
        return any(x is not None and x.requires_grad for x in numbers)

    @cached_property
    def _reference(self) -> tuple[Any, ...]:
        """How the compiled loop reads log p, among the reference number of classes."""
        classes = self._y.shape[1]
        reading = torch.tensor(
            [
                -math.log(classes),
                math.log(classes / self.reference_classes),
                class_count_scale(classes, self.reference_classes),
            ]
        )
        return tuple(reading.numpy())


def gradient_by_cost(
    kernel_args: tuple[Any, ...],
    margin: Float[Tensor, " P"],
    cost: Float[Tensor, "T C B"],
    logits: Float[Tensor, "P T B C"],
) -> Float[Tensor, "P T B C"]:
    """The compiled gradient where costs move the logits."""
    from metaloss.kernels.losses import targets

    moved = moved_by_cost(logits, margin, cost)
    return filled_gradient(targets.logit_gradient, kernel_args, moved)
