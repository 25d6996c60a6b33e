"""What losses share whose gradient is one compiled loop, for a CPU."""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor


class CompiledGradient:
    """Losses bound to targets, with a compiled gradient of float32; torch computes all else."""

    target: Float[Tensor, "T C B"] | None
    weight: Float[Tensor, "T B"] | None

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
        y = self._bound_target
        weight = y.new_ones(y.shape[::2]) if self.weight is None else self.weight
        return weight / weight.sum(1, keepdim=True)

    @property
    def _bound_target(self) -> Float[Tensor, "T C B"]:
        assert self.target is not None, "bind the targets first"
        return self.target
