"""The losses that are tried, each with a few of its own parameters, at every rate."""

from collections.abc import Sequence
from typing import TypeVar

from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.selection import with_rates_between
from metaloss.experiments.recommendation_by_training.halving import Candidate
from metaloss.losses.base import Losses

FACTORS = (1 / 3, 1.0, 3.0)  # of the usual rate, where no rates are given
Item = TypeVar("Item")


def candidates(
    compared: Sequence[ComparedLoss], rates: Sequence[float], usual: float, own: int
) -> tuple[list[Candidate], list[Losses]]:
    """All candidates, cross-entropy's first, and the losses that their numbers count.

    Cross-entropy also has the rates half-way between: a mere rescaling of it must not win by lying
    between two rates.

    Args:
        compared: the losses, cross-entropy first.
        rates: that were asked for.
        usual: the rate of the training where none were.
        own: choices of each published loss's own parameters, at most.
    """
    rates = rates or [float(f"{usual * factor:.2g}") for factor in FACTORS]
    losses: list[Losses] = []
    result: list[Candidate] = []
    for loss in compared:
        for spec, one in few(list(loss.variants().items()), own):
            result += [
                Candidate(loss.label, spec, len(losses), lr)
                for lr in (with_rates_between(rates) if loss.label == CE else rates)
            ]
            losses.append(one)
    return result, losses


def few(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly from the first to the last.

    >>> few("abcdefg", 3), few("ab", 3), few("abc", 1)
    (['a', 'd', 'g'], ['a', 'b'], ['b'])
    """
    n = len(items)
    if n <= most:
        return list(items)
    if most == 1:
        return [items[n // 2]]
    return [items[round(i * (n - 1) / (most - 1))] for i in range(most)]
