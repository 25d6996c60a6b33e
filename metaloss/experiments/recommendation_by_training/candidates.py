"""What is tried: losses, each with a few of its own parameters, and prior corrections, at rates."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.selection import with_rates_between
from metaloss.experiments.recommendation_by_training.halving import Candidate
from metaloss.losses.base import Losses

CORRECTED = f"{CE}, prior correction"
TAUS = (0.5, 1.0, 1.5, 2.0, 3.0)  # of prior corrections; they cost no training
# Of the usual rate, where no rates are given. The halving goes on beyond their ends.
CE_FACTORS = (1 / 3, 1.0, 3.0)
FACTORS = (1.0, 3.0)
STEP = 3.0  # between two rates of a loss; cross-entropy has one half-way, too
Item = TypeVar("Item")


def candidates(
    compared: Sequence[ComparedLoss],
    rates: Sequence[float],
    usual: float,
    own: int,
    uneven: bool = False,
) -> tuple[list[Candidate], list[Losses]]:
    """All candidates, cross-entropy's first, and the losses that their numbers count.

    Cross-entropy also has the rates half-way between: a mere rescaling of it must not win by lying
    between two rates.

    Args:
        compared: the losses, cross-entropy first.
        rates: that were asked for.
        usual: the rate of the training where none were.
        own: choices of each published loss's own parameters, at most.
        uneven: whether classes are, so that prior corrections change something.
    """
    of_ce = with_rates_between(rates or [_rounded(usual * factor) for factor in CE_FACTORS])
    of_others = rates or [_rounded(usual * factor) for factor in FACTORS]
    losses: list[Losses] = []
    result: list[Candidate] = []
    for loss in compared:
        for spec, one in few(list(loss.variants().items()), own):
            numbered = [
                Candidate(loss.label, spec, len(losses), lr)
                for lr in (of_ce if loss.label == CE else of_others)
            ]
            result += numbered
            if uneven and loss.label == CE:
                result += [corrected(x, tau) for x in numbered for tau in TAUS]
            losses.append(one)
    return result, losses


def corrected(ce: Candidate, tau: float) -> Candidate:
    """The same trainings of cross-entropy, with a prior correction of their logits."""
    return replace(ce, label=CORRECTED, spec=f"{CORRECTED} (τ = {tau:g})", tau=tau)


def beyond(best: Candidate, tried: Sequence[Candidate]) -> list[Candidate]:
    """The same as the best candidate at the next rate, where its own is at the end of those tried.

    Args:
        best: of its group.
        tried: all of the group so far.
    """
    alike = [x for x in tried if x.number == best.number]
    rates = sorted({x.lr for x in alike})
    step = STEP**0.5 if best.number == 0 else STEP
    ends = {rates[-1]: step, rates[0]: 1 / step}
    if len(rates) < 2 or best.lr not in ends:
        return []
    lr = _rounded(best.lr * ends[best.lr])
    # All corrections of one rate, as they share its trainings.
    return [replace(x, lr=lr) for x in alike if x.lr == best.lr]


def _rounded(lr: float) -> float:
    return float(f"{lr:.2g}")


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
