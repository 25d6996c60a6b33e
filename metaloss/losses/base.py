"""What a loss is inside the engine: P losses at once, row p seeing only row p of the logits.

Logits are [P T B C] and lie class by class in memory (`logits.mT` is contiguous): what runs over
the classes then runs along long rows, several times faster than along the ten numbers of one image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Losses(Protocol):
    """P losses, evaluated together."""

    # Tasks that a call should have, where there are as many, to spread over what it costs.
    tasks_per_call: ClassVar[int]

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Prepare what depends on the targets alone, once per generation."""

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for some images of every task: a minibatch."""

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """The terms whose sum is an image's value: one per class (K = C), or one in all (K = 1)."""

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value under its own loss.

        Terms are summed, then averaged over the batch.
        """

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each classifier's value with respect to its logits.

        It is all that the inner loop needs of a loss.
        """

    def __len__(self) -> int:
        """P."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Return some of the losses."""


def one_hot(label: Int[Tensor, "..."], classes: int) -> Float[Tensor, "... C"]:
    """Hard labels as distributions."""
    return torch.nn.functional.one_hot(label, classes).float()


def log_softmax(logits: Float[Tensor, "... B C"]) -> Float[Tensor, "... B C"]:
    """Log-probabilities, in the memory order that the engine's logits have."""
    # Not softmax and then log: a probability that underflows would become -inf.
    return logits.mT.log_softmax(-2).mT


def images(x: Float[Tensor, "... T B C"], index: Int[Tensor, "T b"]) -> Float[Tensor, "... T b C"]:
    """Some images of every task, class by class in memory."""
    # [... T C B]: one index per task serves all candidates and classes, without a copy.
    x = x.mT
    return x.gather(-1, index[:, None].expand(*x.shape[:-1], index.shape[1])).mT


def logit_gradient_by_autograd(
    losses: Callable[[Tensor], Tensor], logits: Float[Tensor, "P T B C"], create_graph: bool = False
) -> Float[Tensor, "P T B C"]:
    """`losses.logit_gradient`, for losses that do not write down their own.

    With a graph it is differentiable in the losses' parameters.
    """
    # The inner loop runs without gradients; here a graph is needed.
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        # Classifier (p, t) reaches only value (p, t), so the sum's gradient is each one's own.
        # `materialize_grads`: zeros, not None, where a value does not depend on the logits.
        (gradient,) = torch.autograd.grad(
            losses(leaf).sum(), leaf, materialize_grads=True, create_graph=create_graph
        )
    return gradient


@dataclass(frozen=True)
class CrossEntropies:
    """P cross-entropies -Σ_c y_c log p_c with label smoothing (Szegedy 2016).

    They are the baselines, as one population.
    """

    smoothing: Float[Tensor, " P"]
    target: Float[Tensor, "#P T B C"] | None = None

    tasks_per_call: ClassVar[int] = 1

    @classmethod
    def of(cls, n: int, smoothing: float = 0.0) -> Self:
        """The same loss n times, as a grid of learning rates needs it."""
        return cls(torch.full((n,), smoothing))

    def __len__(self) -> int:
        return len(self.smoothing)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        # A target of one row belongs to all losses (`#P`), and is not cut.
        target = self.target if self.target is None or len(self.target) == 1 else self.target[rows]
        return type(self)(self.smoothing[rows], target)

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Smooth the targets, y' = (1-s) y + s/C."""
        s = self.smoothing.to(target)[:, None, None, None]
        # Class by class in memory, as the logits are, so that both are read along long rows.
        return replace(self, target=(1 - s) * target.mT.contiguous().mT + s / target.shape[-1])

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(self, target=images(self._bound, index))

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """-y'_c log p_c."""
        return -self._bound * log_softmax(logits)

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The mean over the batch of -Σ_c y'_c log p_c."""
        return self.terms(logits).sum(-1).mean(-1)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """(p Σ_c y'_c - y') / B."""
        # [P T C B]; y may have one row for all P.
        y = self._bound.mT
        p = logits.mT.softmax(-2)
        # In place: p is a fresh tensor, and another one of its size costs time.
        return p.mul_(y.sum(-2, keepdim=True)).sub_(y).div_(logits.shape[2]).mT

    @property
    def _bound(self) -> Tensor:
        assert self.target is not None, "bind the targets first"
        return self.target
