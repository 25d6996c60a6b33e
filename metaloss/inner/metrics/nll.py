"""The mean of -log p of the true class."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.inner.metrics._shared import (
    LogitMetric,
    log_probabilities,
    of_label,
    weighted_mean,
)

__all__ = ["Nll"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Nll(LogitMetric):
    """Cross-entropy on validation images, in nats."""

    title: ClassVar[str] = "negative log-likelihood"
    maximise: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    def failed(self) -> float:
        """A probability that float32 cannot tell from 0."""
        return -math.log(torch.finfo(torch.float32).eps)

    def guess(self, ways: int) -> float:
        """All classes equally probable."""
        return math.log(ways)

    def values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        """-Σ log p of the true class / images."""
        return weighted_mean(-of_label(log_probabilities(logits), label), weight)
