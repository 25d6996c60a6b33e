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


def direction(p: float, interval: tuple[float, float]) -> int:
    """1 for better, -1 for worse, 0 where the interval and the test do not agree on either."""
    low, high = interval
    if p >= LEVEL or low * high <= 0:
        return 0
    return 1 if low > 0 else -1


def verdict(p: float, interval: tuple[float, float], negligible: float) -> str:
    """What a difference's interval and its test allow one to say, in words.

    Args:
        p: of the test.
        interval: of the difference.
        negligible: the difference that is none in practice.

    >>> verdict(0.2, (-0.01, 0.012), 0.02), verdict(0.2, (-0.01, 0.09), 0.02)
    ('no difference', 'too few images to tell')
    >>> verdict(0.001, (0.01, 0.03), 0.02)
    'better'
    """
    if way := direction(p, interval):
        return "better" if way > 0 else "worse"
    # "No difference" is said only where the interval is narrow and close to 0.
    widest = max(abs(end) for end in interval)
    return "no difference" if widest <= negligible else "too few images to tell"


class Resamples(Protocol):
    """Resamples of the images that tasks share, and what scores are in them."""

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
    """Resamples of the images of a pool, the same for all losses of a comparison.

    Tasks are cut from one pool, so one image serves many of them: an image that is drawn twice
    counts twice in every task it is in. Images are drawn within their class, as tasks hold a fixed
    number of each, and one fewer than there are, so that variances are not underestimated (Rao and
    Wu 1988). Where images belong together, as those of one patient do, whole groups are drawn in
    their place, within the class that most of a group's images have (cluster bootstrap, Davison and
    Hinkley 1997, section 3.8).

    Attributes:
        images: how often each image of the pool was drawn.
        place: the image of the pool that each answer of each task is about.
        weight: the sum of an image's counts over each task's images.
        freedom: images, or groups of them, less classes: the degrees of freedom of what they vary
            by.
    """

    images: Float[Tensor, "N R"]
    place: Int[Tensor, "T V"]
    weight: Float[Tensor, "T R"]
    freedom: int

    @classmethod
    def of(
        cls,
        rows: Int[Tensor, "T V"],
        classes: Int[Tensor, "T V"],
        key: Stream,
        resamples: int = 2_000,
        groups: Int[Tensor, " _"] | None = None,
    ) -> "Draws":
        """Resamples for some tasks.

        Args:
            rows: the validation images of every task.
            classes: the class in the data set of each of them.
            key: of the resamples.
            resamples: how many.
            groups: of every row of the data set; None: each image stands for itself.
        """
        known, place = rows.unique(return_inverse=True)
        n = len(known)
        of_image = torch.zeros(n, dtype=torch.long)
        of_image[place.flatten()] = classes.flatten()
        unit, of_unit = _drawn_together(of_image, None if groups is None else groups[known])
        times = torch.zeros(len(of_unit), resamples)
        for number in of_unit.unique().tolist():
            members = (of_unit == number).nonzero().flatten()
            size = len(members)
            drawn = key.at("images", number).integers(size, resamples, max(1, size - 1))
            times[members] = _counts(drawn, size).T
        images = times[unit]
        weight = _spread(torch.ones(place.shape), place, n) @ images
        return cls(images, place, weight, len(of_unit) - len(of_unit.unique()))

    def interval(
        self, a: Bool[Tensor, "T V"], b: Bool[Tensor, "T V"], certainty: float = 0.95
    ) -> tuple[float, float]:
        """The interval of how much more often the first loss's predictions are right."""
        lead = a.float() - b.float()
        # A task none of whose images was drawn, which only tiny tasks can meet, shows no
        # difference.
        resampled = _spread(lead, self.place, len(self.images)) @ self.images  # [T R]
        resampled /= self.weight.clamp(min=1)
        return interval_over_tasks_and_images(lead.mean(1), resampled, self.freedom, certainty)

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


def interval_over_tasks_and_images(
    difference: Float[Tensor, " T"],
    resampled: Float[Tensor, "T R"],
    freedom: int,
    certainty: float = 0.95,
) -> tuple[float, float]:
    """The interval of a mean difference that holds for new tasks of new images.

    The variance of a mean over T tasks is S² / T, S² being the sample variance of the tasks, plus
    the mean covariance of two tasks: what images, which tasks share, add. As in clustering by two
    factors (Cameron, Gelbach and Miller 2011) the chance of one image in one task counts once;
    resampling tasks and images together counts it up to three times (Owen 2007).

    Args:
        difference: of every task.
        resampled: the same in every resample of the images.
        freedom: the degrees of freedom of the images.
        certainty: of the interval.
    """
    from scipy.special import stdtrit  # slow to import

    tasks = len(difference)
    difference = difference.double()
    resampled = resampled.double()
    of_sum = float(resampled.sum(0).var())
    by_images = max(0.0, of_sum - float(resampled.var(1).sum())) / max(1, tasks * (tasks - 1))
    by_tasks = float(difference.var()) / tasks if tasks > 1 else of_sum
    variance = by_tasks + by_images
    mean = float(difference.mean())
    if variance == 0:
        return mean, mean
    # Degrees of freedom of a sum of two variances (Satterthwaite 1946).
    own_freedom = tasks - 1 if tasks > 1 else freedom
    by_tasks_share, by_images_share = by_tasks / variance, by_images / variance
    both = 1 / (by_tasks_share**2 / max(1, own_freedom) + by_images_share**2 / max(1, freedom))
    reach = float(stdtrit(both, (1 + certainty) / 2)) * math.sqrt(variance)
    return mean - reach, mean + reach


def _drawn_together(
    classes: Int[Tensor, " N"], groups: Int[Tensor, " N"] | None
) -> tuple[Int[Tensor, " N"], Int[Tensor, " U"]]:
    """What is drawn at once: the number of every image's unit, and the class of every unit.

    Args:
        classes: of the images.
        groups: of the images; None: each is a unit.
    """
    if groups is None:
        return torch.arange(len(classes)), classes
    known, unit = groups.unique(return_inverse=True)
    counts = torch.zeros(len(known), int(classes.max()) + 1)
    counts.index_put_((unit, classes), torch.ones(len(unit)), accumulate=True)
    return unit, counts.argmax(1)


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
