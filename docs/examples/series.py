"""Cross-entropy and a power series in 1 - p, evolved (after PolyLoss, Leng 2022)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss import Formula, FormulaGenome, Stream, Vectors

__all__ = ["Series"]  # the one name that the registry takes


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Series(FormulaGenome):
    """-y·logp + Σ e_k·y·(1 - p)^k, one gene a coefficient; all genes 0 are cross-entropy.

    Attributes:
        terms: how many coefficients.
    """

    terms: Annotated[int, Field(ge=1, le=8)] = 3

    vector: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, Any]] = {"strategy": {"kind": "mu_plus_lambda"}, "generations": 80}
    reasons: ClassVar[tuple[str, ...]] = ("",)
    populations: ClassVar[tuple[type, ...]] = (Vectors,)

    def sample(self, n: int, key: Stream) -> Vectors:
        """n times cross-entropy."""
        return Vectors(torch.zeros(n, self.terms))

    def mutate(self, parents: Vectors, strength: Float[Tensor, "P D"], key: Stream) -> Vectors:
        """Normal noise of this standard deviation on every coefficient."""
        x = parents.vectors()
        return parents.from_vectors(x + strength * key.normal(*x.shape))

    def crossover(self, a: Vectors, b: Vectors, key: Stream) -> Vectors:
        """The middle between the two parents."""
        return a.from_vectors((a.vectors() + b.vectors()) / 2)

    def valid(self, population: Vectors) -> Int[Tensor, " P"]:
        """0 everywhere: every vector is a loss."""
        return torch.zeros(len(population), dtype=torch.int64)

    def formulas(self, population: Vectors) -> tuple[Formula, ...]:
        """The candidates as losses."""
        text = "-y*logp" + "".join(f" + e{k}*y*(1 - p)**{k}" for k in range(1, self.terms + 1))
        rows = population.vectors().double().tolist()
        return tuple(
            Formula.parse(text, {f"e{k}": v for k, v in enumerate(row, start=1)}) for row in rows
        )
