"""What the command that `metaloss recommend` prints is worth, on fresh images, paired over draws.

    python benchmarks/advice.py draw 0 1 2 --out DIR
    python benchmarks/advice.py table --out DIR

A draw is the user's folder of `user_folder.py`: 120 pullovers, 45 coats and 18 shirts to train on
and 900 even test images. `recommend` sees the training images alone, with its defaults and
`--metric balanced_accuracy`; the command that it prints is run as printed, and its network's
balanced accuracy on the test images is kept. Beside it, on the same images:

- *ce, as tuned by recommend*: the same network by cross-entropy, at the rate and number of steps of
  its row of the table.
- *ce, cross-validated*: the same network by cross-entropy, its rate and number of steps, up to 800,
  chosen by five folds of the training images.
- *ce, hindsight*: at the rate and number of steps that are best on the test images, as a mean over
  all draws. No user can have that.
- *logistic regression, class weights*: its C chosen by the same folds; no network at all.
- *prior correction*: the cross-validated network's logits minus log shares, τ = 1, untuned.
- *convnet, ce, tuned*: `metaloss train --model convnet`, its rate and length (300 or 900 steps)
  chosen on 30 % of the training images.
- *convnet, defaults* and *resnet9, defaults*: `metaloss train` with its defaults; the latter with
  `--defaults` alone, because it takes minutes.

What is there of a draw is not made again.
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine, table
from torch import Tensor, nn
from torch.nn import functional as F
from user_folder import TRAIN, cut

from metaloss.core.streams import Stream
from metaloss.data.datasets import folder as image_folder
from metaloss.training.models import seeded
from metaloss.training.networks import MlpHead

METRIC = "balanced_accuracy"
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
STEPS = (50, 100, 200, 400, 800)
HIDDEN = (128, 64)
FOLDS = 5
RECOMMENDED, TUNED, CHOSEN = "recommended", "ce, as tuned by recommend", "ce, cross-validated"
HINDSIGHT, CORRECTED = "ce, hindsight", "prior correction"
WEIGHTED = "logistic regression, class weights"
CONVNET = "convnet, ce, tuned"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C
Logits = dict[tuple[float, int], Tensor]  # at every rate, after every number of steps


def draw(seed: int, out: Path, defaults: bool) -> None:
    """Make what a draw lacks, and keep what is reached on it."""
    place = out / f"draw-{seed}"
    if not (place / "scans").exists():
        cut(place / "scans", seed)
    made = {"ce": lambda: _cross_entropy(place / "scans", seed), "advice": lambda: _advised(place)}
    made["weighted"] = lambda: _weighted(place / "scans", seed)
    made["convnet"] = lambda: {"convnet, defaults": _train(place, ["--model", "convnet"])}
    made["convnet-tuned"] = lambda: {CONVNET: _tuned_convnet(place)}
    if defaults:
        made["resnet9"] = lambda: {"resnet9, defaults": _train(place, [])}
    for name, make in made.items():
        file = place / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(make(), indent=1))
    x = kept(place)
    print(f"draw {seed}: {x['name']}: {x[RECOMMENDED]:.3f}, {CHOSEN} {x[CHOSEN]:.3f}", flush=True)


def kept(place: Path) -> dict[str, Any]:
    """All that is known of a draw."""
    parts = [json.loads(file.read_text()) for file in sorted(place.glob("*.json"))]
    return {key: value for part in parts for key, value in part.items()}


def _advised(place: Path) -> dict[str, Any]:
    """What the printed command reaches, and cross-entropy at the setting of its row."""
    begin = time.perf_counter()
    if not list(place.glob("recommend/*/summary.json")):
        run_metaloss(place, "recommend", "--data", "folder:scans", "--metric", METRIC)
    seconds = time.perf_counter() - begin
    (file,) = place.glob("recommend/*/summary.json")
    summary = json.loads(file.read_text())
    rows = {x["loss"]: x for x in summary["rows"]}
    verdict = summary["verdict"]
    printed = summary["train"]
    about = {
        "seconds": seconds,
        "printed": printed or summary["code"],
        "name": verdict["setting"].get("spec") or verdict["loss"],
        "said": verdict["gain"]["mean"],
        "worth": summary["search"]["worth"],
    }
    reached = reached_by(place, printed) if printed else _fitted(place, summary["code"])
    ce = rows["ce"]
    again = (
        "metaloss train --data folder:scans --loss ce --model "
        f"mlp-{'-'.join(map(str, HIDDEN))} --lr {ce['lr']} --steps {2 * ce['steps']} --batch 183 "
        f"--metric {METRIC} --momentum 0 --set nesterov=false "
        "--set validation=0"
    )
    return {**about, RECOMMENDED: reached, TUNED: reached_by(place, again)}


def _train(place: Path, options: Sequence[str]) -> float:
    words = ["metaloss", "train", "--data", "folder:scans", "--metric", METRIC, *options]
    return reached_by(place, shlex.join(words))


def _tuned_convnet(place: Path) -> float:
    """The convnet's balanced accuracy at the rate and length that held-out images choose."""
    options = [
        "--model",
        "convnet",
        "--rates",
        "0.01",
        "0.03",
        "0.1",
        "--set",
        "validation=0.3",
        "--json",
    ]
    found = []
    for steps in ("300", "900"):
        words = ["train", "--data", "folder:scans", "--metric", METRIC, "--steps", steps, *options]
        summary = json.loads(run_metaloss(place, *words))
        held_out = max(x[f"val_{METRIC}"] or 0.0 for x in summary["tuning"]["ce"])
        found.append((held_out, float(summary["table"][0][METRIC])))
    return max(found, key=lambda pair: pair[0])[1]


