"""Whether `metaloss recommend` is right about itself: how often it names another loss than
cross-entropy, and rightly, and how often it says that a search is worth it.

    python benchmarks/recommendation.py [--rows outliers few_outliers alike noise worse]
                                        [--images 40 100] [--repeats 40] [--search 0]
                                        [--json | --markdown]

`--search 20` also evolves a loss on the user's images, in so many generations, and says what that
gains on the fresh ones over cross-entropy at its best rate and number of steps.

Each repetition makes a user's images anew (four classes of 6x6 pixels), asks for a recommendation,
and then measures on 2,000 fresh images per class what the recommended loss is worth when it trains
on tasks of the user's images: the truth.

- *outliers*: a quarter of each class's images shows the next class, three times as strong.
  Cross-entropy gives such an image as much weight as any other one; mae lets go of an image that
  the others contradict, so it is better.
- *few_outliers*: a twelfth of them does.
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
from pathlib import Path
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
from metaloss.tasks import episodic, step_counts
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
    "few_outliers": ("mae", "mse", "gce", "focal", "label_smoothing"),
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
ODD = {"outliers": 4, "few_outliers": 12}  # one of so many images shows the next class
# Tasks of a search that is to be tried; a class has four sevenths of its images to be learned from.
SEARCHED = """dataset = "digits"
ways = 4
shots = {shots}
val = {val}
classifier = {{ kind = "mlp", hidden = [16] }}
"""


@dataclass(frozen=True)
class Outcome:
    """One repetition.

    Attributes:
        name: of the recommended loss.
        evidence: whether it is another than cross-entropy.
        gain: what was said of choosing so: mean, lowest and highest.
        truth: of the loss that is best on all the user's images, over cross-entropy.
        seconds: of the recommendation.
        worth: whether it said that a search is worth it.
        searched: what a search gained, over cross-entropy at its best; None where none was tried.
    """

    name: str
    evidence: bool
    gain: tuple[float, float, float]
    truth: float
    seconds: float
    worth: bool = False
    searched: float | None = None


def images(kind: str, n: int, key: Stream) -> Dataset:
    """A user's n images per class, and the fresh ones as an official test split."""
    each = n + FRESH
    label = torch.arange(CLASSES).repeat_interleave(each)
    fresh = torch.arange(each).repeat(CLASSES) >= n
    pattern = key.at("pattern").normal(CLASSES, 1, SIDE, SIDE)
    shown = label
    contrast = torch.full(label.shape, 0.0 if kind == "noise" else CONTRAST)
    if kind in ODD:
        few = each // ODD[kind]
        odd = torch.cat([key.at("odd", c).permutation(each) < few for c in range(CLASSES)])
        shown = torch.where(odd, (label + 1) % CLASSES, label)
        contrast = contrast * (1 + 2 * odd)
    noise = NOISE * key.at("noise").normal(len(label), 1, SIDE, SIDE)
    pixels = (
        (128 + contrast[:, None, None, None] * pattern[shown] + noise).clamp(0, 255).to(torch.uint8)
    )
    return Dataset(kind, pixels, label, tuple("abcd"), torch.arange(len(label)), fresh, "simulated")


def repetition(
    kind: str, n: int, seed: int, small: dict[str, Any], generations: int = 0
) -> Outcome:
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
        advice.summary["search"]["worth"],
        searched(data, n, seed, generations) if generations else None,
    )


def searched(data: Dataset, n: int, seed: int, generations: int) -> float:
    """What a search on the user's images gains on the fresh ones."""
    learned = min(round(n * 4 / 7), n - round(n * 4 / 7))
    shots = max(1, learned // 2)
    instead = (
        patch.object(episodic, "load", lambda name, options: data),
        patch.object(step_counts, "STEPS", STEPS),
    )
    with tempfile.TemporaryDirectory() as folder, instead[0], instead[1]:
        tasks = Path(folder) / "searched.toml"
        tasks.write_text(SEARCHED.format(shots=shots, val=learned - shots))
        result = metaloss.evolve(
            tasks=str(tasks),
            genome="targets",
            generations=generations,
            tasks_per_generation=4,
            baseline_tasks=16,
            winner_tasks=32,
            test_tasks=TRUTH,
            seed=seed,
            out=folder,
        )
        (of_family,) = result.summary["test"].values()
    return float(of_family["ce_steps"]["gain"]["mean"])


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
        "worth": sum(x.worth for x in found),
        "searched": [x.searched for x in found if x.searched is not None],
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
    "search worth it",
    "a search gained",
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
        f"{row['worth']} ({row['worth'] / n:.1%})",
        ", ".join(f"{100 * x:+.1f}" for x in row["searched"]) or "–",
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
    parser.add_argument(
        "--search", type=int, default=0, help="generations of a search that is tried"
    )
    parser.add_argument("--json", action="store_true", help="a list of rows")
    parser.add_argument("--markdown", action="store_true", help="a table in Markdown")
    asked = parser.parse_args()
    rows = [
        row(
            kind,
            n,
            [repetition(kind, n, seed, SMALL, asked.search) for seed in range(asked.repeats)],
        )
        for kind in asked.rows
        for n in asked.images
    ]
    if asked.json:
        return print(json.dumps(rows, indent=1))
    print(machine() + "\n")
    print(table(HEAD, [cells(each) for each in rows], asked.markdown))


if __name__ == "__main__":
    main()
