"""The average precision of each class against the rest, averaged over the classes."""

from typing import ClassVar

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._ranking import RankingMetric, Ranks

__all__ = ["AveragePrecision"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class AveragePrecision(RankingMetric):
    """The mean, over a class's images, of the precision down to that image."""

    title: ClassVar[str] = "average precision"

    def guess(self, ways: int) -> float:
        """One image in so many."""
        return 1 / ways

    def of_images(self, ranks: Ranks) -> Float[Tensor, "*R P T V"]:
        """The precision down to each image."""
        return ranks.precision
