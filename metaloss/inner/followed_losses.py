"""Losses whose trainings gradients go through, to the losses' numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.losses.base import Clock, Losses, TrainingTargets, at
from metaloss.losses.written_adjoint import LogitAdjoint, WrittenAdjoint, adjoint_by_autograd


@dataclass(frozen=True)
class FollowedLosses:
    """P losses, and how the derivatives by what they compute with lead to their numbers.

    Attributes:
        plain: the bound losses.
        followed: the same ones, in the graph of their numbers.
        vectors: those numbers.
        written: whether they write the adjoint of their gradient down.
    """

    plain: Losses
    followed: Losses
    vectors: Float[Tensor, "P D"]
    written: bool

    @classmethod
    def of(
        cls,
        losses: Callable[[Float[Tensor, "P D"]], Losses],
        vectors: Float[Tensor, "P D"],
        targets: TrainingTargets,
        clock: Clock,
    ) -> Self:
        """The losses with these numbers.

        Args:
            losses: from numbers to losses, through which autograd goes.
            vectors: the numbers.
            targets: what the losses are bound to.
            clock: of the first step.
        """
        leaf = vectors.detach().clone().requires_grad_()
        plain = at(losses(leaf.detach()).bind(targets), clock)
        with torch.enable_grad():
            followed = at(losses(leaf).bind(targets), clock)
        written = isinstance(plain, WrittenAdjoint) and plain.writes_adjoint
        return cls(plain, followed, leaf, written)

    @property
    def on_the_way_back(self) -> Losses:
        """Those that `adjoint` is asked with."""
        return self.plain if self.written else self.followed

    def adjoint(
        self, losses: Losses, logits: Float[Tensor, "P T B C"], change: Float[Tensor, "P T B C"]
    ) -> LogitAdjoint:
        """The gradient at logits, and the derivatives of its product with a change of these.

        Args:
            losses: those `on_the_way_back`, at one step.
            logits: of the classifiers.
            change: of these.
        """
        if self.written:
            assert isinstance(losses, WrittenAdjoint)
            return losses.logit_gradient_adjoint(logits, change)
        return adjoint_by_autograd(losses, self.vectors, logits, change)

    def by_vectors(self, by_numbers: Sequence[Tensor]) -> Float[Tensor, "P D"]:
        """The derivatives by the losses' numbers, from the sums of what `adjoint` gave."""
        if not self.written:
            (by_vectors,) = by_numbers
            return by_vectors
        with torch.enable_grad():
            assert isinstance(self.followed, WrittenAdjoint)
            pairs = zip(self.followed.numbers, by_numbers, strict=True)
            parts = [(x, grad.to(x)) for x, grad in pairs if x.requires_grad]
            numbers, gradients = zip(*parts, strict=True)
            (total,) = torch.autograd.grad(
                numbers,
                self.vectors,
                gradients,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return total
