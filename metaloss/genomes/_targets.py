"""Cross-entropies whose targets follow the prediction, as torch computes them."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import class_count_scale
from metaloss.losses.base import (
    TrainingTargets,
    chosen_weights,
    images,
    log_softmax,
    mean_over_images,
    weigh_images,
)


@dataclass(frozen=True)
class Targets:
    """P cross-entropies -Σ_c q_c log p_c against targets q that follow the prediction."""

    curves: Float[Tensor, "P 3 K"]
    knots: Float[Tensor, " K"]  # logarithms of probabilities
    reference_classes: int
    target: Float[Tensor, "T C B"] | None = None
    weight: Float[Tensor, "T B"] | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.curves)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(self, curves=self.curves[rows])

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep the labels, class by class in memory."""
        target = targets.target
        return replace(
            self,
            curves=self.curves.to(target),
            knots=self.knots.to(target),
            target=target.mT.contiguous(),
            weight=targets.weight,
        )

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(
            self,
            target=images(self._y.mT, index).mT.contiguous(),
            weight=chosen_weights(self.weight, index),
        )

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """-q_c log p_c; no gradient goes through q."""
        logp = log_softmax(logits).mT
        # A masked class has log p = -inf: neither the label's share of 0 nor a target of 0 may meet
        # it.
        q = self._q(logp.detach().clamp(min=torch.finfo(logp.dtype).min))
        return -(q * logp.masked_fill(q == 0, 0)).mT

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum over the classes, averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """(p Σ_c q_c - q) / B."""
        logp = log_softmax(logits).mT
        q = self._q(logp)
        gradient = logp.exp().mul_(q.sum(-2, keepdim=True)).sub_(q).div_(logits.shape[2]).mT
        return weigh_images(gradient, self.weight)

    def _q(self, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """Every class's target; a soft label mixes that of the true class and that of another."""
        y, (_, T, C, B) = self._y, logp.shape
        u = at_home(logp, self.reference_classes)
        # Curve 1 is read at each class's own probability, curves 0 and 2 at the true class's.
        by_own_class = self._along(u.flatten(1), self.curves[:, 1:2]).unflatten(2, (T, C, B))[:, 0]
        by_true_class = self._along((u * y).sum(-2).flatten(1), self.curves[:, ::2]).unflatten(
            2, (T, 1, B)
        )
        # [P T C B]; what comes from the true class is one number per image.
        other = (by_own_class + by_true_class[:, 1]).div_(C)
        return torch.addcmul(other, y, by_true_class[:, 0] - other)

    def _along(
        self, u: Float[Tensor, "P N"], curves: Float[Tensor, "P m K"]
    ) -> Float[Tensor, "P m N"]:
        """Some curves at logarithms of probabilities.

        Each segment adds its part to the value at the first knot.
        """
        passed = (u[:, None] - self.knots[:-1, None]).div_(self.knots.diff()[:, None]).clamp_(0, 1)
        # [P m 1] + [P m K-1] @ [P K-1 N].
        return torch.baddbmm(curves[..., :1], curves.diff(), passed)

    @property
    def _y(self) -> Float[Tensor, "T C B"]:
        assert self.target is not None, "bind the targets first"
        return self.target


def at_home(logp: Float[Tensor, "P T C B"], reference_classes: int) -> Float[Tensor, "P T C B"]:
    """log p as it would be among `reference_classes` classes.

    A uniform prediction reads 1/reference_classes; 0 and certainty stay.
    """
    classes = logp.shape[-2]
    if classes == reference_classes:
        return logp
    guess = -math.log(classes)
    # Above a uniform guess 1 - p is scaled, below it p; `where` computes both, so log p is clamped.
    surer = torch.log1p(
        class_count_scale(classes, reference_classes) * logp.clamp(min=guess).expm1()
    )
    return torch.where(logp > guess, surer, logp + math.log(classes / reference_classes))
