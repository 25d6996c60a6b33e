"""Polynomials in a class's target and probability, as torch computes them."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    chosen_weights,
    images,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.told import ToldClock


@dataclass(frozen=True)
class Polynomials(ToldClock):
    """P losses -Σ_c Σ_ij a_ij (y_c - θ0)^i (p_c - θ1)^(j+1) over i + j < K, the order.

    Attributes:
        point: θ0 and θ1.
        coefficients: a, in one set; or in three: those at the start of a training, those at its
            end, between which they are mixed, and what is added for each unit of the number of
            steps' logarithm.
        by_prior: τ and κ: logits are shifted by τ·ln(C·π), and the term of a class counts
            (C·π)^-κ times, with π the class's share of the training images; None: neither.
        target: the labels; `bind` fills it and the next four.
        weight: of the images.
        slopes: the coefficients of y^i p^j in the derivative by p, in as many sets.
        shift: of the logits.
        importance: of the classes.
        told: how far the training is; None: nobody has said.
    """

    point: Float[Tensor, "P 2"]
    coefficients: Float[Tensor, "P S K K"]
    by_prior: Float[Tensor, "P 2"] | None = None
    target: Float[Tensor, "T C B"] | None = None
    weight: Float[Tensor, "T B"] | None = None
    slopes: Float[Tensor, "P S K K"] | None = None
    shift: Float[Tensor, "P T C 1"] | None = None
    importance: Float[Tensor, "P T C 1"] | None = None
    told: Clock | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(
            self,
            point=self.point[rows],
            coefficients=self.coefficients[rows],
            by_prior=None if self.by_prior is None else self.by_prior[rows],
            slopes=None if self.slopes is None else self.slopes[rows],
            shift=None if self.shift is None else self.shift[rows],
            importance=None if self.importance is None else self.importance[rows],
        )

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep the labels, class by class in memory, and take the derivative."""
        target = targets.target
        point, coefficients = (x.to(target.device) for x in (self.point, self.coefficients))
        slopes = slopes_at_zero(point, coefficients)
        if self.by_prior is None:
            # The constant pulls all classes alike, so softmax sees none of it. Far from the point
            # it would be the largest number, and the others would be lost in its rounding.
            constant = torch.zeros_like(slopes[0, 0], dtype=torch.bool)
            constant[0, 0] = True
            slopes = slopes.masked_fill(constant, 0)
        bound = replace(
            self,
            point=point,
            coefficients=coefficients,
            target=target.mT.contiguous(),
            weight=targets.weight,
            slopes=slopes,
        )
        if self.by_prior is None:
            return bound
        log_prior = targets.shares["logprior"][..., None]  # [T C 1]
        tau, power = self.by_prior.to(target)[:, :, None, None, None].unbind(1)
        return replace(bound, shift=tau * log_prior, importance=(-power * log_prior).exp())

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(
            self,
            target=images(self._y.mT, index).mT.contiguous(),
            weight=chosen_weights(self.weight, index),
        )

    @property
    def reads_clock(self) -> bool:
        """Whether the coefficients depend on how far the training is."""
        return self.coefficients.shape[1] > 1

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        p = self._shifted(logits).log_softmax(-2).exp()
        theta0, theta1 = self.point.to(p)[:, :, None, None, None].unbind(1)
        u = p - theta1
        value = polynomial(-self._now(self.coefficients).to(p), self._y - theta0, u) * u
        return (value if self.importance is None else value * self.importance).mT

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum over the classes, averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """p (s - Σ_c p_c s_c) / B, with s the derivative by p."""
        p = self._shifted(logits).softmax(-2)
        slope = polynomial(self._slopes_now.to(p), self._y, p)
        slope = slope if self.importance is None else slope * self.importance
        mean = (p * slope).sum(-2, keepdim=True)
        return weigh_images((p * (slope - mean) / logits.shape[2]).mT, self.weight)

    def _shifted(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T C B"]:
        return logits.mT if self.shift is None else logits.mT + self.shift

    @property
    def _slopes_now(self) -> Float[Tensor, "P K K"]:
        """The derivative's coefficients at this point of the training."""
        assert self.slopes is not None, "bind the targets first"
        return self._now(self.slopes)

    def _now(self, sets: Float[Tensor, "P S K K"]) -> Float[Tensor, "P K K"]:
        """Numbers at this point of the training."""
        first, *others = sets.unbind(1)
        if not others:
            return first
        last, rise = others
        _, steps = self.clock.centred
        return first + self.clock.t * (last - first) + steps * rise

    @property
    def _y(self) -> Float[Tensor, "T C B"]:
        assert self.target is not None, "bind the targets first"
        return self.target


def slopes_at_zero(
    point: Float[Tensor, "P 2"], coefficients: Float[Tensor, "P S K K"]
) -> Float[Tensor, "P S K K"]:
    """The coefficients of y^i p^j in the derivative by p of -Σ a_ij (y - θ0)^i (p - θ1)^(j+1).

    In float64: (y - θ0)^i has terms that are much larger than their sum.
    """
    point, coefficients = point.double(), coefficients.double()
    # d/dp (p - θ1)^(j+1) = (j + 1) (p - θ1)^j.
    factor = torch.arange(1, coefficients.shape[-1] + 1).to(coefficients)
    of_y, of_p = (_shifted_powers(x, len(factor))[:, None] for x in point.unbind(1))
    # Sums, not products of matrices: a row's bits do not depend on how many rows there are.
    by_p = ((coefficients * factor)[..., None] * of_p[:, :, None]).sum(-2)
    return -(of_y[..., None] * by_p[..., None, :]).sum(-3)


def _shifted_powers(shift: Float[Tensor, " P"], powers: int) -> Float[Tensor, "P K K"]:
    """The coefficients of x^k (column) in (x - shift)^i (row)."""
    span = range(powers)
    none = torch.zeros_like(shift)
    rows = [[math.comb(i, k) * (-shift) ** (i - k) if k <= i else none for k in span] for i in span]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def polynomial(
    coefficients: Float[Tensor, "P K K"], y: Float[Tensor, "... C B"], p: Float[Tensor, "P T C B"]
) -> Float[Tensor, "P T C B"]:
    """Σ_ij a_ij y^i p^j over i + j < K, by Horner's scheme over powers of p."""
    order = coefficients.shape[-1]
    a = coefficients[:, :, :, None, None, None]
    total = torch.zeros_like(p)
    for j in reversed(range(order)):
        # The coefficient of p^j, by the same scheme over powers of y.
        of_y = a[:, order - 1 - j, j]
        for i in reversed(range(order - 1 - j)):
            of_y = of_y * y + a[:, i, j]
        total = total * p + of_y
    return total
