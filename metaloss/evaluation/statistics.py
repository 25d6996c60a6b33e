"""Statistics of paired scores, and of two rankings.

Scores are paired where two losses trained on the same tasks from the same initial weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.core.streams import Stream

LEVEL = 0.05
MATTERS = 0.02  # a difference of accuracy: an interval that holds 0 and more than this cannot tell


@dataclass(frozen=True)
class Paired:
    """The mean difference of two losses over tasks (0.01 is a percentage point of accuracy)."""

    mean: float
    low: float
    high: float
    error: float  # standard error
    tasks: int


def paired(
    a: Float[Tensor, " T"], b: Float[Tensor, " T"], key: Stream, resamples: int = 10_000
) -> Paired:
    """How much better `a` is than `b`, with a 95 % percentile bootstrap interval over tasks (Efron
    1979).

    A failed training counts as an accuracy of 0.
    """
    difference = a.double().nan_to_num(nan=0.0) - b.double().nan_to_num(nan=0.0)
    n = len(difference)
    # [R]: pairs are drawn together, so what both losses owe to a task cancels out.
    means = difference[key.integers(n, resamples, n)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Paired(float(difference.mean()), low, high, float(difference.std() / n**0.5), n)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ of two scores of the same losses; None where there is no order.

    It is his τ-b: ties count neither for nor against.
    """
    from scipy.stats import kendalltau  # slow to import

    tau = float(kendalltau(a, b).statistic) if len(a) > 1 else math.nan
    return None if math.isnan(tau) else tau


@dataclass(frozen=True)
class RankTest:
    """A rank test of two losses on the same tasks.

    Attributes:
        p: of Wilcoxon's signed-rank test, two-sided; 1 where no task differs.
        effect: matched-pairs rank-biserial correlation (Kerby 2014), from -1 to 1: by how much the
            ranks of the differences in favour outweigh those against.
        wins, ties, losses: tasks on which the first is better, equal, worse.
    """

    __test__ = False  # no test case, whatever pytest thinks of its name

    p: float
    effect: float
    wins: int
    ties: int
    losses: int


