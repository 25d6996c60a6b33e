"""Polynomials whose gradient is one compiled loop, for a CPU."""

from functools import cached_property, partial
from typing import Any, ClassVar

from metaloss.genomes._compiled_gradient import CompiledGradient, filled_gradient
from metaloss.genomes._polynomials import Polynomials
from metaloss.losses.prior_adjusted import LogitGradient


class CompiledPolynomials(CompiledGradient, Polynomials):
    """The losses of `Polynomials`, with a compiled gradient of float32; torch computes all else."""

    kept: ClassVar[tuple[str, ...]] = (*CompiledGradient.kept, "_by_class")

    @property
    def _trained_through(self) -> bool:
        numbers = (self.point, self.coefficients, self.by_prior)
        return any(x is not None and x.requires_grad for x in numbers)

    @cached_property
    def _compiled(self) -> LogitGradient:
        """The compiled gradient with everything but the logits in place."""
        from metaloss.kernels import polynomials

        # Of arrays alone: what held these losses would be kept alive by them.
        slopes = self._slopes_now.float().contiguous().numpy()
        args = (self._y.numpy(), slopes, *self._by_class, self._share.numpy())
        return partial(filled_gradient, polynomials.logit_gradient, args)

    @cached_property
    def _by_class(self) -> tuple[Any, Any]:
        """What is added to the logits of each class, and what its term counts."""
        none = self._y.new_zeros(self._y.shape[:2])  # [T C], for all losses
        shift = none if self.shift is None else self.shift.flatten(0, 1)[..., 0]
        importance = none + 1 if self.importance is None else self.importance.flatten(0, 1)[..., 0]
        return shift.contiguous().numpy(), importance.contiguous().numpy()
