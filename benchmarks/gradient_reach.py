"""Whether gradients through trainings reach further than an evolution strategy in equal time.

    python benchmarks/gradient_reach.py OUT [--tasks fashionmnist] [--genome targets]
        [--seconds 60] [--rates 0.01 0.05 0.2] [--ways gradient]

Both set out from the genome's start, with the same seeds, tasks and rules for the winner; one
after the other, so that neither takes the other's time. Seconds are the processor's, of the search
alone: of all threads together, so other work on the machine does not count. Where several rates of
Adam are given, a search at each one on another seed comes first, and the one whose winner is best
on the meta-validation tasks of the election is taken. The evolution strategy is the genome's usual
one with its defaults.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

from metaloss.core.reporting import Reporter
from metaloss.search import program

WAYS = ("evolution", "gradient")
TUNING_SEED = 100  # no seed of the comparison


class ProcessorLimit(Reporter):
    """Ends a search after so many seconds of the processor, counted once cross-entropy is tuned."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = float("inf")

    def on_baseline(self, *_: object) -> None:
        """The search begins."""
        self.end = time.process_time() + self.seconds

    def on_generation(self, *_: object) -> None:
        """A generation is kept; the winner of those kept is chosen once no time is left."""
        if time.process_time() > self.end:
            raise KeyboardInterrupt


def main() -> None:
    """Print a row for each run, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default="fashionmnist")
    parser.add_argument("--genome", default="targets")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05, 0.2])
    parser.add_argument("--tasks-per-generation", type=int, default=16)
    parser.add_argument("--winner-tasks", type=int, default=64)
    parser.add_argument("--tuning-seconds", type=float, help="of each search at a rate")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    args = parser.parse_args()
    print(f"{args.tasks}, {args.genome}, {args.seconds:g} processor seconds of search each")
    gains: dict[str, list[float]] = {way: [] for way in args.ways}
    ways: dict[str, Any] = dict.fromkeys(args.ways)
    if "gradient" in ways:
        ways["gradient"] = {"kind": "gradient", "lr": tuned_rate(args)}
    print(f"{'by':10} {'seed':>4} {'generations':>11} {'test':>7} {'gain over CE':>13}", flush=True)
    for seed in range(args.seeds):
        for way, strategy in ways.items():
            generations, summary = searched(args, args.seconds, strategy, seed, args.out / way)
            test = summary["test"][args.tasks]
            gain = test["ce"]["gain"]
            gains[way].append(gain["mean"])
            print(
                f"{way:10} {seed:4} {generations:11} {test['accuracy']:7.4f} "
                f"{gain['mean']:+13.4f} ±{gain['error']:.4f}",
                flush=True,
            )
    for way, each in gains.items():
        print(f"{way:10} mean {mean(each):+.4f}")


def tuned_rate(args: argparse.Namespace) -> float:
    """The rate at which a search on a seed of its own ends with the best winner."""
    if len(args.rates) == 1:
        return float(args.rates[0])
    seconds = args.tuning_seconds or args.seconds
    accuracies: dict[float, float] = {}
    for rate in args.rates:
        strategy = {"kind": "gradient", "lr": rate}
        # The fewest tests that there may be: nothing is chosen by them.
        generations, summary = searched(
            args, seconds, strategy, TUNING_SEED, args.out / "rates", test_tasks=2
        )
        accuracies[rate] = summary["choice"]["accuracy"]
        print(
            f"rate {rate:g}: {accuracies[rate]:.4f} on {args.winner_tasks} meta-validation tasks "
            f"after {generations} generations",
            flush=True,
        )
    return max(accuracies, key=lambda rate: accuracies[rate])


def searched(
    args: argparse.Namespace,
    seconds: float,
    strategy: dict[str, Any] | None,
    seed: int,
    out: Path,
    **others: Any,
) -> tuple[int, dict[str, Any]]:
    """A search's number of generations and its summary.

    Args:
        args: of the command line.
        seconds: of the processor.
        strategy: the outer algorithm; the genome's usual one where None.
        seed: of the search.
        out: the folder for its folder.
        others: further settings.
    """
    result = program.evolve(
        args.tasks,
        genome=args.genome,
        strategy=strategy,
        out=out,
        seed=seed,
        generations=100_000,
        tasks_per_generation=args.tasks_per_generation,
        winner_tasks=args.winner_tasks,
        finalists=5,
        reporter=ProcessorLimit(seconds),
        **others,
    )
    return len(result.history), json.loads((result.folder / "summary.json").read_text())


if __name__ == "__main__":
    main()
