"""From scores [P T] to fitness [P]: higher is better, and a failed training can never win."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.registry import unknown_message
from metaloss.errors import SettingsError
from metaloss.evaluation.guard import Guard
from metaloss.evolution import Objective

NEEDS_BASELINE = frozenset({"wins", "regret"})
WORST = 10  # one of so many kinds is among the worst
# The score from which a relative improvement is reckoned where cross-entropy has less.
LEAST = 1e-3


def read(name: str, k: float = 1.0, spreads: Sequence[float] = (), worst: float = 0.0) -> Objective:
    """The objective of that name.

    Args:
        name: the objective's.
        k: what `robust` takes.
        spreads: what `regret` takes, of every kind by its number.
        worst: what `regret` takes.

    Raises:
        SettingsError: there is none.
    """
    known = {"mean": mean, "robust": robust(k), "wins": wins, "regret": regret(spreads, worst)}
    if name not in known:
        raise SettingsError(unknown_message("objective", name, known))
    return known[name]


def mean(
    score: Float[Tensor, "P T"],
    family: Int[Tensor, " T"],
    _baseline: Float[Tensor, " T"] | None = None,  # as all objectives take it
) -> Float[Tensor, " P"]:
    """The mean over families of each family's mean score; -inf where any training failed."""
    # Families weigh alike, however many tasks each has.
    return _failed_last(_means(score, family).mean(0)).float()


def robust(k: float) -> Objective:
    """An objective that prefers losses whose score varies little between tasks.

    It is each family's mean score less `k` standard deviations over its tasks.
    """

    def fitness(
        score: Float[Tensor, "P T"],
        family: Int[Tensor, " T"],
        _baseline: Float[Tensor, " T"] | None = None,  # as all objectives take it
    ) -> Float[Tensor, " P"]:
        # No Bessel correction: a family of one task has no spread, rather than an unknown one.
        spread = torch.stack([x.std(1, correction=0) for x in _families(score, family)])
        return _failed_last((_means(score, family) - k * spread).mean(0)).float()

    return fitness


def wins(
    score: Float[Tensor, "P T"],
    family: Int[Tensor, " T"],
    baseline: Float[Tensor, " T"] | None = None,
) -> Float[Tensor, " P"]:
    """In how many families cross-entropy is beaten, and a fraction that settles ties (Next
    Generation Loss, 2024).

    Ties go to the larger mean relative improvement over the families won, or over all where none
    is. That more wins beat fewer where both are above none is ours: the paper does not say. -inf
    where any training failed.

    Raises:
        ValueError: there is no baseline.
    """
    if baseline is None:
        raise ValueError("wins compares with cross-entropy and got no baseline")
    theirs = _means(baseline[None].nan_to_num(nan=0.0), family)  # [F 1]
    # [F P], relative as in the paper; where cross-entropy is near 0, reckoned from LEAST.
    gain = (_means(score, family) - theirs) / theirs.clamp(min=LEAST)
    won = gain > 0
    # Where no family is won all of them count, so that losers are ordered, too.
    counted = won | ~won.any(0)
    improvement = (gain * counted).sum(0) / counted.sum(0)
    # Rising, within (0, 1), and with double precision fine enough beside a whole number of wins.
    fraction = 0.5 + 0.5 * improvement / (1 + improvement.abs())
    return _failed_last(won.sum(0) + fraction)


def regret(spreads: Sequence[float], worst: float) -> Objective:
    """An objective that weighs kinds of tasks alike, whatever is to be gained at each.

    Of every kind it takes the mean gain over cross-entropy at its best rate, in units of the kind's
    spread. Beyond one unit a gain or a loss counts less and less (asinh), or a kind at which a
    training comes to nothing would outweigh all others. The fitness is the mean over kinds, mixed
    with the mean of their worst tenth.

    Args:
        spreads: of every kind, by its number.
        worst: the share that the worst tenth has in the fitness.
    """

    def fitness(
        score: Float[Tensor, "P T"],
        family: Int[Tensor, " T"],
        baseline: Float[Tensor, " T"] | None = None,
    ) -> Float[Tensor, " P"]:
        if baseline is None:
            raise ValueError("regret compares with cross-entropy and got no baseline")
        unit = score.new_tensor(spreads, dtype=torch.float64)[family.unique()]
        lead = score.double() - baseline.double().nan_to_num(nan=0.0)
        gain = (_means(lead, family) / unit[:, None]).asinh()  # [F P]
        lowest = gain.sort(0).values[: max(1, round(len(gain) / WORST))].mean(0)
        return _failed_last((1 - worst) * gain.mean(0) + worst * lowest).float()

    return fitness


def guarded(objective: Objective, guard: Guard) -> Objective:
    """An objective that ranks what is outside a guard behind all that is not."""

    def fitness(
        measured: Float[Tensor, "P T K"],
        family: Int[Tensor, " T"],
        baseline: Float[Tensor, "T K"] | None = None,
    ) -> Float[Tensor, " P"]:
        if baseline is None:
            raise ValueError("a guard compares with cross-entropy and got no baseline")
        own = objective(measured[..., 0], family, baseline[:, 0])
        return guard.ranked(own, guard.excess(measured, baseline, family))

    return fitness


def _families(score: Float[Tensor, "P T"], family: Int[Tensor, " T"]) -> list[Float[Tensor, "P _"]]:
    """Each family's own scores."""
    return [score[:, family == f].double() for f in family.unique()]


def _means(score: Float[Tensor, "P T"], family: Int[Tensor, " T"]) -> Float[Tensor, "F P"]:
    """Each family's mean score."""
    return torch.stack([x.mean(1) for x in _families(score, family)])


def _failed_last(fitness: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    # A mean over the tasks that did not fail would favour losses that fail on hard ones.
    return fitness.nan_to_num(nan=-torch.inf)
