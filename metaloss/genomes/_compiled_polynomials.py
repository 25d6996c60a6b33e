"""Polynomials whose gradient is one compiled loop, for a CPU."""

from functools import cached_property, partial
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.genomes._compiled_gradient import CompiledGradient
from metaloss.genomes._polynomials import Polynomials
from metaloss.kernels import LANES
from metaloss.losses.base import Clock
from metaloss.losses.prior_adjusted import LogitGradient

# What is the same at every step of a training: it is made ready once.
_KEPT = ("_known", "_share", "_by_class")


class CompiledPolynomials(CompiledGradient, Polynomials):
    """The losses of `Polynomials`, with a compiled gradient of float32; torch computes all else."""

    def at(self, clock: Clock) -> Self:
        """The losses at another point of the training."""
        moved = super().at(clock)
        if self.target is not None and self._known:
            moved.__dict__.update({name: getattr(self, name) for name in _KEPT})
        return moved

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if torch.compiler.is_compiling() or not self._known:
            return super().logit_gradient(logits)
        return self._compiled(logits)

    @property
    def _trained_through(self) -> bool:
        numbers = (self.point, self.coefficients, self.by_prior)
        return any(x is not None and x.requires_grad for x in numbers)

    @cached_property
    def _compiled(self) -> LogitGradient:
        """The compiled gradient with everything but the logits in place."""
        # Of arrays alone: what held these losses would be kept alive by them.
        slopes = self._slopes_now.float().contiguous().numpy()
        return partial(
            _logit_gradient, (self._y.numpy(), slopes, *self._by_class, self._share.numpy())
        )

    @cached_property
    def _by_class(self) -> tuple[Any, Any]:
        """What is added to the logits of each class, and what its term counts."""
        none = self._y.new_zeros(self._y.shape[:2])  # [T C], for all losses
        shift = none if self.shift is None else self.shift.flatten(0, 1)[..., 0]
        importance = none + 1 if self.importance is None else self.importance.flatten(0, 1)[..., 0]
        return shift.contiguous().numpy(), importance.contiguous().numpy()


def _logit_gradient(
    kernel_args: tuple[Any, ...], logits: Float[Tensor, "P T B C"]
) -> Float[Tensor, "P T B C"]:
    """The compiled gradient of losses whose arguments are made ready."""
    from metaloss.kernels import polynomials

    z = logits.mT.contiguous()
    gradient = torch.empty_like(z)
    before, after = (x.flatten(0, 1).numpy() for x in (z, gradient))
    polynomials.logit_gradient(before, *kernel_args, LANES, after)
    return gradient.mT
