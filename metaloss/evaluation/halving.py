"""Losses with many settings, tuned by successive halving (Jamieson and Talwalkar 2016).

All settings are tried on few tasks, the best of them on more, and the best of those on all. What
becomes of a loss does not depend on the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.tuning import Tuned, repeated
from metaloss.evaluation.variants import TunedVariant, Variants
from metaloss.losses.base import Losses

# Of every round but the last: one of so many tasks is looked at, and one of so many settings of a
# loss's whole grid goes on.
ROUNDS = ((8, 3), (4, 7))
LEAST = 2  # tasks of a round, and settings of a loss that go on, at least


@dataclass(frozen=True)
class _Pair:
    """A variant of a loss, by how it is written, at a learning rate."""

    spec: str
    lr: float


_Scores = dict[_Pair, Float[Tensor, " T"]]  # of one loss's settings, task by task


def tune_by_halving(
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
    left = grids
    seen: list[_Scores] = [dict.fromkeys(grid, torch.empty(0)) for grid in grids]
    done = 0
    for upto, share in _rounds(tasks):
        new = _scores(evaluation, of_losses, left, range(done, upto), steps)
        seen = [
            {pair: torch.cat([before[pair], x]) for pair, x in now.items()}
            for before, now in zip(seen, new, strict=True)
        ]
        done = upto
        if done < tasks:
            left = [
                _best(pairs, each, settings_left(len(grid), share))
                for grid, pairs, each in zip(grids, left, seen, strict=True)
            ]
    return [_tuned(variants, each, steps) for variants, each in zip(of_losses, seen, strict=True)]


def settings_left(grid: int, share: int) -> int:
    """How many settings of a loss's grid go on, where one of `share` does.

    >>> settings_left(9, 3), settings_left(9, 7), settings_left(45, 7)
    (3, 2, 7)
    """
    return min(grid, max(LEAST, -(-grid // share)))


def halving_trainings(grid: int, tasks: int) -> int:
    """How many trainings it takes to tune a loss of so many settings on so many tasks.

    >>> halving_trainings(9, 16)  # 9 settings on 2 tasks, 3 on 2 more, 2 on the other 12
    48
    """
    total = done = 0
    left = grid
    for upto, share in _rounds(tasks):
        total += left * (upto - done)
        left = settings_left(grid, share)
        done = upto
    return total


def _rounds(tasks: int) -> list[tuple[int, int]]:
    """Of every round: after how many tasks it ends, and of how many settings one goes on then."""
    # Where tasks are so few that two rounds are of the same ones, the stricter one stays.
    early = {max(LEAST, tasks // part): share for part, share in ROUNDS}
    return [*((upto, share) for upto, share in early.items() if upto < tasks), (tasks, 1)]


def _best(pairs: Sequence[_Pair], scores: _Scores, count: int) -> list[_Pair]:
    """The settings that go on, in the order of the grid."""
    kept = set(sorted(pairs, key=lambda pair: -_mean(scores[pair]))[:count])
    return [pair for pair in pairs if pair in kept]


def _mean(scores: Float[Tensor, " T"]) -> float:
    """The lowest there is where a training failed, so that it cannot win."""
    return float(scores.double().mean().nan_to_num(nan=-torch.inf))


def _scores(
    evaluation: FamilyEvaluation,
    of_losses: Sequence[Variants],
    of_pairs: Sequence[Sequence[_Pair]],
    tasks: range,
    steps: int,
) -> list[_Scores]:
    """What each setting of each loss reaches on some of the tasks."""
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
        tasks,
        rates=[torch.tensor([pair.lr for pair in own]) for _, _, own in jobs],
        steps=(steps,),
    )
    found: list[_Scores] = [{} for _ in of_losses]
    for (number, _, own), scores in zip(jobs, seen, strict=True):
        found[number] |= dict(zip(own, scores[0], strict=True))
    return found


def _tuned(variants: Variants, scores: _Scores, steps: int) -> TunedVariant:
    best = max(scores, key=lambda pair: _mean(scores[pair]))
    tuned = Tuned(variants[best.spec], best.lr, steps, scores[best])
    return TunedVariant(tuned.losses, replace(tuned.setting, spec=best.spec))
