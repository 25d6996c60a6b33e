"""Cross-entropies whose targets follow the prediction, as torch computes them."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import class_count_scale
from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    chosen_weights,
    images,
    log_softmax,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.told import ToldClock


@dataclass(frozen=True)
class Targets(ToldClock):
    """P cross-entropies -Σ_c q_c log p_c against targets q that follow the prediction.

    Attributes:
        curves: at the knots.
        knots: logarithms of probabilities.
        reference_classes: among which predictions are read.
        margin: what the logits are moved by for a class that costs 1 as the answer; None: costs are
            not seen.
        decay: how fast the target of another class falls with its cost.
        target: the labels; `bind` fills it and all that follows.
        weight: of the images.
        cost: of each class as the answer.
        factors: of the targets of other classes.
        last: the curves at the end of a training, where those are not the same; `curves` are those
            at its start then, and in between both are mixed.
        rise: what is added to the curves for each unit of the number of steps' logarithm.
        told: how far the training is; None: nobody has said.
    """

    curves: Float[Tensor, "P 3 K"]
    knots: Float[Tensor, " K"]
    reference_classes: int
    margin: Float[Tensor, " P"] | None = None
    decay: Float[Tensor, " P"] | None = None
    target: Float[Tensor, "T C B"] | None = None
    weight: Float[Tensor, "T B"] | None = None
    cost: Float[Tensor, "T C B"] | None = None
    factors: Float[Tensor, "P T C B"] | None = None
    last: Float[Tensor, "P 3 K"] | None = None
    rise: Float[Tensor, "P 3 K"] | None = None
    told: Clock | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.curves)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(
            self,
            curves=self.curves[rows],
            margin=None if self.margin is None else self.margin[rows],
            decay=None if self.decay is None else self.decay[rows],
            factors=None if self.factors is None else self.factors[rows],
            last=None if self.last is None else self.last[rows],
            rise=None if self.rise is None else self.rise[rows],
        )

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep labels and costs, class by class in memory."""
        target = targets.target
        bound = replace(
            self,
            curves=self.curves.to(target),
            knots=self.knots.to(target),
            last=None if self.last is None else self.last.to(target),
            rise=None if self.rise is None else self.rise.to(target),
            target=target.mT.contiguous(),
            weight=targets.weight,
        )
        if self.margin is None or self.decay is None:
            return bound
        cost = targets.cost.mT.contiguous()
        factors = cost_factors(cost, bound._y, self.decay.to(target))
        return replace(bound, margin=self.margin.to(target), cost=cost, factors=factors)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(
            self,
            target=images(self._y.mT, index).mT.contiguous(),
            weight=chosen_weights(self.weight, index),
            cost=None if self.cost is None else images(self.cost.mT, index).mT,
            factors=None if self.factors is None else images(self.factors.mT, index).mT,
        )

    @property
    def reads_clock(self) -> bool:
        """Whether the curves depend on how far the training is."""
        return self.last is not None

    @property
    def _curves_now(self) -> Float[Tensor, "P 3 K"]:
        """The curves at this point of the training."""
        if self.last is None or self.rise is None:
            return self.curves
        _, steps = self.clock.centred
        return self.curves + self.clock.t * (self.last - self.curves) + steps * self.rise

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """-q_c log p_c; no gradient goes through q."""
        logp = log_softmax(self._moved(logits)).mT
        # A masked class has log p = -inf: neither the label's share of 0 nor a target of 0 may meet
        # it.
        q = self._q(logp.detach().clamp(min=torch.finfo(logp.dtype).min))
        return -(q * logp.masked_fill(q == 0, 0)).mT

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum over the classes, averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """(p Σ_c q_c - q) / B."""
        logp = log_softmax(self._moved(logits)).mT
        q = self._q(logp)
        # Autograd may go through it: p, which it keeps, is not overwritten.
        gradient = torch.addcmul(-q, logp.exp(), q.sum(-2, keepdim=True)).div_(logits.shape[2]).mT
        return weigh_images(gradient, self.weight)

    def _q(self, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """Every class's target; a soft label mixes that of the true class and that of another."""
        y, (_, T, C, B) = self._y, logp.shape
        u = at_home(logp, self.reference_classes)
        # Curve 1 is read at each class's own probability, curves 0 and 2 at the true class's.
        curves = self._curves_now
        by_own_class = self._along(u.flatten(1), curves[:, 1:2]).unflatten(2, (T, C, B))[:, 0]
        by_true_class = self._along((u * y).sum(-2).flatten(1), curves[:, ::2]).unflatten(
            2, (T, 1, B)
        )
        # [P T C B]; what comes from the true class is one number per image.
        other = (by_own_class + by_true_class[:, 1]).div_(C)
        if self.factors is not None:
            other = other.mul_(self.factors)
        return torch.addcmul(other, y, by_true_class[:, 0] - other)

    def _moved(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The logits with the margin that each class's cost asks for."""
        if self.margin is None or self.cost is None:
            return logits
        return moved_by_cost(logits, self.margin, self.cost)

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


def moved_by_cost(
    logits: Float[Tensor, "P T B C"], margin: Float[Tensor, " P"], cost: Float[Tensor, "T C B"]
) -> Float[Tensor, "P T B C"]:
    """logits + margin · cost, in the memory order that the engine's logits have."""
    return torch.addcmul(logits.mT, margin[:, None, None, None], cost).mT


def cost_factors(
    cost: Float[Tensor, "T C B"], y: Float[Tensor, "T C B"], decay: Float[Tensor, " P"]
) -> Float[Tensor, "P T C B"]:
    """exp(-decay · cost), divided by its mean over the classes that are not the label's.

    So 1 for all of them where they cost the same. With level curves these are the soft labels of
    Díaz 2019, but for the label's own class.

    Args:
        cost: of each class as the answer.
        y: the labels.
        decay: of each loss.
    """
    label = y == 1
    # Beside the cheapest or the dearest other class, so that no exponential overflows.
    exponent = (-decay[:, None, None, None] * cost).masked_fill(label, -torch.inf)
    raw = (exponent - exponent.amax(-2, keepdim=True)).exp()
    other = 1 - y
    mean = (other * raw).sum(-2, keepdim=True) / other.sum(-2, keepdim=True)
    return (raw / mean).masked_fill(label, 1)


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
