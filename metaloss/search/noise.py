"""How much of a generation's best is luck: its lead in fitness, with the standard error of that."""

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.records import Lead
from metaloss.evaluation.guard import Guard
from metaloss.evolution import Objective, Scored

GROUPS = 16  # of tasks, at most, of which one after another is left out


def lead_of_best(scored: Scored, objective: Objective) -> Lead | None:
    """A generation's best beside the mean of its candidates; None where fewer than two trained.

    All candidates meet the same tasks, so what makes these hard is no part of the error. It is that
    of the jackknife: fitness is reckoned again without one task after another, or without one of
    some groups of them (Tukey 1958).

    Args:
        scored: the generation; what lies outside a guard does not count.
        objective: from scores alone to fitness.
    """
    score = scored.score
    alive = scored.fitness.isfinite() & ~Guard.outside(scored.fitness)
    tasks = score.shape[1]
    if int(alive.sum()) < 2 or tasks < 2:
        return None
    best = int(scored.fitness.argmax())
    baseline = scored.baseline
    if baseline is not None and baseline.ndim == 2:
        baseline = baseline[:, 0]

    def lead(kept: Tensor) -> Float[Tensor, ""]:
        of_ce = None if baseline is None else baseline[kept]
        fitness = objective(score[:, kept], scored.family[kept], of_ce).double()
        return fitness[best] - fitness[alive].mean()

    groups = min(GROUPS, tasks)
    number = torch.arange(tasks) % groups
    without = torch.stack([lead(number != group) for group in range(groups)])
    variance = (groups - 1) / groups * (without - without.mean()).square().sum()
    return Lead(mean=float(lead(number >= 0)), error=float(variance.sqrt()))
