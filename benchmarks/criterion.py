"""Time of a loss's value and gradient in ordinary training, beside `torch.nn.CrossEntropyLoss`.

    python benchmarks/criterion.py [--quick] [--markdown | --json]

One row for each loss and batch: the median time of a forward and a backward pass, and the median of
its ratios to torch's, both measured in the same turn.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from timing import machine, median, quartiles, rate, table, threaded
from torch import nn

import metaloss

LOSSES = ("ce", "label_smoothing", "focal", "mse", "gce", "sce", "a2", "ngl", "c1")
BATCHES = ((128, 10), (1024, 1000))
TORCH = "torch.nn.CrossEntropyLoss"


def training(loss: nn.Module, n: int, classes: int) -> Callable[[], object]:
    """A forward and a backward pass of a loss on fixed random logits [n, classes]."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(n, classes, generator=draw).requires_grad_()
    target = torch.randint(classes, (n,), generator=draw)
    return lambda: torch.autograd.grad(loss(logits, target), logits)


def rows(
    names: tuple[str, ...], n: int, classes: int, repeats: int, least: float
) -> list[dict[str, Any]]:
    """All losses in turn, `repeats` times."""
    losses = {TORCH: nn.CrossEntropyLoss(), **{name: metaloss.load(name) for name in names}}
    runs = {name: training(loss, n, classes) for name, loss in losses.items()}
    for run in runs.values():
        run()
    turns = [{name: 1 / rate(run, 1, least) for name, run in runs.items()} for _ in range(repeats)]
    found = []
    for name in losses:
        ratios = [turn[name] / turn[TORCH] for turn in turns]
        low, high = quartiles(ratios)
        seconds = median([turn[name] for turn in turns])
        assert seconds is not None
        found.append(
            {
                "loss": name,
                "batch": n,
                "classes": classes,
                "microseconds": 1e6 * seconds,
                "ratio": median(ratios),
                "low": low,
                "high": high,
                "repeats": repeats,
            }
        )
    return found


def main() -> None:
    """Read the arguments, measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three losses, small batches, seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    names = tuple(given.losses)
    batches = BATCHES
    repeats = given.repeats
    least = 0.1
    if given.quick:
        names = names[:3]
        batches = BATCHES[:1]
        repeats = 3
        least = 0.01
    found = [
        row
        for n, c in batches
        for row in threaded(given.threads, lambda n=n, c=c: rows(names, n, c, repeats, least))
    ]
    if given.json:
        return print(json.dumps(found, indent=1))
    print(f"{machine()}, {given.threads} thread(s); medians of {repeats}\n")
    cells = [
        [
            f"{row['batch']} × {row['classes']}",
            row["loss"],
            row["microseconds"],
            row["ratio"],
            f"{row['low']:.2f}–{row['high']:.2f}",
        ]
        for row in found
    ]
    print(table(("batch", "loss", "µs", "torch = 1", "quartiles"), cells, given.markdown))


if __name__ == "__main__":
    main()
