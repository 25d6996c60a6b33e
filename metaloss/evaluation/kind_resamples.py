"""Intervals of gains on tasks that are of several kinds."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class KindResamples:
    """The interval of scores of tasks that are of several kinds.

    Gains on tasks of a kind are alike, so they count together: the variance is that of clusters
    (Liang and Zeger 1986), which new kinds would have, too.

    Attributes:
        kind: the number of each task's.
    """

    kind: Int[Tensor, " T"]

    def scores(self, answers: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
        """The scores themselves."""
        return answers.double()

    def accuracy(self, answers: Float[Tensor, " T"]) -> None:
        """None: there is nothing but the score."""
        return

    def gain_interval(
        self, ours: Float[Tensor, " T"], theirs: Float[Tensor, " T"], certainty: float = 0.95
    ) -> tuple[float, float]:
        """The interval of how much higher the first loss scores, by Student's distribution."""
        from scipy.special import stdtrit  # slow to import

        difference = (ours.double().nan_to_num() - theirs.double().nan_to_num()).cpu()
        mean = difference.mean()
        known, place = self.kind.unique(return_inverse=True)
        n = len(known)
        sums = torch.zeros(n, dtype=torch.float64).index_add_(0, place, difference - mean)
        error = math.sqrt(float(sums.square().sum()) * n / max(1, n - 1)) / len(difference)
        reach = float(stdtrit(max(1, n - 1), (1 + certainty) / 2)) * error
        return float(mean) - reach, float(mean) + reach
