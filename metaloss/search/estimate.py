"""What a search would cost: its trainings counted, its time measured on a few of them."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from metaloss.core.devices import resolve_device
from metaloss.core.formatting import clock
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.genomes import Genome
from metaloss.genomes._symbolic import Symbolic
from metaloss.losses.base import Losses
from metaloss.search.novelty import NoveltyFilter, SeenLosses
from metaloss.search.settings import Settings
from metaloss.strategies import Strategy
from metaloss.tasks import opening
from metaloss.tasks.full_training import FullTrainingTasks

TIMED = 8  # candidates that an estimate is timed on
TIMED_STEPS = 10  # steps of a full training that an estimate is timed on
TIMED_TRAININGS = 64  # trainings of every candidate on episodes that an estimate is timed on
STEP_GRID_COST = 12  # tuning the baseline's number of steps costs as much as so many rates


@dataclass(frozen=True)
class FamilyCost:
    """What one task family adds to a run's cost.

    Attributes:
        trainings: of candidates, in all generations.
        seconds: of everything, tuning and test included.
    """

    trainings: int
    seconds: float


def estimate_cost(settings: Settings) -> dict[str, Any]:
    """Count a run's trainings, and measure the time of a few of them; memory is the setting.

    Of formulas all are counted. A run trains fewer, because it knows those that it has trained on
    the same tasks.
    """
    device = resolve_device(settings.device)
    genome, strategy = settings.build_parts()
    key = Stream(settings.seed).at("estimate")
    losses = example_losses(genome, settings.tries, key)
    n_candidates = count_candidates(genome, strategy, settings.generations, key)
    costs: list[FamilyCost] = []
    with Local(device, settings.memory, tf32=settings.tf32) as engine:
        for family in settings.families:
            tasks = opening.open_family(family, device)
            if isinstance(tasks, FullTrainingTasks):
                costs.append(_cost_of_full_trainings(settings, tasks, losses, n_candidates, key))
            else:
                costs.append(_cost_of_episodes(settings, tasks, losses, n_candidates, key, engine))
    return {
        "trainings": sum(cost.trainings for cost in costs),
        "seconds": round(sum(cost.seconds for cost in costs), 1),
        "memory_bytes": settings.memory,
        "device": str(device),
    }


def _cost_of_episodes(
    settings: Settings, episodes: Any, losses: Losses, n_candidates: int, key: Stream, engine: Local
) -> FamilyCost:
    """The cost of a family of episodes.

    Args:
        settings: of the run.
        episodes: the family with its images.
        losses: examples of candidates, which are timed.
        n_candidates: of all generations.
        key: of the tasks that they are timed on.
        engine: trains them.
    """
    # On two cores both must be busy, or the estimate would be twice too long.
    each_worker = min(TIMED_TRAININGS // engine.workers, settings.tasks_per_generation)
    n_tasks = max(1, each_worker) * engine.workers
    keys = [key.at(t) for t in range(n_tasks)]
    tasks = episodes.sample(keys, val=settings.validation)
    engine.score(losses[:1], episodes, tasks, keys)  # the first call compiles or loads its code
    began = time.perf_counter()
    engine.score(losses, episodes, tasks, keys)
    seconds_each = (time.perf_counter() - began) / (len(losses) * n_tasks)
    trainings = n_candidates * settings.tasks_per_generation
    winner = (settings.finalists + 2) * settings.winner_tasks
    tuning = STEP_GRID_COST * len(settings.rates) * settings.baseline_tasks
    return FamilyCost(trainings, seconds_each * (trainings + winner + tuning))


def _cost_of_full_trainings(
    settings: Settings, tasks: FullTrainingTasks, losses: Losses, n_candidates: int, key: Stream
) -> FamilyCost:
    """The cost of a family of full trainings, measured on a few steps of one.

    Args:
        settings: of the run.
        tasks: the family with its images.
        losses: examples of candidates; the first one is timed.
        n_candidates: of all generations.
        key: of the training.
    """
    trainings = n_candidates * tasks.most(settings.tasks_per_generation)
    tuning = (len(tasks.rates(settings.rates)) + 1) * tasks.most(settings.baseline_tasks)
    winner = (settings.finalists + 2) * tasks.most(settings.winner_tasks)
    test = 2 * tasks.most(settings.test_tasks)
    looks = settings.generations // settings.report_every * tasks.most(settings.baseline_tasks)
    seconds_each = _seconds_of_full_training(tasks, losses, key) / tasks.family.workers
    return FamilyCost(trainings, seconds_each * (trainings + tuning + winner + test + looks))


def _seconds_of_full_training(tasks: FullTrainingTasks, losses: Losses, key: Stream) -> float:
    """Seconds of one full training: its start and a look at held-out images in every epoch, and its
    steps."""
    steps, epochs = tasks.length
    few = min(steps, TIMED_STEPS)
    measured = []
    for n in (1, 1, few):  # the first one imports Lightning, and is not counted
        began = time.perf_counter()
        tasks.scores(losses[:1], "train", [key], steps=(n,))
        measured.append(time.perf_counter() - began)
    _, one_step, several_steps = measured
    seconds_per_step = max(several_steps - one_step, 0.0) / max(few - 1, 1)
    return one_step * epochs + seconds_per_step * (steps - 1)


def example_losses(genome: Genome, tries: int, key: Stream) -> Losses:
    """A few random candidates, of formulas such as a search would train."""
    seen = SeenLosses(genome.filters) if isinstance(genome, Symbolic) else None
    novelty_filter = NoveltyFilter(genome, seen, tries)
    novelty_filter.start_generation()
    return novelty_filter.losses(novelty_filter.sample(TIMED, key.at("examples")))


def count_candidates(genome: Genome, strategy: Strategy, generations: int, key: Stream) -> int:
    """Count the losses of all generations; for formulas, with the control of every task epoch.

    The first generation, those that begin a further epoch, and all others have three sizes: the
    strategy is run with made-up fitness until each of them is known.
    """
    begins = [
        (number == 1, strategy.epoch(number) != strategy.epoch(number - 1))
        for number in range(1, generations + 1)
    ]
    state = strategy.init(genome, key)
    sizes = dict[tuple[bool, bool], int]()
    for number, kind in enumerate(begins):
        if len(sizes) == len(set(begins)):
            break
        population, state = strategy.ask(state, genome, key.at(number))
        sizes[kind] = len(population)
        state = strategy.tell(state, population, torch.zeros(len(population)))
    epochs = len({strategy.epoch(number) for number in range(1, generations + 1)})
    return sum(sizes[kind] for kind in begins) + isinstance(genome, Symbolic) * epochs


def estimate_text(estimate: dict[str, Any]) -> str:
    """The estimate as one line."""
    memory = estimate["memory_bytes"] / 2**30
    return (
        f"{estimate['trainings']} trainings, about {clock(estimate['seconds'])} on this "
        f"{estimate['device']} as busy as it is now; trainings take at most {memory:.1f} GiB at "
        "once (--set memory=BYTES)"
    )
