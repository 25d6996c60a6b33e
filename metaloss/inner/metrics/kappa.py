"""Cohen's kappa with quadratic weights, for classes in an order (Cohen 1968)."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric
from metaloss.inner.metrics._shared import ratio

__all__ = ["Kappa"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Kappa(CountingMetric):
    """Agreement beyond chance, where a mistake weighs the square of its distance in classes.

    The order is that of the data set's classes, those of a task being its ranks. 0 where chance
    alone would make no mistake.
    """

    title: ClassVar[str] = "quadratic kappa"
    percent: ClassVar[bool] = False

    @property
    def names_classes(self) -> bool:
        """Their order counts."""
        return True

    def failed(self) -> float:
        """Every answer wrong, in the worst way."""
        return -1.0

    def guess(self, ways: int) -> float:
        """What chance agrees on."""
        return 0.0

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """1 - Σ distance² counts / Σ distance² expected counts."""
        rank = classes.argsort(-1).argsort(-1).double()
        distance = (rank[:, :, None] - rank[:, None]) ** 2  # [T C C]
        expected = counts.sum(-1, keepdim=True) * counts.sum(-2, keepdim=True)
        mistakes = (distance * counts).sum((-2, -1)) * counts.sum((-2, -1))
        by_chance = (distance * expected).sum((-2, -1))
        return ratio(by_chance - mistakes, by_chance)
