"""The recall of the class that is found least."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric, recall

__all__ = ["WorstRecall"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class WorstRecall(CountingMetric):
    """The lowest recall of the classes that have an image."""

    title: ClassVar[str] = "worst recall"

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """min recall."""
        found, occurs = recall(counts)
        lowest = found.where(occurs, 1).amin(-1)
        return lowest.where(occurs.any(-1), 0)
