"""Cross-entropy whose targets follow the prediction, along curves that evolution draws.

Label smoothing (Szegedy 2016) trains against fixed targets; here the target of a class depends on
how probable the network finds it, and on how probable it finds the true one. The targets are taken
as given: no gradient goes through them, as in bootstrapped targets (Reed 2015), so a gradient need
not be that of any value. The representation is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._compiled_targets import CompiledTargets
from metaloss.genomes._first import StartsAt
from metaloss.genomes._prior import STEP, SeesPrior
from metaloss.genomes._targets import Targets
from metaloss.genomes._vectors import RealVectors
from metaloss.losses.base import Losses
from metaloss.losses.clock import DEFAULT_STEPS

__all__ = ["LearnedTargets"]

# Of the true class; of another class over its own probability, and over the true class's.
CURVES = 3
COST_GENES = 2  # the margin and the decay


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class LearnedTargets(StartsAt, SeesClock, SeesPrior, RealVectors):
    """What the curves are drawn through, and where the search starts.

    The true class's target is a(p_true), another class's (b(p) + d(p_true)) / C: three curves over
    the logarithm of a probability, straight between the knots and level beyond them. A candidate is
    their values at the knots. At the start they are level: the targets of label smoothing.

    With `clock` there are two sets of curves, for the start of a training and for its end, and
    between them they are mixed linearly in the share of the steps that is done. A third set is what
    is added for each unit of ln(N/50)/4, with N the number of steps.

    Attributes:
        knots: the probabilities at which a curve can bend.
        smoothing: of the labels at the start.
        home_classes: predictions among another number of classes are read as if there were this
            many: uniform and certain ones look the same, so a loss carries over from one number to
            another.
        costs: whether losses see what each mistake costs: a margin λ, so that logits are moved by
            λ·cost before the softmax, and a decay μ, so that the targets of other classes fall with
            their cost as exp(-μ·cost), their mean unchanged. Both start at 0, and a gene of 1 is 3
            of either.
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
    costs: bool = False

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
        return self._curve_genes + self._cost_genes + self.prior_genes

    @property
    def reads_costs(self) -> bool:
        """Whether a candidate depends on what each mistake costs."""
        return self.costs

    @property
    def _curve_genes(self) -> int:
        return self._sets * CURVES * len(self.knots)

    @property
    def _cost_genes(self) -> int:
        return COST_GENES if self.costs else 0

    def sample(self, n: int, key: Stream) -> Vectors:
        """n times the first loss, or label smoothing."""
        if (first := self.copies_of_first(n, self.size)) is not None:
            return Vectors(first)
        s = self.smoothing
        reference_classes = self.home_classes
        knots = len(self.knots)
        start = torch.tensor([1 - s + s / reference_classes, s, 0.0]).repeat_interleave(knots)
        if self.clock:
            start = torch.cat([start, start, torch.zeros_like(start)])
        blind = torch.cat([start, start.new_zeros(self._cost_genes)])
        return Vectors(self.with_prior_genes(blind.repeat(n, 1)))

    def losses(self, population: Vectors) -> Losses:
        """The candidates, side by side."""
        vectors = population.vectors()
        knots = torch.tensor(self.knots).log()
        targets = CompiledTargets if kernels.available() else Targets
        margin, decay = self._by_cost(vectors)
        curves = self._curves(vectors)
        losses = targets(curves[:, 0], knots, self.home_classes, margin, decay)
        if self.clock:
            losses = replace(losses, last=curves[:, 1], rise=curves[:, 2])
        return self.adjusted(losses, vectors)

    def _by_cost(
        self, vectors: Float[Tensor, "P D"]
    ) -> tuple[Float[Tensor, " P"] | None, Float[Tensor, " P"] | None]:
        """The margin and the decay of every candidate; None where it sees no costs."""
        if not self.costs:
            return None, None
        first = self._curve_genes
        margin, decay = (STEP * vectors[:, first : first + COST_GENES]).unbind(1)
        return margin, decay

    def _curves(self, vectors: Float[Tensor, "P D"]) -> Float[Tensor, "P S 3 K"]:
        """The curves; with a clock, those at the start of a training, those at its end, and what is
        added to them for each unit of the number of steps' logarithm.
        """
        shape = (self._sets, CURVES, len(self.knots))
        curves: Tensor = vectors[:, : math.prod(shape)].unflatten(1, shape)
        return curves

    @property
    def _sets(self) -> int:
        return 3 if self.clock else 1

    def describe(self, population: Vectors, row: int) -> str:
        """How many numbers and knots it has, in one line."""
        vectors = population[row : row + 1].vectors()
        margin, decay = self._by_cost(vectors)
        moves = self.describe_moves(vectors)
        clock = ", clock" if self.clock else ""
        if margin is not None and decay is not None:
            by_cost = f", margin {float(margin[0]):.3g} and decay {float(decay[0]):.3g} by cost"
            moves = by_cost + moves
        return f"learned targets ({self.size} numbers, {len(self.knots)} knots{clock}{moves})"

    def torch_source(self, population: Vectors) -> list[str]:
        """The lines of Python that compute the one loss's terms of logits z and targets y."""
        vectors = population.vectors()
        knots = torch.tensor(self.knots).log().tolist()
        home = self.home_classes
        lines = [
            f"knots = z.new_tensor({knots})",
            *self._curves_source(vectors),
            *self._margin_source(vectors),
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
            *(["other = other * factors"] if self.costs else []),
            "targets = (other + y * (along(true, curves[0]) - other)).detach()",
            "return -targets * logp.masked_fill(targets == 0, 0)",
        ]
        return self.adjusted_source(lines, vectors)

    def _curves_source(self, vectors: Float[Tensor, "1 D"]) -> list[str]:
        """The lines that compute the curves."""
        first, *others = (f"z.new_tensor({x.tolist()})" for x in self._curves(vectors)[0])
        if not others:
            return [f"curves = {first}"]
        last, rise = others
        return [
            "t, logn = self.clock_terminals(z).values()",
            f"first, last = {first}, {last}",
            f"rise = {rise}",
            f"curves = first + t * (last - first) + (logn - math.log({DEFAULT_STEPS})) / 4 * rise",
        ]

    def _margin_source(self, vectors: Float[Tensor, "1 D"]) -> list[str]:
        """The lines that move the logits by the costs and compute the factors of targets."""
        margin, decay = self._by_cost(vectors)
        if margin is None or decay is None:
            return []
        return [
            "cost = self.image_costs(y)",
            f"z = z + {float(margin[0])!r} * cost",
            f"exponent = ({-float(decay[0])!r} * cost).masked_fill(y == 1, -torch.inf)",
            "raw = (exponent - exponent.amax(-1, keepdim=True)).exp()",
            "mean = ((1 - y) * raw).sum(-1, keepdim=True) / (1 - y).sum(-1, keepdim=True)",
            "factors = (raw / mean).masked_fill(y == 1, 1)",
            "",
        ]
