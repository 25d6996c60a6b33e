"""Losses with many settings, tuned in two rounds: all on a few tasks, the best of them on all.

As in successive halving (Jamieson and Talwalkar 2016), of which these are two rungs. What becomes
of a loss does not depend on the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.tuning import Tuned, repeated
from metaloss.evaluation.variants import TunedVariant, Variants
from metaloss.losses.base import Losses

FIRST = 4  # of so many tasks one is looked at in the first round
KEPT = 5  # one of so many settings goes on
LEAST = 2  # of a loss's settings go on, at least


@dataclass(frozen=True)
class _Pair:
    """A variant of a loss, by how it is written, at a learning rate."""

    spec: str
    lr: float


def tune_in_two_rounds(
    evaluation: FamilyEvaluation,
    of_losses: Sequence[Variants],
    rates: Sequence[float],
    tasks: int,
    steps: int,
) -> list[TunedVariant]:
    """Each loss in its best variant at its best rate, on meta-validation tasks.

    Args:
        evaluation: trains on them.
        of_losses: the variants of each loss.
        rates: to choose from.
        tasks: how many decide.
        steps: of every training.
    """
    grids = [[_Pair(spec, lr) for spec in x for lr in rates] for x in of_losses]
    few = max(2, tasks // FIRST)
    scores = _scores(evaluation, of_losses, grids, few, steps)
    kept = [_best(grid, each) for grid, each in zip(grids, scores, strict=True)]
    scores = _scores(evaluation, of_losses, kept, tasks, steps)
    return [
        _tuned(variants, pairs, each, steps)
        for variants, pairs, each in zip(of_losses, kept, scores, strict=True)
    ]


def pairs_trained(grid: int) -> int:
    """How many of so many settings of a loss go on to the second round.

    >>> pairs_trained(9), pairs_trained(45)
    (2, 9)
    """
    return min(grid, max(LEAST, -(-grid // KEPT)))


def _best(grid: Sequence[_Pair], scores: Mapping[_Pair, Tensor]) -> list[_Pair]:
    """The settings that go on, in the order of the grid."""
    order = sorted(grid, key=lambda pair: -_mean(scores[pair]))
    kept = set(order[: pairs_trained(len(grid))])
    return [pair for pair in grid if pair in kept]


def _mean(scores: Float[Tensor, " T"]) -> float:
    """The lowest there is where a training failed, so that it cannot win."""
    return float(scores.double().mean().nan_to_num(nan=-torch.inf))


def _scores(
    evaluation: FamilyEvaluation,
    of_losses: Sequence[Variants],
    of_pairs: Sequence[Sequence[_Pair]],
    tasks: int,
    steps: int,
) -> list[dict[_Pair, Float[Tensor, " T"]]]:
    """What each setting of each loss reaches on the first tasks."""
    jobs: list[tuple[int, Losses, list[_Pair]]] = []
    for number, (variants, pairs) in enumerate(zip(of_losses, of_pairs, strict=True)):
        for spec, losses in variants.items():
            if own := [pair for pair in pairs if pair.spec == spec]:
                jobs.append((number, losses, own))
    seen = evaluation.family.evaluate(
        evaluation.engine,
        [repeated(losses, len(own)) for _, losses, own in jobs],
        "validation",
        evaluation.key.at("validation"),
        range(tasks),
        rates=[torch.tensor([pair.lr for pair in own]) for _, _, own in jobs],
        steps=(steps,),
    )
    found: list[dict[_Pair, Tensor]] = [{} for _ in of_losses]
    for (number, _, own), scores in zip(jobs, seen, strict=True):
        found[number] |= dict(zip(own, scores[0], strict=True))
    return found


def _tuned(
    variants: Variants, pairs: Sequence[_Pair], scores: Mapping[_Pair, Tensor], steps: int
) -> TunedVariant:
    best = max(pairs, key=lambda pair: _mean(scores[pair]))
    tuned = Tuned(variants[best.spec], best.lr, steps, scores[best])
    return TunedVariant(tuned.losses, replace(tuned.setting, spec=best.spec))
