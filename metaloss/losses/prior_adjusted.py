"""Losses that are told of uneven classes from outside: by a shift of the logits, and by weights.

A shift by τ·ln(C·π) is logit adjustment (Menon 2021), a weight of (C·π)^-κ the inverse frequency of
an image's class to a power; π is a class's share of the training images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import (
    Clock,
    Losses,
    TrainingTargets,
    at,
    chosen_weights,
    mean_over_images,
)
from metaloss.losses.surrounding import Surrounding

LogitGradient = Callable[[Float[Tensor, "P T B C"]], Float[Tensor, "P T B C"]]


@runtime_checkable
class Adjustable(Protocol):
    """Losses that can shift logits and weigh images in the loop of their gradient."""

    def adjusted_logit_gradient(
        self, shift: Float[Tensor, "P T 1 C"], importance: Float[Tensor, "P T B"]
    ) -> LogitGradient | None:
        """`logit_gradient` at logits + shift, times the images' importance; None: it cannot."""


@dataclass(frozen=True)
class PriorAdjusted(Surrounding):
    """P losses, each with its own shift and weights.

    Attributes:
        losses: what is adjusted.
        tau: of the shift.
        power: of the weights, κ.
        shift: what is added to the logits; `bind` fills it and the next two.
        importance: the weight of each image's class.
        weight: of the images.
    """

    losses: Losses
    tau: Float[Tensor, " P"]
    power: Float[Tensor, " P"]
    shift: Float[Tensor, "P T 1 C"] | None = None
    importance: Float[Tensor, "P T B"] | None = None
    weight: Float[Tensor, "T B"] | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.tau)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(
            self,
            losses=self.losses[rows],
            tau=self.tau[rows],
            power=self.power[rows],
            shift=None if self.shift is None else self.shift[rows],
            importance=None if self.importance is None else self.importance[rows],
        )

    def bind(self, targets: TrainingTargets) -> Self:
        """The losses for these targets, each with its shift and weights."""
        target = targets.target
        log_prior = targets.shares["logprior"]  # [T C]
        shift = self.tau.to(target)[:, None, None] * log_prior
        of_class = (-self.power.to(target)[:, None, None] * log_prior).exp()
        return replace(
            self,
            losses=self.losses.bind(targets),
            shift=shift[:, :, None],
            # A soft label's weight is the mean of its classes'.
            importance=torch.einsum("tbc,ptc->ptb", target, of_class),
            weight=targets.weight,
        )

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        every = index.expand(len(self), *index.shape)
        return replace(
            self,
            losses=self.losses.minibatch(index),
            importance=self._bound[1].gather(2, every),
            weight=chosen_weights(self.weight, index),
        )

    def at(self, clock: Clock) -> Self:
        """The losses at another point of the training."""
        return replace(self, losses=at(self.losses, clock))

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """The terms of the shifted logits, weighed."""
        shift, importance = self._bound
        return self.losses.terms(logits + shift) * importance[..., None]

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value: its terms summed, then averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if not torch.compiler.is_compiling() and self._adjusted is not None:
            return self._adjusted(logits)
        shift, importance = self._bound
        return self.losses.logit_gradient(logits + shift) * importance[..., None]

    @cached_property
    def _adjusted(self) -> LogitGradient | None:
        losses = self.losses
        if not isinstance(losses, Adjustable):
            return None
        return losses.adjusted_logit_gradient(*self._bound)

    @property
    def _bound(self) -> tuple[Tensor, Tensor]:
        assert self.shift is not None, "bind the targets first"
        assert self.importance is not None
        return self.shift, self.importance