def reached_by(place: Path, command: str) -> float:
    """The balanced accuracy of what a command of `metaloss train` tests last."""
    program, *words = shlex.split(command)
    assert program == "metaloss"
    summary = json.loads(run_metaloss(place, *words, "--json"))
    # What is done after the training, where something is, has the last row.
    return float(summary["table"][-1][METRIC])


def run_metaloss(place: Path, *words: str) -> str:
    """What a command prints that is run in a draw's folder."""
    program = [sys.executable, "-m", "metaloss", *words]
    return subprocess.run(program, cwd=place, check=True, capture_output=True, text=True).stdout


def _images(scans: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels and labels to train on, normalised, and those of the test images."""
    parts = [image_folder.load(scans / name) for name in ("train", "test")]
    x, fresh = (part.pixels.flatten(1).float() for part in parts)
    mean, std = x.mean(), x.std()
    return (x - mean) / std, parts[0].labels, (fresh - mean) / std, parts[1].labels


def _cross_entropy(scans: Path, seed: int) -> dict[str, Any]:
    """Cross-entropy at every rate and number of steps, and at those that folds choose."""
    x, y, fresh, labels = _images(scans)
    key = Stream(seed)
    whole = _logits(x, y, fresh, key)
    folds = folds_of(y, key)
    held_out = {place: torch.zeros(len(y), len(TRAIN)) for place in whole}
    for fold in range(FOLDS):
        inside = folds == fold
        for place, logits in _logits(x[~inside], y[~inside], x[inside], key.at(fold)).items():
            held_out[place][inside] = logits
    best = max(whole, key=lambda place: balanced(held_out[place], y))
    log_share = torch.bincount(y).div(len(y)).log()
    return {
        CHOSEN: balanced(whole[best], labels),
        CORRECTED: balanced(whole[best] - log_share, labels),
        "setting": best,
        "grid": [[*place, balanced(logits, labels)] for place, logits in whole.items()],
    }


def folds_of(y: Tensor, key: Stream) -> Tensor:
    """The fold of every image, equally many of each class in all of them."""
    folds = torch.empty_like(y)
    for c in range(len(TRAIN)):
        rows = torch.nonzero(y == c)[:, 0]
        folds[rows[key.at("folds", c).permutation(len(rows))]] = torch.arange(len(rows)) % FOLDS
    return folds


def _weighted(scans: Path, seed: int) -> dict[str, Any]:
    """Logistic regression with class weights, its constant chosen by folds."""
    from sklearn.linear_model import LogisticRegression

    def logits(train: Tensor, label: Tensor, other: Tensor, c: float) -> Tensor:
        model = LogisticRegression(C=c, max_iter=500, class_weight="balanced")
        scale = train.shape[1] ** 0.5
        model.fit(train.numpy() / scale, label.numpy())
        return torch.from_numpy(model.predict_proba(other.numpy() / scale))

    def judged(c: float) -> float:
        held_out = torch.zeros(len(y), len(TRAIN))
        for fold in range(FOLDS):
            inside = folds == fold
            held_out[inside] = logits(x[~inside], y[~inside], x[inside], c).float()
        return balanced(held_out, y)

    x, y, fresh, labels = _images(scans)
    folds = folds_of(y, Stream(seed))
    best = max(STRENGTHS, key=judged)
    return {WEIGHTED: balanced(logits(x, y, fresh, best), labels), "C": best}


def _logits(x: Tensor, y: Tensor, fresh: Tensor, key: Stream) -> Logits:
    """What networks say of fresh images; those of a key have the same start."""
    found = {}
    for lr in RATES:
        network = seeded(lambda: MlpHead(x.shape[1], len(TRAIN), (1, 1), HIDDEN), key.at("init"))
        optimiser = torch.optim.SGD(network.parameters(), lr=lr)
        for step in range(1, STEPS[-1] + 1):
            optimiser.zero_grad()
            F.cross_entropy(_seen(network, x), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if step in STEPS:
                with torch.no_grad():
                    found[lr, step] = _seen(network, fresh)
    return found


def _seen(network: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = network(x[..., None, None])
    return logits


def _fitted(place: Path, code: Sequence[str]) -> float:
    """What the printed lines of Python reach, where a method that is no network is recommended."""
    names: dict[str, Any] = {}
    with contextlib.chdir(place):
        exec("\n".join(code), names)
    images = names["images"]
    pixels = images.pixels.flatten(1).double().numpy()
    known, test = ~images.test.numpy(), images.test.numpy()
    mean, std = pixels[known].mean(), pixels[known].std()
    answers = names["classifier"].predict((pixels[test] - mean) / std / pixels.shape[1] ** 0.5)
    logits = F.one_hot(torch.from_numpy(answers), len(TRAIN)).float()
    return balanced(logits, images.labels[images.test])


def balanced(logits: Tensor, labels: Tensor) -> float:
    """The mean recall of all classes."""
    right = logits.argmax(1) == labels
    return float(np.mean([float(right[labels == c].float().mean()) for c in range(len(TRAIN))]))


def rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line for each way of training: mean, and the gain of what was recommended over it."""
    grids = np.array([[value for *_, value in x["grid"]] for x in found])
    best = int(grids.mean(0).argmax())
    print(f"{HINDSIGHT}: learning rate and steps {found[0]['grid'][best][:2]}")
    for x, value in zip(found, grids[:, best], strict=True):
        x[HINDSIGHT] = float(value)
    names = [RECOMMENDED, TUNED, CHOSEN, HINDSIGHT, CORRECTED, WEIGHTED]
    names += [CONVNET, "convnet, defaults", "resnet9, defaults"]
    lines = []
    for name in names:
        have = [x for x in found if name in x]
        if not have:
            continue
        values = 100 * np.array([x[name] for x in have])
        gains = 100 * np.array([x[RECOMMENDED] for x in have]) - values
        gain = "" if name == RECOMMENDED else interval(gains)
        lines.append(
            [name, str(len(have)), f"{values.mean():.1f} ± {values.std(ddof=1):.1f}", gain]
        )
    return lines


def interval(gains: np.ndarray) -> str:
    """The mean gain with its 95 % interval, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    return f"{gains.mean():+.1f} [{gains.mean() - half:+.1f}, {gains.mean() + half:+.1f}]"


def main() -> None:
    """Make draws, or print the table of those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("draw", "table"))
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--defaults", action="store_true", help="resnet9 with its defaults, too")
    parser.add_argument("--markdown", action="store_true", help="a table in Markdown")
    asked = parser.parse_args()
    if asked.what == "draw":
        for seed in asked.seeds:
            draw(seed, asked.out, asked.defaults)
        return
    found = [kept(place) for place in sorted(asked.out.glob("draw-*"))]
    found = [x for x in found if RECOMMENDED in x and CHOSEN in x]
    print(machine() + "\n")
    for x in found:
        print(f"{x['name']}: said {100 * x['said']:+.1f}, {x['seconds']:.0f} s")
    head = ("training", "draws", "balanced accuracy", "gain of what was recommended")
    print(table(head, rows(found), asked.markdown))


if __name__ == "__main__":
    main()
