"""The mean of the classes' recalls: every class counts alike, however many images it has."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric, recall
from metaloss.inner.metrics._shared import ratio

__all__ = ["BalancedAccuracy"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class BalancedAccuracy(CountingMetric):
    """The mean recall of the classes that have an image."""

    title: ClassVar[str] = "balanced accuracy"

    def guess(self, ways: int) -> float:
        """One image in so many."""
        return 1 / ways

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """Σ recall / classes with an image."""
        found, occurs = recall(counts)
        return ratio(found.sum(-1), occurs.double().sum(-1))
