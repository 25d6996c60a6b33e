"""Two further numbers of a genome of real vectors: for classes of unlike size."""

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.losses.base import Losses
from metaloss.losses.language.expression import LOGPRIOR, Expression, call, constant
from metaloss.losses.language.formula import NO_SHIFT, Formula
from metaloss.losses.prior_adjusted import PriorAdjusted

GENES = 2  # τ and κ
# Of a gene of 1: a search's usual step, for the other numbers too, is then one of about a half.
STEP = 3.0
SPREAD = 0.1  # of genes beside a formula, when they are drawn and when they are moved
MOVED = 0.5  # of the children of a formula


# By name alone: a genome's own settings come first.
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SeesPrior:
    """Settings of genomes whose losses may see how many training images each class has.

    Attributes:
        prior: whether τ of logit adjustment and the power of class weights evolve as well: two more
            numbers, for families whose classes are uneven.
    """

    prior: bool = False

    # Where τ starts; balanced softmax, where the genome says nothing else. The power starts at 0.
    start_tau: ClassVar[float] = 1.0

    @property
    def reads_prior(self) -> bool:
        """Whether a candidate depends on how many training images each class has."""
        return self.prior

    @property
    def prior_genes(self) -> int:
        """How many numbers stand behind those of the loss itself."""
        return GENES if self.prior else 0

    def with_prior_genes(self, vectors: Float[Tensor, "P W"]) -> Float[Tensor, "P D"]:
        """The numbers of losses, and behind them those of the start."""
        return torch.cat([vectors, vectors.new_zeros(len(vectors), self.prior_genes)], 1)

    def moves(self, vectors: Float[Tensor, "P D"]) -> tuple[Tensor, Tensor]:
        """τ and the power of every candidate."""
        tau, power = (STEP * vectors[:, -GENES:]).unbind(1)
        return self.start_tau + tau, power

    def describe_moves(self, vectors: Float[Tensor, "1 D"]) -> str:
        """τ and the power in words, where they are part of the loss."""
        if not self.prior:
            return ""
        tau, power = (float(x[0]) for x in self.moves(vectors))
        return f", logit adjustment {tau:.3g}, class weights to the power {power:.3g}"

    def adjusted_formulas(
        self, formulas: tuple[Formula, ...], vectors: Float[Tensor, "P D"]
    ) -> tuple[Formula, ...]:
        """The formulas, with the shift and the weights that stand behind these numbers."""
        if not self.prior:
            return formulas
        # Few digits, so that formulas stay short.
        moves = ([float(f"{v:.3g}") for v in x.tolist()] for x in self.moves(vectors))
        return tuple(adjusted_formula(*x) for x in zip(formulas, *moves, strict=True))

    def adjusted(self, losses: Losses, vectors: Float[Tensor, "P D"]) -> Losses:
        """The losses, with the shift and the weights that stand behind their numbers."""
        return PriorAdjusted(losses, *self.moves(vectors)) if self.prior else losses

    def adjusted_source(self, lines: list[str], vectors: Float[Tensor, "1 D"]) -> list[str]:
        """The lines of Python of one loss's terms, with its shift and weights."""
        if not self.prior:
            return lines
        tau, power = (float(x[0]) for x in self.moves(vectors))
        *above, last = lines
        return [
            'log_prior = self.class_terminals(z.shape[-1], z)["logprior"]',
            f"importance = (y * (-{power!r} * log_prior).exp()).sum(-1, keepdim=True)",
            f"z = z + {tau!r} * log_prior",
            *above,
            f"return ({last.removeprefix('return ')}) * importance",
        ]


def adjusted_formula(formula: Formula, tau: float, power: float) -> Formula:
    """A formula with logit adjustment, and class weights to a power, on top of what it has."""
    return adjusted_by(formula, constant(tau), constant(-power))


def adjusted_by(formula: Formula, tau: Expression, exponent: Expression) -> Formula:
    """The same, with τ and the exponent of C·π in the weights as expressions."""
    weight = call("exp", call("mul", exponent, LOGPRIOR))
    shift = call("mul", tau, LOGPRIOR)
    return replace(
        formula,
        expression=call("mul", weight, formula.expression),
        shift=shift if formula.shift == NO_SHIFT else call("add", formula.shift, shift),
    )


def drawn_genes(n: int, key: Stream) -> Float[Tensor, "n 2"]:
    """Genes to start from, about those of the start."""
    return SPREAD * torch.stack([key.at("prior", i).normal(GENES) for i in range(n)]).double()


def moved_genes(genes: Float[Tensor, "P 2"], key: Stream) -> Float[Tensor, "P 2"]:
    """The genes of children: every other child's are moved, each from its row's own stream."""
    rows = [key.at("prior", i) for i in range(len(genes))]
    noise = torch.stack([SPREAD * row.at("by").normal(GENES) for row in rows]).double()
    moved = torch.stack([row.at("whether").uniform(1) < MOVED for row in rows])
    return (genes + noise).where(moved, genes)
