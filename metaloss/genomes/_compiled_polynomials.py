"""Polynomials whose gradient is one compiled loop, for a CPU."""

from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.genomes._compiled_gradient import (
    CompiledGradient,
    by_course,
    filled_adjoint,
    filled_gradient,
)
from metaloss.genomes._polynomials import Polynomials
from metaloss.losses.prior_adjusted import LogitGradient
from metaloss.losses.written_adjoint import LogitAdjoint


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
        from metaloss.kernels.losses import polynomials

        # Of arrays alone: what held these losses would be kept alive by them.
        return partial(filled_gradient, polynomials.logit_gradient, self._kernel_args)

    @property
    def _kernel_args(self) -> tuple[Any, ...]:
        """What the compiled loops read beside the logits."""
        slopes = self._slopes_now.float().contiguous().numpy()
        return (self._y.numpy(), slopes, *self._by_class, self._share.numpy())

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """The coefficients of the derivative, in one set or in three."""
        assert self.slopes is not None, "bind the targets first"
        return self.slopes.unbind(1)

    @property
    def writes_adjoint(self) -> bool:
        """Whether a compiled loop computes the adjoint of these losses' gradient."""
        return self._known and self.by_prior is None

    def logit_gradient_adjoint(
        self, logits: Float[Tensor, "P T B C"], change: Float[Tensor, "P T B C"]
    ) -> LogitAdjoint:
        """The gradient at logits, and the derivatives of its product with a change of these."""
        from metaloss.kernels.losses import polynomials_adjoint

        by_slopes = torch.zeros(self._slopes_now.shape)
        adjoint = filled_adjoint(
            polynomials_adjoint.logit_gradient_adjoint,
            self._kernel_args,
            logits,
            change,
            by_slopes.numpy(),
        )
        return LogitAdjoint(*adjoint, by_course(by_slopes, self.reads_clock, self.clock))

    @cached_property
    def _by_class(self) -> tuple[Any, Any]:
        """What is added to the logits of each class, and what its term counts."""
        none = self._y.new_zeros(self._y.shape[:2])  # [T C], for all losses
        shift = none if self.shift is None else self.shift.flatten(0, 1)[..., 0]
        importance = none + 1 if self.importance is None else self.importance.flatten(0, 1)[..., 0]
        return shift.contiguous().numpy(), importance.contiguous().numpy()
