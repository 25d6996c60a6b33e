"""How often the interval over tasks and images holds the true difference of two losses.

Pools of images are simulated, tasks drawn from each, and two classifiers' logits on their
validation images: an image is as hard for one as for the other, in every task that it is in. The
true difference is the mean over many pools. An interval of 95 % should hold it for 93 to 97 % of
the pools. Where the images of a patient are alike, it must draw patients in the place of images.

    python benchmarks/interval_coverage.py [--kinds "few tasks"] [--metrics accuracy auroc]
                                           [--pools 200] [--resamples 200]
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

WAYS = 4
TRUTH = 600  # pools that the true difference is the mean of


@dataclass(frozen=True)
class Kind:
    """What pools and tasks are like.

    Attributes:
        tasks: drawn from a pool.
        pool: images of each class in it.
        val: of these, in a task.
        image: how much single images favour one loss, in every task.
        of_class: how much classes favour one loss, in every pool and task.
        common: the share of chance that both losses have in common.
        group: images of each class that belong together, as those of one patient do.
        of_group: how much groups favour one loss, in every task.
        drawn_whole: whether the interval knows of the groups.
    """

    tasks: int = 20
    pool: int = 60
    val: int = 30
    image: float = 0.3
    of_class: float = 0.0
    common: float = 0.0
    group: int = 1
    of_group: float = 0.0
    drawn_whole: bool = False


KINDS = {
    "20 tasks, half of the images in each": Kind(),
    "60 tasks": Kind(tasks=60),
    "6 tasks": Kind(tasks=6),
    "all images in every task": Kind(val=60),
    "few images in common": Kind(pool=300),
    "few images": Kind(pool=12, val=6),
    "images favour no loss": Kind(image=0.0),
    "images favour one loss much": Kind(image=1.0),
    "classes favour one loss": Kind(of_class=0.5),
    "alike losses": Kind(common=0.9),
    "patients of 6 images, counted as images": Kind(group=6, of_group=0.8),
    "patients of 6 images, drawn whole": Kind(group=6, of_group=0.8, drawn_whole=True),
}


@dataclass(frozen=True)
class Drawn:
    """Tasks of one pool, and what two losses' classifiers gave on them."""

    tasks: Tasks
    ours: Tensor  # [T V C]
    theirs: Tensor
    groups: Tensor | None


def draw(key: Stream, kind: Kind, tasks: int) -> Drawn:
    """One pool and its tasks."""
    label = torch.arange(WAYS).repeat_interleave(kind.pool)
    hot = torch.nn.functional.one_hot(label, WAYS)
    # What an image shows in every task: how clearly it is of its class, and what it looks like.
    clear = 1.2 + key.at("clear").normal(len(label), 1)
    shown = clear * hot + 0.7 * key.at("alike").normal(len(label), WAYS)
    favoured = kind.image * key.at("favoured").normal(len(label), WAYS)
    favoured = favoured + kind.of_class * torch.linspace(-1, 1, WAYS)[label][:, None] * hot
    groups = torch.arange(len(label)) // kind.group
    of_groups = key.at("groups").normal(int(groups[-1]) + 1, WAYS)
    favoured = favoured + kind.of_group * of_groups[groups]
    chosen = [
        [
            c * kind.pool + key.at("rows", t, c).permutation(kind.pool)[: kind.val]
            for c in range(WAYS)
        ]
        for t in range(tasks)
    ]
    rows = torch.stack([torch.cat(of_task) for of_task in chosen])
    seen = shown[rows]  # [T V C]
    # A task's training images favour some classes, with one loss more than with the other, and add
    # what is not in the image. So the difference varies by 4 points of accuracy between tasks, as
    # it does on 10-way 5-shot tasks of Fashion-MNIST.
    favour = 0.6 * key.at("task").normal(tasks, 1, WAYS)
    other = favour + 0.35 * (1 - kind.common) * key.at("other").normal(tasks, 1, WAYS)
    both = key.at("both").normal(tasks, WAYS * kind.val, WAYS)
    single = key.at("noise").normal(2, tasks, WAYS * kind.val, WAYS)
    noise = 0.8 * (kind.common**0.5 * both + (1 - kind.common) ** 0.5 * single)
    gain = 0.15 + 0.2 * (1 - kind.common) * key.at("gain").normal(tasks, 1, 1)
    images = Images(torch.zeros(len(label), 1, 1, 1, dtype=torch.uint8), 0.0, 1.0)
    val = TaskImages(images, rows, label[rows], WAYS)
    ours = seen * (1 + gain) + favoured[rows] + favour + noise[0]
    known = groups if kind.drawn_whole else None
    return Drawn(Tasks(val, val), ours, seen + other + noise[1], known)


def difference(metric: Metric, drawn: Drawn) -> Tensor:
    """The mean difference of the losses on the tasks of one pool."""
    classes = torch.arange(WAYS).expand(len(drawn.tasks), -1)
    logits = torch.stack([drawn.ours, drawn.theirs])
    ours, theirs = metric.measure(logits, drawn.tasks.val.label, classes).double()
    return (ours - theirs).mean()


def measure(name: str, metric_kind: str, pools: int) -> list[object]:
    """A row of the table."""
    kind = KINDS[name]
    metric: Metric = registry.build("metrics", {"kind": metric_kind})
    scale = scale_of(metric, WAYS)
    # Of the same patients, whatever the interval knows of them.
    key = Stream(0).at(name if kind.group == 1 else "patients")
    each = [difference(metric, draw(key.at("truth", n), kind, 4)) for n in range(TRUTH)]
    truth = float(torch.stack(each).mean())
    gain = truth if metric.maximise else -truth
    over_tasks = 0
    decides = 0
    width = 0.0
    for n in range(pools):
        drawn = draw(key.at("pool", n), kind, kind.tasks)
        resamples = MetricResamples.of(
            metric, scale, drawn.tasks, key.at("bootstrap", n), groups=drawn.groups
        )
        result = PairedComparison.of(drawn.ours, drawn.theirs, key.at("tasks", n), resamples)
        over_tasks += result.gain.low <= gain <= result.gain.high
        decides += result.low <= gain <= result.high
        width += (result.high - result.low) / (result.gain.high - result.gain.low)
    shares = [f"{100 * x / pools:.1f} %" for x in (over_tasks, decides)]
    shown = f"{scale.number(truth):+.{scale.digits + 1}f}"
    return [name, metric_kind, shown, *shares, f"{width / pools:.2f}", pools]


def main() -> None:
    """Print one row for each kind of pools and metric."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--metrics", nargs="+", default=["accuracy", "macro_f1", "auroc"])
    parser.add_argument("--pools", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    metric_resamples.COUNTED = metric_resamples.RANKED = options.resamples
    head = ["pools of", "metric", "true difference", "over tasks", "that decides", "width", "pools"]
    rows = []
    for metric in options.metrics:
        for name in options.kinds:
            rows.append(measure(name, metric, options.pools))
            print(*rows[-1], sep=" | ", file=sys.stderr)
    print(table(head, rows))


if __name__ == "__main__":
    main()
