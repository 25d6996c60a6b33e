"""What a linear layer's initial weights cost it on features of a pretrained network.

    python benchmarks/linear_start.py [--features FILE.npz] [--tasks 200] [--tuning-tasks 16]

Ten-way Fashion-MNIST, 1, 5 and 20 images of each class, features of EfficientNet-Lite0
(`features.py` names the two packages that they take). Cross-entropy, label smoothing and `few-shot`
train a linear layer that starts at 0, and one that starts as `torch.nn.Linear` does, 20, 100 and
400 steps, each with its own rate, chosen on meta-validation tasks of eleven from 0.0001 to 10.
Gains are paired over the same meta-test tasks, in points of accuracy over cross-entropy from
torch's start, with 95 % intervals over tasks and images.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from features import SIZE, write_features
from held_out_kinds import IMAGES
from held_out_tasks import Budget, Kind
from held_out_trainings import KindTrainings, Variants
from timing import machine, table

import metaloss
from metaloss.core.metric_scale import ACCURACY
from metaloss.criterion.base import Criterion
from metaloss.engines.local import Local
from metaloss.evaluation.tuning import Setting
from metaloss.losses.base import CrossEntropies

CE = "cross-entropy"
STARTS = {"torch's": 1.0, "0": 0.0}  # `init_scale` of each
STEPS = (20, 100, 400)
SHOTS = (1, 5, 20)
SMOOTHINGS = (0.05, 0.1, 0.2)
HEAD = ["images a class", "steps", "start", "loss", "rate", "accuracy", "gain"]


def losses() -> dict[str, Variants]:
    """The losses, each with its variants."""
    few_shot = metaloss.load("few-shot")
    assert isinstance(few_shot, Criterion)
    return {
        CE: {"": CrossEntropies.of(1)},
        "label smoothing": {f"{x:g}": CrossEntropies.of(1, x) for x in SMOOTHINGS},
        "few-shot": {"": few_shot.losses_as_used()},
    }


def rows_of(kind: Kind, engine: Local) -> Iterator[list[str]]:
    """The rows of a kind of tasks, number of steps by number of steps."""
    tried = losses()
    found = {start: answers(from_start(kind, x), tried, engine) for start, x in STARTS.items()}
    trainings = KindTrainings.of(kind, engine)
    resamples = trainings.evaluation.test_resamples(kind.tasks)
    _, baseline = next(iter(found.values()))[CE]
    for place, n in enumerate(STEPS):
        for start, of_losses in found.items():
            for loss, (settings, right) in of_losses.items():
                gain = trainings.evaluation.compare(right[place], baseline[place], resamples)
                ends = {"mean": gain.gain.mean, "low": gain.low, "high": gain.high}
                accuracy = f"{100 * float(right[place].mean()):.1f}"
                x = settings[place]
                name = f"{loss} {x.spec}".strip()
                row = [str(kind.shots), str(n), start, name, f"{x.lr:g}", accuracy]
                yield [*row, ACCURACY.interval(ends)]


def from_start(kind: Kind, scale: float) -> Kind:
    """The kind with initial weights multiplied by so much."""
    classifier = {"kind": "linear", "init_scale": scale}
    return replace(kind, family=replace(kind.family, classifier=classifier))


def answers(
    kind: Kind, tried: Mapping[str, Variants], engine: Local
) -> dict[str, tuple[list[Setting], list]]:
    """Of every loss its best settings, and which images are answered right with each."""
    trainings = KindTrainings.of(kind, engine)
    found = {}
    for loss, variants in tried.items():
        best = trainings.tune(variants, STEPS)
        settings = [best[n] for n in STEPS]
        found[loss] = settings, trainings.answers(variants, settings)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the features where they are not there, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--features", type=Path, default=Path("fashionmnist-efficientnet-lite0.npz")
    )
    parser.add_argument("--tasks", type=int, default=200, help="meta-test tasks")
    parser.add_argument("--tuning-tasks", type=int, default=16, help="meta-validation tasks")
    chosen = parser.parse_args(arguments)
    if not chosen.features.is_file():
        write_features(chosen.features, IMAGES, SIZE)
    budget = Budget(chosen.tasks, chosen.tuning_tasks, chosen.features)
    kinds = [x for x in budget.kinds("features") if x.shots in SHOTS]
    with Local() as engine:
        rows = [row for kind in kinds for row in rows_of(kind, engine)]
    print(machine())
    print(table(HEAD, rows, markdown=True))


if __name__ == "__main__":
    main()
