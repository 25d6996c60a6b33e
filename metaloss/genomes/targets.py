"""Cross-entropy whose targets follow the prediction, along curves that evolution draws.

Label smoothing (Szegedy 2016) trains against fixed targets; here the target of a class depends on
how probable the network finds it, and on how probable it finds the true one. The targets are taken
as given: no gradient goes through them, as in bootstrapped targets (Reed 2015), so a gradient need
not be that of any value. The representation is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes._channels import class_count_scale
from metaloss.genomes._prior import SeesPrior
from metaloss.genomes._vectors import RealVectors
from metaloss.losses.base import (
    Losses,
    TrainingTargets,
    chosen_weights,
    images,
    log_softmax,
    mean_over_images,
    weigh_images,
)

__all__ = ["LearnedTargets"]

# Of the true class; of another class over its own probability, and over the true class's.
CURVES = 3


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class LearnedTargets(SeesPrior, RealVectors):
    """What the curves are drawn through, and where the search starts.

    The true class's target is a(p_true), another class's (b(p) + d(p_true)) / C: three curves over
    the logarithm of a probability, straight between the knots and level beyond them. A candidate is
    their values at the knots. At the start they are level: the targets of label smoothing.

    Attributes:
        knots: the probabilities at which a curve can bend.
        smoothing: of the labels at the start.
        home_classes: predictions among another number of classes are read as if there were this
            many: uniform and certain ones look the same, so a loss carries over from one number to
            another.
    """

    knots: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (
        0.003,
        0.01,
        0.03,
        0.07,
        0.13,
        0.25,
        0.45,
        0.7,
        0.92,
    )
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    home_classes: Annotated[int, Field(ge=2, le=1000)] = 10

    vector: ClassVar[bool] = True
    classes: ClassVar[int | None] = None
    usual: ClassVar[Mapping[str, Any]] = {
        "strategy": {"kind": "cma_es", "sigma": 0.15},
        "generations": 200,
        "tasks_per_generation": 16,
    }
    reasons: ClassVar[tuple[str, ...]] = ("",)
    populations: ClassVar[tuple[type, ...]] = (Vectors,)

    @field_validator("knots")
    @classmethod
    def _ascending(cls, knots: tuple[float, ...]) -> tuple[float, ...]:
        if not 2 <= len(knots) <= 64 or sorted(set(knots)) != list(knots):
            raise ValueError("must be 2 to 64 probabilities, each greater than the one before")
        return knots

    @property
    def size(self) -> int:
        """How many numbers a candidate is."""
        return CURVES * len(self.knots) + self.prior_genes

    def sample(self, n: int, key: Stream) -> Vectors:
        """n times label smoothing."""
        s = self.smoothing
        reference_classes = self.home_classes
        knots = len(self.knots)
        start = torch.tensor([1 - s + s / reference_classes, s, 0.0]).repeat_interleave(knots)
        return Vectors(self.with_prior_genes(start.repeat(n, 1)))

    def losses(self, population: Vectors) -> Losses:
        """The candidates, side by side."""
        vectors = population.vectors()
        knots = torch.tensor(self.knots).log()
        return self.adjusted(Targets(self._curves(vectors), knots, self.home_classes), vectors)

    def _curves(self, vectors: Float[Tensor, "P D"]) -> Float[Tensor, "P 3 K"]:
        knots = len(self.knots)
        curves: Tensor = vectors[:, : CURVES * knots].unflatten(1, (CURVES, knots))
        return curves

    def describe(self, population: Vectors, row: int) -> str:
        """How many numbers and knots it has, in one line."""
        moves = self.describe_moves(population[row : row + 1].vectors())
        return f"learned targets ({self.size} numbers, {len(self.knots)} knots{moves})"

    def torch_source(self, population: Vectors) -> list[str]:
        """The lines of Python that compute the one loss's terms of logits z and targets y."""
        vectors = population.vectors()
        knots = torch.tensor(self.knots).log().tolist()
        home = self.home_classes
        lines = [
            f"knots = z.new_tensor({knots})",
            f"curves = z.new_tensor({self._curves(vectors)[0].tolist()})",
            "logp = z.log_softmax(-1)",
            "C, u = z.shape[-1], logp",
            f"if C != {home}:  # a guess reads 1/{home}, 0 and certainty stay",
            f"    stretch = (1 - 1 / {home}) * C / max(1, C - 1)",
            "    sure = torch.log1p(stretch * logp.clamp(min=-math.log(C)).expm1())",
            f"    u = torch.where(logp > -math.log(C), sure, logp + math.log(C / {home}))",
            "",
            "def along(u, curve):",
            "    passed = ((u[..., None] - knots[:-1]) / knots.diff()).clamp(0, 1)",
            "    return curve[0] + passed @ curve.diff()",
            "",
            "true = (u.clamp(min=torch.finfo(u.dtype).min) * y).sum(-1, keepdim=True)",
            "other = (along(u, curves[1]) + along(true, curves[2])) / C",
            "targets = (other + y * (along(true, curves[0]) - other)).detach()",
            "return -targets * logp.masked_fill(targets == 0, 0)",
        ]
        return self.adjusted_source(lines, vectors)


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
