"""Matthews' correlation coefficient of labels and answers (Gorodkin 2004)."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric, hits
from metaloss.inner.metrics._shared import ratio

__all__ = ["Mcc"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Mcc(CountingMetric):
    """From -1 to 1; 0 where all labels, or all answers, are one class."""

    title: ClassVar[str] = "Matthews correlation"
    percent: ClassVar[bool] = False

    def failed(self) -> float:
        """Every answer wrong, in the worst way."""
        return -1.0

    def guess(self, ways: int) -> float:
        """No correlation."""
        return 0.0

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """Cov(labels, answers) / √(Cov(labels, labels) Cov(answers, answers))."""
        label = counts.sum(-1)
        answer = counts.sum(-2)
        total = counts.sum((-2, -1))
        both = hits(counts).sum(-1) * total - (label * answer).sum(-1)
        spread = [total**2 - (x**2).sum(-1) for x in (label, answer)]
        return ratio(both, (spread[0] * spread[1]).sqrt())
