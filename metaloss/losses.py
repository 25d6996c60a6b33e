"""What a loss is inside the engine: P losses at once, row p seeing only row p of the logits."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Losses(Protocol):
    """P losses, evaluated together."""

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Prepare what depends on the targets alone, once per generation."""

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """What each image's value is the sum of: one term per class (K = C), or one in all (K = 1)."""

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value under its own loss: terms summed, then averaged over the batch."""

    def __len__(self) -> int:
        """P."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Some of the losses."""


def one_hot(label: Int[Tensor, "..."], classes: int) -> Float[Tensor, "... C"]:
    """Hard labels as distributions."""
    return torch.nn.functional.one_hot(label, classes).float()


@dataclass(frozen=True)
class CrossEntropies:
    """P cross-entropies -Σ_c y_c log p_c with label smoothing (Szegedy 2016): the baselines, as one population."""

    smoothing: Float[Tensor, " P"]
    target: Float[Tensor, "#P T B C"] | None = None

    @classmethod
    def of(cls, n: int, smoothing: float = 0.0) -> Self:
        """The same loss n times, as a grid of learning rates needs it."""
        return cls(torch.full((n,), smoothing))

    def __len__(self) -> int:
        return len(self.smoothing)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        target = self.target if self.target is None or len(self.target) == 1 else self.target[rows]
        return type(self)(self.smoothing[rows], target)

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Smooth the targets, y' = (1-s) y + s/C."""
        s = self.smoothing.to(target)[:, None, None, None]
        return type(self)(self.smoothing, (1 - s) * target + s / target.shape[-1])

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """-y'_c log p_c."""
        assert self.target is not None, "bind the targets first"
        return -self.target * logits.log_softmax(-1)

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The mean over the batch of -Σ_c y'_c log p_c."""
        return self.terms(logits).sum(-1).mean(-1)
