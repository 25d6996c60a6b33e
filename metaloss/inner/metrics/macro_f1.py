"""The F1 score, averaged over the classes."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric, hits
from metaloss.inner.metrics._shared import ratio

__all__ = ["MacroF1"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class MacroF1(CountingMetric):
    """The mean F1 score of the classes that occur as a label or an answer.

    It is 0 for a class that is never found.
    """

    title: ClassVar[str] = "macro F1"

    def guess(self, ways: int) -> float:
        """One image in so many."""
        return 1 / ways

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """Σ 2 hits / (labels + answers), over the classes that occur."""
        sizes = counts.sum(-1) + counts.sum(-2)
        return ratio(ratio(2 * hits(counts), sizes).sum(-1), (sizes > 0).double().sum(-1))
