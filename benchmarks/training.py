"""Our training loop beside a bare PyTorch loop of the same work: same network, same images, same
batches, one device.

    python benchmarks/training.py [--quick] [--models convnet resnet9] [--steps 100] [--repeats 9]
    [--json]

Both take turns; the ratio is the median of the ratios within a turn. Ours runs through Lightning
with everything that `metaloss train` does in a step: seeding, the learning rate's course, the look
at the loss. Neither validates.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from timing import machine, median, quartiles, table, threaded

import metaloss
from metaloss.core.streams import Stream
from metaloss.training import module, targets
from metaloss.training.images import open_images
from metaloss.training.measurement import Measurement
from metaloss.training.models import ImageClassifier, NetworkShape, build, repeats
from metaloss.training.sampling import batch_order
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import resolve


def classifier(images: Any, model: str) -> ImageClassifier:
    """A fresh network, always the same."""
    shape = NetworkShape(images.channels, images.size, images.classes)
    network = build(model, shape, Stream(0), probe=False)
    found = ImageClassifier(
        network, shape, images.mean, images.std, repeats(network, images.channels)
    )
    return found.to(images.source.labels.device)


def bare(found: ImageClassifier, spec: module.TrainingSpec) -> None:
    """The loop as one would write it down."""
    chosen = spec.settings
    source = spec.images.source
    loss = metaloss.load("ce")
    sgd = torch.optim.SGD(
        found.parameters(), spec.lr, momentum=chosen.momentum, nesterov=chosen.nesterov
    )
    rows = batch_order(spec.rows, chosen.batch, spec.key, 0, spec.schedule.steps)
    found.train()
    for images, labels in source.batches(rows, chosen.batch):
        sgd.zero_grad()
        loss(found(images), labels).backward()
        sgd.step()


def timed(f: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    began = time.perf_counter()
    f()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def row(model: str, batch: int, steps: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """One network's ratio, from trainings of so many steps and of twice as many.

    What starting costs falls out.
    """
    specs = []
    for n in (steps, 2 * steps):
        chosen = resolve(
            {"model": model, "batch": batch, "steps": n, "schedule": "constant", "lr": 0.01}
        )
        images = open_images(chosen, device)
        rows = images.shares.train
        specs.append(
            module.TrainingSpec(
                chosen, images, rows, make_schedule(chosen, len(rows)), 0.01, Stream(0)
            )
        )
    ways = {"ours": lambda c, p: module.train(c, metaloss.load("ce"), p), "bare": bare}
    for way in ways.values():
        way(classifier(specs[0].images, model), specs[0])
    turns = []
    for _ in range(repeats):
        turn = {}
        for name, way in ways.items():
            once, twice = (
                timed(lambda p=p, w=way: w(classifier(p.images, model), p), device) for p in specs
            )
            turn[name] = (twice - once) / steps
        turns.append(turn)
    ratios = [turn["ours"] / turn["bare"] for turn in turns]
    low, high = quartiles(ratios)
    per_step = {name: 1e3 * (median([turn[name] for turn in turns]) or 0.0) for name in ways}
    return {
        "model": model,
        "batch": batch,
        "steps": steps,
        **per_step,
        "ratio": median(ratios),
        "low": low,
        "high": high,
        "repeats": repeats,
    }


def main() -> None:
    """Read the arguments, measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["convnet", "resnet9"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--quick", action="store_true", help="the smallest network, few steps, seconds"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    models = given.models
    batch = given.batch
    steps = given.steps
    repeats = given.repeats
    if given.quick:
        models = ["convnet"]
        batch = 32
        steps = 10
        repeats = 2
    device = torch.device(given.device)
    # Ours looks at the validation share after every epoch, which is no part of a step.
    with mock.patch.object(targets, "measure", return_value=Measurement(0.0, 0.0, 0.0)):
        found = [
            threaded(given.threads, lambda m=m: row(m, batch, steps, repeats, device))
            for m in models
        ]
    if given.json:
        return print(json.dumps(found, indent=1))
    print(f"{machine()}, {given.threads} thread(s), {device}; medians of {repeats}\n")
    cells = [
        [
            x["model"],
            x["batch"],
            x["ours"],
            x["bare"],
            x["ratio"],
            f"{x['low']:.2f}–{x['high']:.2f}",
        ]
        for x in found
    ]
    print(
        table(
            ("model", "batch", "ours [ms/step]", "bare", "ratio", "quartiles"),
            cells,
            given.markdown,
        )
    )


if __name__ == "__main__":
    main()
