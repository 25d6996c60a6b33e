"""Whether gradients through trainings reach further than an evolution strategy in equal time.

    python benchmarks/gradient_reach.py OUT [--tasks fashionmnist] [--genome targets] [--seconds 60]

Both set out from the genome's start, with the same seeds, tasks and rules for the winner; one
after the other, so that neither takes the other's time. Seconds are those of the search alone.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from metaloss.search import program

# Steps long enough for so short a search.
WAYS = {"evolution": None, "gradient": {"kind": "gradient", "lr": 0.05}}


def main() -> None:
    """Print a row for each run, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default="fashionmnist")
    parser.add_argument("--genome", default="targets")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks-per-generation", type=int, default=16)
    args = parser.parse_args()
    print(f"{args.tasks}, {args.genome}, {args.seconds:g} s of search each", flush=True)
    print(f"{'by':10} {'seed':>4} {'generations':>11} {'test':>7} {'gain over CE':>13}")
    gains: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(args.seeds):
        for way, strategy in WAYS.items():
            result = program.evolve(
                args.tasks,
                genome=args.genome,
                strategy=strategy,
                out=args.out / way,
                time_limit=args.seconds,
                seed=seed,
                generations=100_000,
                tasks_per_generation=args.tasks_per_generation,
            )
            test = json.loads((result.folder / "summary.json").read_text())["test"][args.tasks]
            gain = test["ce"]["gain"]["mean"]
            gains[way].append(gain)
            print(
                f"{way:10} {seed:4} {len(result.history):11} {test['accuracy']:7.4f} {gain:+13.4f}",
                flush=True,
            )
    for way, each in gains.items():
        print(f"{way:10} mean {mean(each):+.4f}")


if __name__ == "__main__":
    main()
