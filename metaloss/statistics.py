"""Statistics of paired scores: two losses on the same tasks, from the same initial weights; and of two rankings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.streams import Stream


@dataclass(frozen=True)
class Paired:
    """The mean difference of two losses over tasks, in shares of one (0.01 is a point of accuracy)."""

    mean: float
    low: float
    high: float
    error: float  # standard error
    tasks: int


def paired(a: Float[Tensor, " T"], b: Float[Tensor, " T"], key: Stream, resamples: int = 10_000) -> Paired:
    """How much better `a` is than `b`, with a 95 % percentile bootstrap interval over tasks (Efron 1979).

    A failed training counts as an accuracy of 0.
    """
    difference = a.double().nan_to_num(nan=0.0) - b.double().nan_to_num(nan=0.0)
    n = len(difference)
    means = difference[key.integers(n, resamples, n)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Paired(float(difference.mean()), low, high, float(difference.std() / n**0.5), n)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ (his τ-b: ties count for neither) of two scores of the same losses; None where there is no order."""
    from scipy.stats import kendalltau  # slow to import

    tau = float(kendalltau(a, b).statistic) if len(a) > 1 else math.nan
    return None if math.isnan(tau) else tau
