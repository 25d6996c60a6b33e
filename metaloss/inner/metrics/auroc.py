"""The area under the receiver's curve of each class against the rest, averaged over the classes."""

from typing import ClassVar

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._ranking import RankingMetric, Ranks
from metaloss.inner.metrics._shared import ratio

__all__ = ["Auroc"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Auroc(RankingMetric):
    """How often an image of the class is more probably of it than another is; ties count half."""

    title: ClassVar[str] = "AUROC"

    def guess(self, ways: int) -> float:
        """Half of all pairs."""
        return 0.5

    def negligible(self, ways: int) -> float:
        """A fiftieth of what lies between guesses and no mistake."""
        return 0.01

    def of_images(self, ranks: Ranks) -> Float[Tensor, "*R P T V"]:
        """The share of the other classes' images that rank lower."""
        return 1 - ratio((ranks.above + ranks.level) / 2, ranks.of_others)
