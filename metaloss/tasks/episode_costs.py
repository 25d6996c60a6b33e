"""What a search with a family of episodes costs, by the time of a few of its trainings."""

import time
from collections.abc import Callable

from metaloss.losses.base import Losses
from metaloss.tasks.protocols import FamilyCost, SearchBudget

TIMED_TRAININGS = 64  # trainings of every example that an estimate is timed on
STEP_GRID_COST = 12  # tuning the number of steps costs as much as so many rates


def timed_tasks(workers: int, tasks: int) -> int:
    """On how many tasks an estimate is timed, where a generation has so many."""
    # On two cores both must be busy, or the estimate would be twice too long.
    each_worker = min(TIMED_TRAININGS // workers, tasks)
    return max(1, each_worker) * workers


def seconds_each(train: Callable[[Losses], object], losses: Losses, tasks: int) -> float:
    """The seconds that a training takes.

    Args:
        train: trains losses on the timed tasks.
        losses: examples of candidates.
        tasks: how many tasks these are.
    """
    train(losses[:1])  # the first call compiles or loads its code
    began = time.perf_counter()
    train(losses)
    return (time.perf_counter() - began) / (len(losses) * tasks)


def search_cost(budget: SearchBudget, seconds: float, tuning: int) -> FamilyCost:
    """What a search costs whose trainings take so many seconds each, with so many for tuning."""
    trainings = budget.candidate_trainings()
    winner = budget.election_trainings()
    return FamilyCost(trainings, seconds * (trainings + winner + tuning))
