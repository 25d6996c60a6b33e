"""The share of right answers."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric, hits
from metaloss.inner.metrics._shared import ratio

__all__ = ["Accuracy"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Accuracy(CountingMetric):
    """Images that got their own class, among all."""

    title: ClassVar[str] = "accuracy"

    def guess(self, ways: int) -> float:
        """One image in so many."""
        return 1 / ways

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """Right answers / images."""
        return ratio(hits(counts).sum(-1), counts.sum((-2, -1)))
