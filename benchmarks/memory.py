"""How much memory a search for formulas takes for each that it has met, its trainings left out.

    python benchmarks/memory.py [--formulas 5000] [--genome tree]

Formulas are varied, filtered, put to use once and recorded as trained, as a search does it.
Caches fill up in the first thousands; what each formula costs for good is the growth in the last
half.
"""

import argparse
import resource
from pathlib import Path

import torch

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.losses.base import TrainingTargets
from metaloss.search.novelty import NoveltyFilter
from metaloss.search.trained_losses import TrainedLosses

POPULATION = 100
CLASSES = 3
IMAGES = 4


def resident() -> float:
    """Megabytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main(formulas: int, kind: str) -> None:
    """Print the memory after every tenth of the formulas, and that of one of the last half."""
    genome = registry.build("genomes", {"kind": kind})
    trained = TrainedLosses(genome.filters)
    key = Stream(1)
    novelty_filter = NoveltyFilter(genome, trained.seen)
    novelty_filter.start_generation()
    population = novelty_filter.sample(POPULATION, key)
    target = torch.eye(CLASSES)[torch.arange(IMAGES) % CLASSES][None]
    logits = key.at("logits").normal(POPULATION, 1, IMAGES, CLASSES)
    marks = [(0, resident())]
    generation = 0
    print(f"{'formulas':>10}{'MB':>8}")
    while len(trained.entries) < formulas:
        losses = novelty_filter.losses(population)
        losses.bind(TrainingTargets(target)).logit_gradient(logits)
        reached = [(str(formula), 0.1 * number) for number, formula in enumerate(losses.formulas)]
        trained.add({"losses": reached, "control": 0.5}, losses.formulas)
        if len(trained.entries) >= marks[-1][0] + formulas / 10:
            marks.append((len(trained.entries), resident()))
            print(f"{marks[-1][0]:10}{marks[-1][1]:8.0f}", flush=True)
        generation += 1
        novelty_filter.start_generation()
        population = novelty_filter.mutate(
            population, torch.ones(POPULATION), key.at("mutate", generation)
        )
    (first, before), (last, after) = marks[len(marks) // 2], marks[-1]
    each = 1e6 * (after - before) / (last - first)
    print(f"{each / 1e3:.1f} KB a formula in the last half; 90 000 more: {9e4 * each / 1e9:.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formulas", type=int, default=5000)
    parser.add_argument("--genome", default="tree")
    options = parser.parse_args()
    main(options.formulas, options.genome)
