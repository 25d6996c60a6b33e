"""What a search's evaluation costs by every metric, beside accuracy.

32 candidates on 8 tasks of a family, on as many validation images as a search looks at; all metrics
take turns, and ratios are medians of the ratios within one turn. CPU time, so that what else the
machine does counts little.

    python benchmarks/metrics.py [--repeats 9] [--metrics macro_f1 auroc]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from timing import machine, median, table

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.losses.base import Losses
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic import Episodes, open_episodes

CANDIDATES = 32
TASKS = 8
VALIDATION = 100  # images per class, as in a search


def seconds(run: Callable[[], Any]) -> float:
    """The CPU time of a call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def ratios(metrics: list[str], repeats: int) -> dict[str, list[float]]:
    """Of every metric its time by that of accuracy, once for each repeat."""
    opened = open_episodes(episodic_family.read("fashionmnist"))
    genome: Any = registry.build("genomes", {"kind": "mln"})
    losses: Losses = genome.losses(genome.sample(CANDIDATES, Stream(1)))

    def by(metric: str) -> Episodes:
        table = {**registry.table(opened.family), "metric": metric}
        own = {k: v for k, v in table.items() if k not in ("name", "origin")}
        family = episodic_family.of(own, opened.family.name, opened.family.origin)
        return replace(opened, family=family)

    with Local() as engine:

        def evaluate(family: Episodes) -> None:
            family.evaluate(engine, [losses], "train", Stream(0), range(TASKS), val=VALIDATION)

        families = {metric: by(metric) for metric in ("accuracy", *metrics)}
        for family in families.values():
            evaluate(family)  # the first call compiles or loads its code
        found: dict[str, list[float]] = {metric: [] for metric in metrics}
        for _ in range(repeats):
            base = seconds(lambda: evaluate(families["accuracy"]))
            for metric in metrics:
                found[metric].append(seconds(lambda m=metric: evaluate(families[m])) / base)
    return found


def main() -> None:
    """Print one row for each metric."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--metrics", nargs="+", default=registry.builtin_names("metrics"))
    options = parser.parse_args()
    wanted = [metric for metric in options.metrics if metric != "accuracy"]
    rows = [
        [metric, f"{median(x):.2f}", f"{min(x):.2f}", f"{max(x):.2f}"]
        for metric, x in ratios(wanted, options.repeats).items()
    ]
    print(table(["metric", "median", "least", "most"], rows))
    print(machine())


if __name__ == "__main__":
    main()