def rank_test(a: Float[Tensor, " T"], b: Float[Tensor, " T"]) -> RankTest:
    """How a first loss's scores rank against a second's, a failed training counting as 0."""
    from scipy.stats import rankdata, wilcoxon  # slow to import

    difference = (a.double().nan_to_num(nan=0.0) - b.double().nan_to_num(nan=0.0)).numpy()
    # Tasks without a difference have no sign to rank; they are counted as ties.
    other = difference[difference != 0]
    wins = int((other > 0).sum())
    counts = (wins, len(difference) - len(other), len(other) - wins)
    if not len(other):
        return RankTest(1.0, 0.0, *counts)
    ranks = rankdata(abs(other))
    effect = float((ranks * (2.0 * (other > 0) - 1)).sum() / ranks.sum())
    # Without ties few tasks allow the exact distribution; scipy chooses.
    return RankTest(float(wilcoxon(other).pvalue), effect, *counts)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction (Holm 1979) for that many tests, in the same order."""
    # The smallest of n p-values is multiplied by n, the next one by n - 1, and so on.
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, i in enumerate(order):
        # Never below a smaller one's, so that the order of the p-values stays.
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def direction(p: float, *intervals: tuple[float, float]) -> int:
    """1 for better, -1 for worse, 0 where the intervals and the test do not agree on either."""
    if p >= LEVEL or any(low * high <= 0 for low, high in intervals):
        return 0
    return 1 if intervals[0][0] > 0 else -1


def verdict(p: float, *intervals: tuple[float, float]) -> str:
    """What a difference's intervals and its test allow one to say, in words.

    >>> verdict(0.2, (-0.01, 0.012)), verdict(0.2, (-0.01, 0.09)), verdict(0.001, (0.01, 0.03))
    ('no difference', 'too few images to tell', 'better')
    """
    if way := direction(p, *intervals):
        return "better" if way > 0 else "worse"
    # "No difference" is said only where every interval is narrow and close to 0.
    widest = max(abs(end) for interval in intervals for end in interval)
    return "no difference" if widest <= MATTERS else "too few images to tell"


class Resamples(Protocol):
    """Resamples of tasks and images, and what scores are in them."""

    def scores(self, answers: Float[Tensor, "T *V"]) -> Float[Tensor, " T"]:
        """The score on every task, from the answers; NaN for a training that diverged."""

    def accuracy(self, answers: Float[Tensor, "T *V"]) -> float | None:
        """The mean accuracy, a failed training counting as 0; None where it is the score itself."""

    def gain_interval(
        self,
        ours: Float[Tensor, "T *V"] | Bool[Tensor, "T *V"],
        theirs: Float[Tensor, "T *V"] | Bool[Tensor, "T *V"],
        certainty: float = 0.95,
    ) -> tuple[float, float]:
        """The interval of how much higher the first loss scores."""


@dataclass(frozen=True)
class Draws:
    """Resamples of tasks and of the pool's images, the same for all losses of a comparison (Owen
    2007).

    Tasks are cut from one pool, so one image serves many of them: an image that is drawn twice
    counts twice in every task it is in. Such an interval holds for new tasks of new images and is a
    little wide.

    Attributes:
        tasks: how often each task was drawn.
        images: how often each image of the pool was.
        place: the image of the pool that each answer of each task is about.
        weight: the sum of an image's counts over each task's images.
    """

    tasks: Float[Tensor, "R T"]
    images: Float[Tensor, "N R"]
    place: Int[Tensor, "T V"]
    weight: Float[Tensor, "T R"]

    @classmethod
    def of(cls, rows: Int[Tensor, "T V"], key: Stream, resamples: int = 2_000) -> "Draws":
        """Resamples for tasks whose validation images these are."""
        known, place = rows.unique(return_inverse=True)
        tasks = len(rows)
        n = len(known)
        drawn = [
            _counts(key.at(name).integers(k, resamples, k), k)
            for name, k in (("tasks", tasks), ("images", n))
        ]
        # [N R], as the products with it take it.
        images = drawn[1].T.contiguous()
        return cls(drawn[0], images, place, _spread(torch.ones(place.shape), place, n) @ images)

    def interval(
        self, a: Bool[Tensor, "T V"], b: Bool[Tensor, "T V"], certainty: float = 0.95
    ) -> tuple[float, float]:
        """The interval of how much more often the first loss's predictions are right."""
        # [T R].
        difference = _spread(a.float() - b.float(), self.place, len(self.images)) @ self.images
        # A task none of whose images was drawn, which only tiny tasks can meet, shows no
        # difference.
        means = (self.tasks.T * difference / self.weight.clamp(min=1)).mean(0)
        return ends(means.double(), certainty)

    def scores(self, answers: Float[Tensor, "T V"] | Bool[Tensor, "T V"]) -> Float[Tensor, " T"]:
        """The share of right answers on every task; NaN for a training that diverged."""
        return answers.double().mean(1)

    def accuracy(self, answers: Float[Tensor, "T V"]) -> None:
        """None: it is the score itself."""
        return

    def gain_interval(
        self,
        ours: Float[Tensor, "T V"] | Bool[Tensor, "T V"],
        theirs: Float[Tensor, "T V"] | Bool[Tensor, "T V"],
        certainty: float = 0.95,
    ) -> tuple[float, float]:
        """The interval of how much higher the first loss scores."""
        # A training that diverged has no right answers.
        our_right = ours.where(self.scores(ours).isfinite()[:, None], 0) > 0
        their_right = theirs.where(self.scores(theirs).isfinite()[:, None], 0) > 0
        return self.interval(our_right, their_right, certainty)


def ends(means: Float[Tensor, " R"], certainty: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a resampled mean, in float64."""
    quantiles = torch.tensor([(1 - certainty) / 2, (1 + certainty) / 2], dtype=torch.float64)
    low, high = means.quantile(quantiles).tolist()
    return low, high


def _counts(drawn: Int[Tensor, "R n"], size: int) -> Float[Tensor, "R size"]:
    """How often every number was drawn in each row."""
    return torch.zeros(len(drawn), size).scatter_add_(1, drawn, torch.ones(drawn.shape))


def _spread(
    values: Float[Tensor, "T V"], place: Int[Tensor, "T V"], size: int
) -> Float[Tensor, "T N"]:
    """Each task's values at the places of their images."""
    return torch.zeros(len(values), size).scatter_add_(1, place, values)


def critical_difference(losses: int, families: int) -> float:
    """How far apart the mean ranks of two losses must lie to differ significantly.

    The test is Nemenyi's (1963), as in Demšar 2006, for k losses over N families.
    """
    from scipy.stats import studentized_range  # slow to import

    # Over the root of 2, and for infinitely many degrees of freedom, as in Demšar's table.
    q = float(studentized_range.ppf(0.95, losses, math.inf)) / math.sqrt(2)
    return q * math.sqrt(losses * (losses + 1) / (6 * families))


def mean_ranks(score: Float[Tensor, "L F"]) -> list[float]:
    """Each loss's mean rank over the families, 1 being the best; equal scores share a rank."""
    from scipy.stats import rankdata  # slow to import

    return [float(x) for x in rankdata(-score.double().numpy(), axis=0).mean(1)]
