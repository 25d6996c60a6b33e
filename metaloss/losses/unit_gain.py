"""Losses that are divided by their gains, so that their first gradient is as long as
cross-entropy's and no learning rate hides in them.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import Clock, Losses, TrainingTargets, at
from metaloss.losses.phenotype import gains
from metaloss.losses.surrounding import Surrounding

LEAST = 1e-3  # of a gain: what pulls less at first, or away from the true class, fails


@dataclass(frozen=True)
class UnitGain(Surrounding):
    """P losses, each divided by its gain among the classes that it is bound to.

    Attributes:
        losses: what is divided.
        unbound: the same, of which the gains are asked.
        factor: 1 over the gain, NaN for one below `LEAST`; `bind` fills it.
    """

    losses: Losses
    unbound: Losses
    classes: int = 0
    factor: Float[Tensor, "P 1 1 1"] | None = None

    tasks_per_call: ClassVar[int] = 1

    @classmethod
    def of(cls, losses: Losses) -> Self:
        """These losses, which are not bound yet."""
        return cls(losses, losses)

    def __len__(self) -> int:
        return len(self.losses)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(
            self,
            losses=self.losses[rows],
            unbound=self.unbound[rows],
            factor=None if self.factor is None else self.factor[rows],
        )

    def bind(self, targets: TrainingTargets) -> Self:
        """The losses for these targets, and their gains among as many classes."""
        bound = replace(self, losses=self.losses.bind(targets), classes=targets.target.shape[-1])
        return replace(bound, factor=bound._factor_like(targets.target))

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(self, losses=self.losses.minibatch(index))

    def at(self, clock: Clock) -> Self:
        """The losses at another point of the training."""
        moved = replace(self, losses=at(self.losses, clock), unbound=at(self.unbound, clock))
        # A gain is that of the first step: it depends on the number of steps alone.
        if self.factor is None or clock.logn == self.clock.logn:
            return moved
        return replace(moved, factor=moved._factor_like(self.factor))

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """The terms, divided."""
        return self.losses.terms(logits) * self._bound

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value, divided."""
        return self.losses(logits) * self._bound[:, :, 0, 0]

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        return self.losses.logit_gradient(logits) * self._bound

    def _factor_like(self, like: Tensor) -> Float[Tensor, "P 1 1 1"]:
        gain = gains(self.unbound, self.classes)
        factor = (1 / gain).where(gain >= LEAST, torch.nan)
        return factor.to(like)[:, None, None, None]

    @property
    def _bound(self) -> Float[Tensor, "P 1 1 1"]:
        assert self.factor is not None, "bind the targets first"
        return self.factor
