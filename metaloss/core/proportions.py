"""Intervals of shares, and as how many independent images the images behind a share count."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

NORMAL = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


def wilson(share: float, n: int | float) -> tuple[float, float]:
    """The 95 % score interval of a share of n independent images (Wilson 1927).

    Args:
        share: that was found; a mean over trainings may lie between whole numbers of images.
        n: images; as many as count as independent need be no whole number.

    >>> tuple(round(x, 3) for x in wilson(0.5, 4))
    (0.15, 0.85)
    """
    if not n or math.isnan(share):
        return math.nan, math.nan
    z2 = NORMAL**2 / n
    middle = share + z2 / 2
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    # Of 0 and 1 rounding must not leave the interval's end beyond them.
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def effective_size(
    values: Float[Tensor, " n"],
    weights: Float[Tensor, " n"],
    groups: Int[Tensor, " n"] | None = None,
) -> float:
    """As how many independent images the images count whose weighted mean is taken.

    By their weights they count as (Σ w)² / Σ w² (Kish 1965). Images of one group, such as a
    patient, may be alike: by the variance of a mean of groups that number lies between what is so
    counted of groups and of images, 1 / n = ρ / n_groups + (1 - ρ) / n_images, with their
    intraclass correlation ρ. An interval rests on what few groups show of ρ, so it gets wider as
    Student's t is wider than the normal distribution (Korn and Graubard 1998), but never wider than
    where images of a group are all alike.

    Args:
        values: of each image, from 0 to 1.
        weights: of each.
        groups: of each; None: every image stands for itself.

    >>> images, patients = torch.ones(12), torch.arange(12) // 3
    >>> effective_size(images, images), effective_size(images, images, patients)
    (12.0, 4.0)
    """
    of_images = _kish(weights)
    if groups is None or not len(groups):
        return of_images
    _, place = groups.unique(return_inverse=True)
    of_groups = _kish(_sums(weights, place))
    number = int(place.max()) + 1
    if number == 1:
        return of_groups
    from scipy.special import stdtrit  # slow to import

    rho = intraclass_correlation(values, place)
    size = 1 / (rho / of_groups + (1 - rho) / of_images)
    return max(of_groups, size * (NORMAL / float(stdtrit(number - 1, 0.975))) ** 2)


def intraclass_correlation(values: Float[Tensor, " n"], groups: Int[Tensor, " n"]) -> float:
    """How alike the values of a group are: 0 as those of different groups, 1 equal.

    It is the estimate of an analysis of variance (Donner 1986), and 1 where nothing varies, which
    says nothing of what would.

    Args:
        values: of each image.
        groups: of each, at least two of them.
    """
    values = values.double()
    _, place = groups.unique(return_inverse=True)
    sizes = place.bincount().double()
    n, number = len(values), len(sizes)
    means = _sums(values, place) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (number - 1)
    within = float(((values - means[place]) ** 2).sum()) / max(1, n - number)
    usual = (n - float((sizes**2).sum()) / n) / (number - 1)  # images of a group
    whole = between + (usual - 1) * within
    return 1.0 if whole == 0 else min(1.0, max(0.0, (between - within) / whole))


def _kish(weights: Float[Tensor, " n"]) -> float:
    """(Σ w)² / Σ w²; 0 of nothing."""
    weights = weights.double()
    return float(weights.sum() ** 2 / weights.square().sum()) if len(weights) else 0.0


def _sums(values: Float[Tensor, " n"], place: Int[Tensor, " n"]) -> Float[Tensor, " G"]:
    """The sum of each group's values."""
    sums = torch.zeros(int(place.max()) + 1, dtype=torch.float64)
    return sums.index_add_(0, place, values.double())
