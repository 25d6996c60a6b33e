"""Whether `metaloss recommend` is right about itself: how often it names another loss than
cross-entropy, and rightly.

    python benchmarks/recommendation.py [--rows outliers alike noise worse] [--images 40 100]
                                        [--repeats 40] [--json | --markdown]

Each repetition makes a user's images anew (four classes of 6x6 pixels), asks for a recommendation,
and then measures on 2,000 fresh images per class what the recommended loss is worth when it trains
on tasks of the user's images: the truth.

- *outliers*: a quarter of each class's images shows the next class, three times as strong.
  Cross-entropy gives such an image as much weight as any other one; mae lets go of an image that
  the others contradict, so it is better.
- *alike*: cross-entropy times 0.5, 2 and 5, on images that can be learned. Nothing is better but
  for a rate that lies between those tried.
- *noise*: images that tell nothing about their class; published losses. Nothing is better.
- *worse*: losses that anti-learn or hardly move, on images that can be learned. Nothing is better.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from timing import machine, table

import metaloss
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import Advice, folds
from metaloss.tasks import step_counts
from metaloss.tasks.classifier_inputs import normalised
from metaloss.tasks.episodic import Episodes

CLASSES = 4
SIDE = 6
FRESH = 2000
# gray levels
CONTRAST = 30.0
NOISE = 40.0
LOSSES = {
    "outliers": ("mae", "mse", "gce", "focal", "label_smoothing"),
    "alike": ("0.5 * -y * logp", "2 * -y * logp", "5 * -y * logp"),
    "noise": ("mae", "mse", "gce", "focal", "label_smoothing"),
    "worse": ("c1_printed", "r1_printed", "focal(gamma=20)"),
}
# Small, so that a repetition takes seconds; the tests make it smaller.
SMALL: dict[str, Any] = {
    "rivals": False,
    "tuning_tasks": 8,
    "test_tasks": 16,
    "rates": (0.03, 0.1, 0.3, 1.0, 3.0),
    "classifier": {"kind": "mlp", "hidden": [16]},
}
STEPS = (20, 40)  # among which the strongest cross-entropy is sought; fewer than usual
TRUTH = 64  # tasks


@dataclass(frozen=True)
class Outcome:
    """One repetition.

    Attributes:
        name: of the recommended loss.
        evidence: whether it is another than cross-entropy.
        gain: what was said of choosing so: mean, lowest and highest.
        truth: of the loss that is best on all the user's images, over cross-entropy.
        seconds: of the recommendation.
    """

    name: str
    evidence: bool
    gain: tuple[float, float, float]
    truth: float
    seconds: float


def images(kind: str, n: int, key: Stream) -> Dataset:
    """A user's n images per class, and the fresh ones as an official test split."""
    each = n + FRESH
    label = torch.arange(CLASSES).repeat_interleave(each)
    fresh = torch.arange(each).repeat(CLASSES) >= n
    pattern = key.at("pattern").normal(CLASSES, 1, SIDE, SIDE)
    shown = label
    contrast = torch.full(label.shape, 0.0 if kind == "noise" else CONTRAST)
    if kind == "outliers":
        odd = torch.cat([key.at("odd", c).permutation(each) < each // 4 for c in range(CLASSES)])
        shown = torch.where(odd, (label + 1) % CLASSES, label)
        contrast = contrast * (1 + 2 * odd)
    noise = NOISE * key.at("noise").normal(len(label), 1, SIDE, SIDE)
    pixels = (
        (128 + contrast[:, None, None, None] * pattern[shown] + noise).clamp(0, 255).to(torch.uint8)
    )
    return Dataset(kind, pixels, label, tuple("abcd"), torch.arange(len(label)), fresh, "simulated")


def repetition(kind: str, n: int, seed: int, small: dict[str, Any]) -> Outcome:
    """Ask for a recommendation, and measure what it is worth."""
    key = Stream(seed).at(kind, n)
    data = images(kind, n, key)
    begin = time.perf_counter()
    instead = (
        patch.object(folds, "load", lambda name, options: data),
        patch.object(step_counts, "STEPS", STEPS),
    )
    with tempfile.TemporaryDirectory() as folder, instead[0], instead[1]:
        advice = metaloss.recommend(
            "folder:simulated", LOSSES[kind], out=folder, seed=seed, **small
        )
    seconds = time.perf_counter() - begin
    gain = advice.gain
    return Outcome(
        advice.name,
        advice.evidence,
        (gain.mean, gain.low, gain.high),
        truth(advice, data, small),
        seconds,
    )


def truth(advice: Advice, data: Dataset, small: dict[str, Any]) -> float:
    """The gain, on fresh images, of the loss that is best on all the user's images."""
    best = advice.summary["verdict"]["best"]
    rows = {x["loss"]: x for x in advice.summary["rows"]}
    settings = [Setting(rows[name]["lr"], rows[name]["steps"]) for name in (best, "ce")]
    own, fresh = (
        tuple(torch.nonzero((data.labels == c) & (data.test == test))[:, 0] for c in range(CLASSES))
        for test in (False, True)
    )
    with patch.object(folds, "load", lambda name, options: data):
        own_settings = {key: small[key] for key in ("classifier", "inner") if key in small}
        family = folds.make_folds("folder:simulated", own_settings, Stream(0)).family
    episodes = Episodes(
        family, data, normalised(data, torch.cat(own), "cpu"), {"test": own}, {"test": fresh}
    )
    losses = [metaloss.load(name).losses() for name in (best, "ce")]
    with Local() as engine:
        ours, ce = EpisodeEvaluation(engine, episodes, Stream(0).at("truth")).test_each(
            losses, settings, TRUTH
        )
    assert ours is not None
    assert ce is not None
    return float((ours.right.double() - ce.right.double()).mean())


def row(kind: str, n: int, found: list[Outcome]) -> dict[str, Any]:
    """The rates of one kind of images."""
    named = [x for x in found if x.evidence]
    within = [x.gain[1] <= x.truth <= x.gain[2] for x in found]
    return {
        "images": kind,
        "per_class": n,
        "repetitions": len(found),
        "recommended": len(named),
        "truly_better": sum(x.truth > 0 for x in named),
        "worse": sum(x.truth < 0 for x in named),
        "gain": sum(x.gain[0] for x in found) / len(found),
        "truth": sum(x.truth for x in found) / len(found),
        "truth_within": sum(within),
        "losses": sorted({x.name for x in named}),
        "seconds": sorted(x.seconds for x in found)[len(found) // 2],
    }


HEAD = (
    "images",
    "per class",
    "repetitions",
    "another loss named",
    "of these truly better",
    "gain said",
    "true gain",
    "true gain within the interval",
    "named",
    "seconds",
)


def cells(row: dict[str, Any]) -> list[Any]:
    """A row as it is printed."""
    n = row["repetitions"]
    return [
        row["images"],
        row["per_class"],
        n,
        f"{row['recommended']} ({row['recommended'] / n:.1%})",
        row["truly_better"],
        f"{100 * row['gain']:+.1f}",
        f"{100 * row['truth']:+.1f}",
        f"{row['truth_within'] / n:.1%}",
        ", ".join(row["losses"]),
        row["seconds"],
    ]


def main() -> None:
    """Repeat, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=tuple(LOSSES), default=tuple(LOSSES))
    parser.add_argument(
        "--images", nargs="+", type=int, default=[40], help="per class, that the user has"
    )
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="a list of rows")
    parser.add_argument("--markdown", action="store_true", help="a table in Markdown")
    asked = parser.parse_args()
    rows = [
        row(kind, n, [repetition(kind, n, seed, SMALL) for seed in range(asked.repeats)])
        for kind in asked.rows
        for n in asked.images
    ]
    if asked.json:
        return print(json.dumps(rows, indent=1))
    print(machine() + "\n")
    print(table(HEAD, [cells(each) for each in rows], asked.markdown))


if __name__ == "__main__":
    main()
