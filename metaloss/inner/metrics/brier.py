"""The squared distance of probabilities from the truth, summed over the classes (Brier 1950)."""

from typing import ClassVar

from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._shared import LogitMetric, of_label, weighted_mean

__all__ = ["Brier"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Brier(LogitMetric):
    """From 0 to 2, for two classes too."""

    title: ClassVar[str] = "Brier score"
    maximise: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    def failed(self) -> float:
        """Every answer wrong, and sure."""
        return 2.0

    def guess(self, ways: int) -> float:
        """All classes equally probable."""
        return 1 - 1 / ways

    def values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        """Σ (p - y)² / images; that is Σ p² - 2 p of the true class + 1."""
        p = logits.mT.double().softmax(-2)
        return weighted_mean((p**2).sum(2) - 2 * of_label(p, label) + 1, weight)
