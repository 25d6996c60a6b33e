"""How often the interval over tasks and images holds the true difference of two losses.

Pools of images are simulated, tasks drawn from each, and two classifiers' logits on their
validation images: an image is as hard for one as for the other, in every task that it is in. The
true difference is the mean over many pools. An interval of 95 % should hold it for 93 to 97 % of
the pools.

    python benchmarks/interval_coverage.py [--metrics accuracy auroc] [--pools 400] [--tasks 30]
"""

import argparse
import sys
from dataclasses import dataclass

import torch
from timing import table
from torch import Tensor

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, TaskImages, Tasks
from metaloss.evaluation import metric_resamples
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.inner.metrics import Metric, scale_of

WAYS = 5
IN_POOL = 200  # images of each class
VAL = 100  # of them, in a task
TRUTH = 800  # pools that the true difference is the mean of, of as many tasks


@dataclass(frozen=True)
class Drawn:
    """Tasks of one pool, and what two losses' classifiers gave on them."""

    tasks: Tasks
    ours: Tensor  # [T V C]
    theirs: Tensor


def draw(key: Stream, tasks: int) -> Drawn:
    """One pool and its tasks."""
    label = torch.arange(WAYS).repeat_interleave(IN_POOL)
    hot = torch.nn.functional.one_hot(label, WAYS)
    # What an image shows in every task: how clearly it is of its class, and what it looks like.
    clear = 1.2 + key.at("clear").normal(len(label), 1)
    shown = clear * hot + 0.7 * key.at("alike").normal(len(label), WAYS)
    rows = torch.stack(
        [
            torch.cat(
                [c * IN_POOL + key.at("rows", t, c).permutation(IN_POOL)[:VAL] for c in range(WAYS)]
            )
            for t in range(tasks)
        ]
    )
    seen = shown[rows]  # [T V C]
    # A task's training images favour some classes, with one loss more than with the other, and add
    # what is not in the image. So the difference varies by 4 points of accuracy between tasks, as
    # it does on 10-way 5-shot tasks of Fashion-MNIST.
    favour = 0.6 * key.at("task").normal(tasks, 1, WAYS)
    other = favour + 0.35 * key.at("other").normal(tasks, 1, WAYS)
    noise = 0.8 * key.at("noise").normal(2, tasks, WAYS * VAL, WAYS)
    gain = 0.15 + 0.2 * key.at("gain").normal(tasks, 1, 1)
    images = Images(torch.zeros(len(label), 1, 1, 1, dtype=torch.uint8), 0.0, 1.0)
    val = TaskImages(images, rows, label[rows], WAYS)
    both = Tasks(val, val)
    return Drawn(both, seen * (1 + gain) + favour + noise[0], seen + other + noise[1])


def scores(metric: Metric, drawn: Drawn) -> Tensor:
    """The mean difference of the losses on the tasks of one pool."""
    classes = torch.arange(WAYS).expand(len(drawn.tasks), -1)
    logits = torch.stack([drawn.ours, drawn.theirs])
    ours, theirs = metric.measure(logits, drawn.tasks.val.label, classes).double()
    return (ours - theirs).mean()


def measure(kind: str, pools: int, tasks: int) -> list[object]:
    """A row of the table."""
    metric: Metric = registry.build("metrics", {"kind": kind})
    scale = scale_of(metric, WAYS)
    key = Stream(0)
    each = [scores(metric, draw(key.at("truth", n), 4)) for n in range(TRUTH)]
    truth = float(torch.stack(each).mean())
    decides = 0
    over_tasks = 0
    over_both = 0
    for n in range(pools):
        drawn = draw(key.at("pool", n), tasks)
        resamples = MetricResamples.of(metric, scale, drawn.tasks, key.at("bootstrap", n))
        result = PairedComparison.of(drawn.ours, drawn.theirs, key.at("tasks", n), resamples)
        low, high = resamples.gain_interval(drawn.ours, drawn.theirs)
        decides += result.low <= truth <= result.high
        over_tasks += result.gain.low <= truth <= result.gain.high
        over_both += low <= truth <= high
    shares = [f"{100 * x / pools:.1f} %" for x in (over_tasks, over_both, decides)]
    return [kind, f"{100 * truth:+.2f}", *shares, pools]


def main() -> None:
    """Print one row for each metric."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--metrics", nargs="+", default=["accuracy", "macro_f1", "auroc"])
    parser.add_argument("--pools", type=int, default=400)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    metric_resamples.COUNTED = metric_resamples.RANKED = options.resamples
    head = [
        "metric",
        "true difference",
        "over tasks",
        "over tasks and images",
        "that decides",
        "pools",
    ]
    rows = []
    for kind in options.metrics:
        rows.append(measure(kind, options.pools, options.tasks))
        print(table(head, rows), file=sys.stderr)
    print(table(head, rows))


if __name__ == "__main__":
    main()
