"""Whether one setting orders losses as another does: Kendall's τ, and the clusters of their scores.

From Morgan and Hougen 2024 (arXiv 2404.06633, section 3.1): τ over all losses and over the best 50,
and agglomerative clustering with average linkage, which showed four clusters. It does not say how
the best 50 of two settings are joined, which distance the clustering takes or how it was cut: here
the best of the first setting, and apart from it those that are among the best of both; Euclid's
distance between accuracies, or scores; cut into as many clusters as are asked for. The intervals
are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream

USUAL = 50  # best losses
FEWEST = 5  # losses that an interval is given for: resamples of fewer are all alike


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b of two scores of n losses; None where there is no order.

    Attributes:
        tau: from -1 to 1.
        p: two-sided, against no association.
        low, high: 95 % percentile bootstrap interval over losses; None of very few.
        n: how many losses.
    """

    tau: float | None
    p: float | None
    low: float | None
    high: float | None
    n: int


def kendall_tau(
    a: Sequence[float], b: Sequence[float], key: Stream, resamples: int = 2000
) -> RankCorrelation:
    """How alike two scores order the same losses."""
    n = len(a)
    # Where all scores are equal there is no order to compare.
    if n < 2 or min(len(set(a)), len(set(b))) < 2:
        return RankCorrelation(None, None, None, None, n)
    from scipy.stats import kendalltau  # slow to import

    correlation = kendalltau(a, b)
    first, second = (torch.tensor(x, dtype=torch.float64) for x in (a, b))
    low, high = _interval(first, second, key, resamples) if n >= FEWEST else (None, None)
    return RankCorrelation(float(correlation.statistic), float(correlation.pvalue), low, high, n)


def _interval(
    a: Float[Tensor, " N"], b: Float[Tensor, " N"], key: Stream, resamples: int
) -> tuple[float, float]:
    n = len(a)
    drawn = key.integers(n, resamples, n)
    # [R N]: how often each loss was drawn.
    counts = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(drawn.shape).double()
    )
    # [N N]: which loss of every pair is ahead.
    x, y = (torch.sign(v[:, None] - v[None]) for v in (a, b))
    # A loss that is drawn twice is a tie with itself, and its pairs with others count as often as
    # both were drawn.
    both, first, second = ((counts @ m * counts).sum(1) for m in (x * y, x.abs(), y.abs()))
    values = (both / (first * second).sqrt()).clamp(-1, 1)
    # A resample in which all are tied has no τ, and is left out.
    low, high = values.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def best_count(best: int | None, losses: int) -> int:
    """How many of the losses are the best ones."""
    if best is None:
        # Half of few losses: the best 50 of 60 would be nearly all of them.
        return min(USUAL, -(-losses // 2))
    return min(best, losses)


def best_places(score: Sequence[float], k: int) -> list[int]:
    """The places of the k highest scores, in order of the places; of equal ones the first."""
    order = sorted(range(len(score)), key=lambda i: -score[i])
    return sorted(order[:k])


def clusters(a: Sequence[float], b: Sequence[float], count: int) -> list[int]:
    """Every loss's cluster from 0 on, ordered by the sum of their mean scores, the lowest first."""
    if len(a) < 2 or count == 1:
        return [0] * len(a)
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import

    points = np.stack([a, b], 1)
    labels = fcluster(linkage(points, "average"), count, "maxclust").tolist()
    # The numbers that fcluster gives mean nothing: clusters are ordered by their scores.
    mean_scores = {c: float(points[[x == c for x in labels]].mean(0).sum()) for c in set(labels)}
    order = sorted(mean_scores, key=lambda c: mean_scores[c])
    return [order.index(c) for c in labels]


@dataclass(frozen=True)
class Pair:
    """Two settings beside each other.

    Attributes:
        a, b: their names.
        all: τ over all losses.
        best: τ over the best under `a`.
        both: τ over those that are among as many best under `a` and under `b`.
        k: how many the best are.
        pick: the loss that is best under `a`.
        loses: by how much the best loss under `b` is better there than that one.
        clusters: every loss's.
    """

    a: str
    b: str
    all: RankCorrelation
    best: RankCorrelation
    both: RankCorrelation
    k: int
    pick: str
    loses: float
    clusters: list[int]


def pair(
    names: tuple[str, str],
    a: Sequence[float],
    b: Sequence[float],
    labels: Sequence[str],
    k: int,
    count: int,
    key: Stream,
    resamples: int,
) -> Pair:
    """Two settings compared by the scores `a` and `b` of the losses with these labels."""
    first = best_places(a, k)
    second = best_places(b, k)

    def of(rows: Sequence[int], name: str) -> RankCorrelation:
        return kendall_tau([a[i] for i in rows], [b[i] for i in rows], key.at(name), resamples)

    # Who chooses by the first setting takes this one; `loses` is what that costs.
    pick = max(range(len(a)), key=lambda i: a[i])
    return Pair(
        *names,
        all=of(range(len(a)), "all"),
        best=of(first, "best"),
        both=of([i for i in first if i in second], "both"),
        k=k,
        pick=labels[pick],
        loses=max(b) - b[pick],
        clusters=clusters(a, b, count),
    )


def cluster_tables(
    pair: Pair, a: Sequence[float], b: Sequence[float], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """A pair's clusters: their losses and mean values, of `a` and of `b`."""
    tables = []
    for c in sorted(set(pair.clusters)):
        rows = [i for i, label in enumerate(pair.clusters) if label == c]
        means = [sum(score[i] for i in rows) / len(rows) for score in (a, b)]
        tables.append(
            {
                "n": len(rows),
                pair.a: means[0],
                pair.b: means[1],
                "losses": [labels[i] for i in rows],
            }
        )
    return tables
