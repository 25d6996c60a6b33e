"""Learned targets whose gradient is one compiled loop, for a CPU."""

import math
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.genomes._channels import class_count_scale
from metaloss.genomes._targets import Targets


class CompiledTargets(Targets):
    """The losses of `Targets`, with a compiled gradient of float32; torch computes all else."""

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if not self._known:
            return super().logit_gradient(logits)
        return self._compiled(logits, logits.new_zeros(self._y.shape[:2]), self._share)

    def adjusted_logit_gradient(
        self,
        logits: Float[Tensor, "P T B C"],
        shift: Float[Tensor, "P T 1 C"],
        importance: Float[Tensor, "P T B"],
    ) -> Float[Tensor, "P T B C"]:
        """The gradient at shifted logits, times the images' importance."""
        if not self._known:
            return super().logit_gradient(logits + shift) * importance[..., None]
        every = (importance * self._share).flatten(0, 1)
        return self._compiled(logits, shift[:, :, 0].flatten(0, 1), every)

    def _compiled(
        self, logits: Float[Tensor, "P T B C"], shift: Tensor, importance: Tensor
    ) -> Float[Tensor, "P T B C"]:
        from metaloss.kernels import targets

        z = logits.mT.contiguous()
        gradient = torch.empty_like(z)
        targets.logit_gradient(
            z.flatten(0, 1).numpy(),
            self._y.numpy(),
            self.curves.contiguous().numpy(),
            self.knots.numpy(),
            self._reference,
            shift.contiguous().numpy(),
            importance.contiguous().numpy(),
            targets.LANES,
            gradient.flatten(0, 1).numpy(),
        )
        return gradient.mT

    @property
    def _known(self) -> bool:
        """Whether the compiled loop computes these losses."""
        y = self._y
        return (
            y.device.type == "cpu"
            and y.dtype == torch.float32
            and not self.curves.requires_grad
            and not torch.compiler.is_compiling()
        )

    @cached_property
    def _share(self) -> Float[Tensor, "T B"]:
        """The share of each image in the mean over the images."""
        weight = self._y.new_ones(self._y.shape[::2]) if self.weight is None else self.weight
        return weight / weight.sum(1, keepdim=True)

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
