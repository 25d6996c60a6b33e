"""What a search would cost: its trainings counted, its time measured on a few of them."""

from collections import Counter
from typing import Any

import torch

from metaloss.core.devices import resolve_device
from metaloss.core.formatting import clock
from metaloss.core.streams import Stream
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.genomes import Genome, SymbolicGenome
from metaloss.losses.base import Losses
from metaloss.search.election import election_rounds
from metaloss.search.novelty import NoveltyFilter, SeenLosses
from metaloss.search.settings import Settings
from metaloss.strategies import GradientStrategy, Strategy
from metaloss.tasks import opening
from metaloss.tasks.protocols import SearchBudget

TIMED = 8  # candidates that an estimate is timed on
GRADIENT_COST = 4  # trainings that a gradient takes as long as (`benchmarks/gradients.py`)


def estimate_cost(settings: Settings, engine: EngineTable = None) -> dict[str, Any]:
    """Count a run's trainings, and measure the time of a few of them; memory is the setting.

    Of formulas all are counted. A run trains fewer, because it knows those that it has trained on
    the same tasks. A gradient counts as the trainings that it takes as long as.
    """
    device = resolve_device(settings.device)
    genome, strategy = settings.build_parts()
    key = Stream(settings.seed).at("estimate")
    losses = example_losses(genome, settings.tries, key)
    course = settings.task_course()
    candidates = Counter[int]()
    for number, count in enumerate(count_candidates(genome, strategy, settings.generations, key)):
        of_gradients = gradient_trainings(settings, strategy, 1 + number, count)
        candidates[course.of_generation(1 + number)] += count + of_gradients
    budget = SearchBudget(
        candidates=candidates,
        validation=settings.validation,
        rates=settings.rates,
        baseline_tasks=settings.baseline_tasks,
        # Beside the best of generations stand two centres of the population.
        election=election_rounds(settings.finalists + 2, settings.winner_tasks),
        test_tasks=settings.test_tasks,
        reports=settings.generations // settings.report_every,
    )
    with open_engine(engine, device, settings.memory, tf32=settings.tf32) as opened:
        costs = [
            opening.open_family(family, device).estimate(opened, losses, budget, key)
            for family in settings.families
        ]
    return {
        "trainings": sum(cost.trainings for cost in costs),
        "seconds": round(sum(cost.seconds for cost in costs), 1),
        "memory_bytes": settings.memory,
        "device": str(device),
    }


def gradient_trainings(
    settings: Settings, strategy: Strategy, generation: int, candidates: int
) -> int:
    """How many trainings of one task a generation's gradients take as long as.

    Args:
        settings: of the search.
        strategy: the outer algorithm.
        generation: its number: 1, 2, ...
        candidates: how many it has.
    """
    own = GRADIENT_COST * candidates if isinstance(strategy, GradientStrategy) else 0
    stage = settings.refine
    if not stage.at(generation):
        return own
    # Those that are refined are scored once more.
    return own + min(stage.best, candidates) * (GRADIENT_COST * stage.steps + 1)


def example_losses(genome: Genome, tries: int, key: Stream) -> Losses:
    """A few random candidates, of formulas such as a search would train."""
    seen = SeenLosses(genome.filters) if isinstance(genome, SymbolicGenome) else None
    novelty_filter = NoveltyFilter(genome, seen, tries)
    novelty_filter.start_generation()
    return novelty_filter.losses(novelty_filter.sample(TIMED, key.at("examples")))


def count_candidates(
    genome: Genome, strategy: Strategy, generations: int, key: Stream
) -> list[int]:
    """Count the losses of each generation; for formulas, with the control of every task epoch.

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
        # How many candidates are asked for does not depend on what fitness they had.
        state = strategy.tell(state, population, torch.zeros(len(population)))
    # Cross-entropy, the control of formulas, is trained once on each epoch's tasks.
    control = isinstance(genome, SymbolicGenome)
    return [sizes[kind] + (control and any(kind)) for kind in begins]


def estimate_text(estimate: dict[str, Any]) -> str:
    """The estimate as one line."""
    memory = estimate["memory_bytes"] / 2**30
    return (
        f"{estimate['trainings']} trainings, about {clock(estimate['seconds'])} on this "
        f"{estimate['device']} as busy as it is now; trainings take at most {memory:.1f} GiB at "
        "once (--set memory=BYTES)"
    )
