"""Trainings per second: populations trained at once, beside a plain PyTorch loop over the same trainings.

One training: initialise a 784-128-64-10 MLP, 20 full-batch SGD steps on a 10-way 5-shot task, validate on 2,000 images.
Every row is one run of both sides in turn, `--repeats` times; medians are printed. The plain loop is measured with one
and with two threads and its better number is taken.

    python benchmarks/engine.py [--quick] [--json]
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from metaloss import families
from metaloss.engines.local import Local
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.losses import CrossEntropies, Losses
from metaloss.streams import Stream
from metaloss.tasks import Tasks

SIZES = ((1, 1), (1, 16), (16, 1), (2, 8), (8, 8), (32, 8), (256, 16))  # candidates × tasks


def sequential(losses: Losses, tasks: Tasks, hidden: tuple[int, ...], steps: int, lr: float, most: int) -> float:
    """Trainings per second of a loop over candidates and tasks, as one writes it with torch.nn and torch.optim."""
    jobs = [(p, t) for p in range(len(losses)) for t in range(len(tasks))][:most]
    began = time.perf_counter()
    for p, t in jobs:
        task = tasks[t : t + 1]
        x, val = task.train.x().flatten(2)[0], task.val.x().flatten(2)[0]
        widths = (x.shape[1], *hidden, tasks.ways)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        loss = losses[p : p + 1].bind(task.train.target)
        sgd = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(steps):
            sgd.zero_grad()
            loss(model(x)[None, None]).sum().backward()
            sgd.step()
        with torch.no_grad():
            (model(val).argmax(1) == task.val.label[0]).float().mean().item()
    return len(jobs) / (time.perf_counter() - began)


def measure(name: str, losses: Losses, tasks: Tasks, ours: Callable[[], object], repeats: int) -> dict[str, object]:
    """One row: both sides in turn."""
    n, most = len(losses) * len(tasks), 32
    ours()
    fast, slow = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        ours()
        fast.append(n / (time.perf_counter() - began))
        best = 0.0
        for threads in (1, 2):
            torch.set_num_threads(threads)
            best = max(best, sequential(losses, tasks, (128, 64), 20, 0.1, most))
        slow.append(best)
    return {
        "name": name, "candidates": len(losses), "tasks": len(tasks), "trainings_per_second": statistics.median(fast),
        "sequential": statistics.median(slow),
        "ratio_to_sequential": statistics.median(a / b for a, b in zip(fast, slow, strict=True)), "repeats": repeats,
    }  # fmt: skip


def rows(quick: bool) -> list[dict[str, object]]:
    """Every size, for the Meta-Loss Network and for cross-entropy."""
    key = Stream(0)
    episodes = families.open_family(families.read("fashionmnist"))
    network = MetaLossNetwork(start="random")
    table = []
    with Local() as engine:
        for candidates, count in SIZES[: 6 if quick else None]:
            keys = [key.at("task", t) for t in range(count)]
            tasks = episodes.sample(keys, "train")
            population = network.mutate(network.sample(candidates, key), torch.zeros(candidates, network.size), key)
            for name, losses in (("mln", network.losses(population)), ("ce", CrossEntropies.of(candidates))):
                ours = partial(engine.score, losses, episodes, tasks, keys)
                table.append(measure(name, losses, tasks, ours, 2 if quick else 5))
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    table = rows(arguments.quick)
    if arguments.json:
        print(json.dumps(table, indent=1))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    print("loss  candidates × tasks   ours [1/s]   plain loop [1/s]   ratio")
    for row in table:
        print(
            f"{row['name']:5} {row['candidates']:10} × {row['tasks']:<5}   {row['trainings_per_second']:10.0f}"
            f"   {row['sequential']:16.0f}   {row['ratio_to_sequential']:5.1f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process, data set and the largest row included: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
