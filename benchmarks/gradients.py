"""What a gradient through trainings costs, in trainings, and how much memory it takes.

    python benchmarks/gradients.py [--tasks fashionmnist] [--shots 5] [--steps 20] [--repeats 5]

Candidates × tasks are scored and differentiated in turns, on one thread; the times are the
processor's, medians, and the ratio is that of the two. Memory is the process's peak at the end.
"""

import argparse
import resource
import statistics
import time

import torch

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.search import settings
from metaloss.tasks import opening

GENOMES = {
    "network": {"kind": "mln"},
    "learned targets": {"kind": "targets"},
    "taylor": {"kind": "taylor"},
    "formula": {"kind": "constants", "formula": "poly1"},
}


def main() -> None:
    """Print a row for each kind of loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="fashionmnist")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--tasks-each", type=int, default=8)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--genomes", nargs="+", default=list(GENOMES), choices=GENOMES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{args.candidates} candidates x {args.tasks_each} tasks of {args.tasks}, {args.shots} "
        f"shots, {args.steps} steps, {args.validation} validation images per class; "
        f"processor seconds, medians of {args.repeats}"
    )
    print(f"{'loss':16} {'score':>8} {'gradient':>9} {'ratio':>6} {'peak GiB':>9}")
    for name in args.genomes:
        score, gradient = measured(args, GENOMES[name])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:16} {score:8.3f} {gradient:9.3f} {gradient / score:6.1f} {peak:9.2f}")


def measured(args: argparse.Namespace, genome_table: dict[str, object]) -> tuple[float, float]:
    """Seconds of scoring candidates, and of their gradients, on the same tasks."""
    table = {
        "tasks": [args.tasks],
        "genome": genome_table,
        "shots": args.shots,
        "inner": {"steps": args.steps},
    }
    search = settings.resolve(table)
    genome, _ = search.build_parts()
    families = [opening.open_family(x, "cpu") for x in search.families]
    key = Stream(0)
    population = genome.sample(args.candidates, key)
    noise = 0.02 * key.at("noise").normal(*population.vectors().shape)
    population = population.from_vectors(population.vectors() + noise)
    sizes = (args.tasks_each, args.validation)
    with Local(workers=1) as engine:
        evaluation = LossEvaluation(engine, families, key)

        def score() -> None:
            evaluation.search_scores(*sizes, genome.losses(population), key)

        def gradient() -> None:
            evaluation.search_gradient(*sizes, genome, population, key, None)

        seconds: dict[object, list[float]] = {score: [], gradient: []}
        for repeat in range(args.repeats + 1):
            for work, times in seconds.items():
                began = time.process_time()
                work()  # type: ignore[operator]
                if repeat:  # the first one compiles loops and reads images
                    times.append(time.process_time() - began)
    return statistics.median(seconds[score]), statistics.median(seconds[gradient])


if __name__ == "__main__":
    main()
