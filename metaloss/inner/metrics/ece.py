"""The expected calibration error: how far probability and accuracy lie apart (Guo 2017)."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._shared import LogitMetric, log_probabilities, ratio

__all__ = ["Ece"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Ece(LogitMetric):
    """The mean over the images of |accuracy - mean probability| within their bin of probabilities.

    Attributes:
        bins: of the highest probability, of equal width; each leaves out its lower end.
    """

    bins: Annotated[int, Field(ge=1, le=1000)] = 15

    title: ClassVar[str] = "calibration error"
    maximise: ClassVar[bool] = False

    def failed(self) -> float:
        """Every answer wrong, and sure."""
        return 1.0

    def negligible(self, ways: int) -> float:
        """A point of probability: classifiers lie much closer to 0 than to 1."""
        return 0.01

    def values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        """Σ |Σ (right - probability)| / images, the inner sum over a bin."""
        confidence, answer = log_probabilities(logits).double().max(-2)
        confidence = confidence.exp()
        place = ((confidence * self.bins).ceil() - 1).clamp(0, self.bins - 1)
        count = torch.ones_like(label) if weight is None else weight
        count = count.double()[..., None, :, :]
        gap = ((answer == label).double() - confidence) * count  # [*R P T V]
        # A bin's sum of differences is its gap times its images: the weight of its mean.
        apart = sum(
            (gap.where(place == number, 0).sum(-1).abs() for number in range(self.bins)),
            torch.zeros_like(gap[..., 0]),
        )
        return ratio(apart, count.sum(-1).expand(apart.shape))
