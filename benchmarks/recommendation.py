"""Whether `metaloss recommend` is right about itself: how often it names something else than
cross-entropy, and rightly, and how often it says that a search is worth it.

    python benchmarks/recommendation.py [--rows outliers few_outliers … wrong_labels]
                                        [--images 40 100] [--repeats 40] [--first 0] [--search 0]
                                        [--fitted] [--store FILE] [--json | --markdown]

Each repetition makes a user's images anew (`simulated_images.py`: four classes of 6x6 pixels), asks
for a recommendation, and then measures on fresh images what that is worth when it trains on tasks
of the user's images (`recommendation_truth.py`): the truth. `--search 20` also evolves a loss on
the user's images, in so many generations, and measures it likewise. `--store FILE` keeps every
repetition on a line and goes on where it was stopped.

- *outliers*: a quarter of each class's images shows the next class, three times as strong.
  Cross-entropy gives such an image as much weight as any other one; mae lets go of an image that
  the others contradict, so it is better.
- *few_outliers*: a twelfth of them does.
- *alike*: cross-entropy times 0.5, 2 and 5, on images that can be learned. Nothing is better but
  for a rate that lies between those tried.
- *plain*: published losses on images that can be learned.
- *noise*: images that tell nothing about their class; published losses. Nothing is better.
- *worse*: losses that anti-learn or hardly move, on images that can be learned. Nothing is better.
- *long_tail*: 90, 45, 20 and 10 images, by balanced accuracy. Losses for uneven classes are better,
  and so is a prior correction after training, which is a candidate, too.
- *uneven_alike*, *uneven_noise*: as uneven, and nothing is better, as in *alike* and *noise*.
- *wrong_labels*: 40 % of the user's labels are wrong; those of fresh images are right.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from recommendation_truth import CE, Case, recommend, search, truths
from simulated_images import KINDS, images
from timing import machine, table

from metaloss.core.metric_scale import ACCURACY
from metaloss.core.streams import Stream
from metaloss.experiments.recommendation.verdict import ScoreGain, worth_searching

# Small, so that a repetition takes seconds; the tests make it smaller.
SMALL: dict[str, Any] = {
    "rivals": False,
    "tuning_tasks": 8,
    "test_tasks": 16,
    "rates": (0.1, 0.3, 1.0, 3.0),
    "classifier": {"kind": "mlp", "hidden": [16]},
}
GAIN = 0.02  # of a search that is worth it


@dataclass(frozen=True)
class Outcome:
    """One repetition.

    Attributes:
        name: of what is recommended.
        evidence: whether these images are evidence for it.
        gain: what was said of choosing so: mean, lowest and highest.
        truth: of that, over cross-entropy.
        seconds: of the recommendation.
        searched: what a search gained, over cross-entropy at its best; None where none was tried.
        judged: what was judged: the best on all the user's images, or the loss expected to help.
        losses: what was said of choosing among losses alone: mean, lowest and highest.
        loss_truth: of the best loss.
        rows: what every row of the table said: mean, lowest and highest.
    """

    name: str
    evidence: bool
    gain: tuple[float, float, float]
    truth: float
    seconds: float
    searched: float | None = None
    judged: str = ""
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)
    loss_truth: float = 0.0
    rows: dict[str, tuple[float, float, float]] | None = None


def repetition(
    kind: str,
    n: int,
    seed: int,
    small: dict[str, Any],
    generations: int = 0,
    fitted: bool = False,
) -> Outcome:
    """Ask for a recommendation, and measure what it is worth.

    Args:
        kind: of the images.
        n: images of the largest class.
        seed: of everything drawn.
        small: settings of the recommendation.
        generations: of a search; 0: none.
        fitted: whether methods that are no networks are candidates.
    """
    data = images(kind, n, Stream(seed).at(kind, n))
    options = {**small, **dict(KINDS[kind].options), **({"rivals": True} if fitted else {})}
    begin = time.perf_counter()
    case = recommend(kind, data, seed, options, fitted)
    seconds = time.perf_counter() - begin
    evolved = search(case, generations) if generations else None
    return _outcome(case, truths(case, evolved), seconds)


def _outcome(case: Case, gains: dict[str, float], seconds: float) -> Outcome:
    """What a repetition is counted by.

    Args:
        case: the recommendation.
        gains: on fresh images, as `truths` gives them.
        seconds: of the recommendation.
    """
    advice = case.advice
    said = advice.summary["search"]
    rows = {x["loss"]: x["gain"] for x in advice.table if x["gain"]}
    return Outcome(
        advice.name,
        advice.evidence,
        _ends(asdict(advice.gain)),
        gains["judged"],
        seconds,
        gains.get("evolved"),
        case.judged,
        _ends(said),
        gains["loss"],
        {name: _ends(gain) for name, gain in rows.items()},
    )


def _ends(gain: dict[str, float]) -> tuple[float, float, float]:
    return gain["mean"], gain["low"], gain["high"]


@dataclass(frozen=True)
class Plan:
    """What is repeated.

    Attributes:
        rows: kinds of images, each with its number of images.
        seeds: of the repetitions.
        generations: of a search; 0: none.
        fitted: whether methods that are no networks are candidates.
        store: a file that keeps every repetition on a line; None: nothing is kept.
    """

    rows: Sequence[tuple[str, int]]
    seeds: range
    generations: int = 0
    fitted: bool = False
    store: Path | None = None

    def run(self) -> dict[tuple[str, int], list[Outcome]]:
        """All repetitions, those that are kept already among them."""
        kept = self._kept()
        # Seed by seed: where it is stopped, all rows have equally many.
        for seed in self.seeds:
            for kind, n in self.rows:
                key = self._key(kind, n, seed)
                if key in kept:
                    continue
                kept[key] = repetition(kind, n, seed, SMALL, key[3], self.fitted)
                if self.store:
                    line = json.dumps([key, asdict(kept[key])])
                    with self.store.open("a") as file:
                        file.write(line + "\n")
        return {
            (kind, n): [kept[self._key(kind, n, seed)] for seed in self.seeds]
            for kind, n in self.rows
        }

    def _key(self, kind: str, n: int, seed: int) -> tuple[str, int, int, int, bool]:
        # Nothing can be found where images tell nothing.
        generations = 0 if KINDS[kind].hopeless else self.generations
        return kind, n, seed, generations, self.fitted

    def _kept(self) -> dict[tuple[Any, ...], Outcome]:
        if self.store is None or not self.store.exists():
            return {}
        lines = map(json.loads, self.store.read_text().splitlines())
        return {tuple(key): Outcome(**values) for key, values in lines}


def row(kind: str, n: int, found: list[Outcome]) -> dict[str, Any]:
    """The rates of one kind of images."""
    named = [x for x in found if x.name != CE]
    within = [x.gain[1] <= x.truth <= x.gain[2] for x in found]
    return {
        "images": kind,
        "per_class": n,
        "repetitions": len(found),
        "recommended": len(named),
        "with_evidence": sum(x.evidence for x in named),
        "truly_better": sum(x.truth > 0 for x in named),
        "worse": sum(x.truth < 0 for x in named),
        "gain": sum(x.gain[0] for x in found) / len(found),
        "truth": sum(x.truth for x in found) / len(found),
        "truth_within": sum(within),
        "worth": sum(map(said_worth, found)),
        **of_searches(kind, found),
        "losses": Counter(x.name.partition("(")[0].strip() for x in named),
        "seconds": sorted(x.seconds for x in found)[len(found) // 2],
    }


def said_worth(outcome: Outcome) -> bool:
    """Whether a search is called worth it, by the rule that stands today."""
    return worth_searching(ScoreGain(*outcome.losses), ACCURACY)


def of_searches(kind: str, found: Sequence[Outcome]) -> dict[str, Any]:
    """What searches gained, and whether what was said of them was right.

    Args:
        kind: of the images.
        found: the repetitions.
    """
    hopeless = KINDS[kind].hopeless
    tried = [x for x in found if hopeless or x.searched is not None]
    gains = [0.0 if hopeless else x.searched or 0.0 for x in tried]
    worth = list(map(said_worth, tried))
    pairs = list(zip(gains, worth, strict=True))
    return {
        "searches": 0 if hopeless else len(tried),
        "searched": sum(gains) / len(gains) if gains else None,
        "none": sum(gain <= 0 for gain in gains),
        "none_said_no": sum(gain <= 0 and not said for gain, said in pairs),
        "much": sum(gain >= GAIN for gain in gains),
        "much_said_yes": sum(gain >= GAIN and said for gain, said in pairs),
    }


HEAD = (
    "images",
    "per class",
    "repetitions",
    "another named",
    "of these with evidence",
    "truly better",
    "truly worse",
    "gain said",
    "true gain",
    "true gain within the interval",
    "search worth it",
    "a search gained",
    "said no where it gained nothing",
    "said yes where it gained 2 points",
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
        row["with_evidence"],
        row["truly_better"],
        row["worse"],
        f"{100 * row['gain']:+.1f}",
        f"{100 * row['truth']:+.1f}",
        f"{row['truth_within'] / n:.1%}",
        f"{row['worth']} ({row['worth'] / n:.1%})",
        "–" if row["searched"] is None else f"{100 * row['searched']:+.1f}",
        f"{row['none_said_no']} of {row['none']}" if row["none"] else "–",
        f"{row['much_said_yes']} of {row['much']}" if row["much"] else "–",
        ", ".join(f"{name} {count}" for name, count in row["losses"].most_common()),
        row["seconds"],
    ]


def main() -> None:
    """Repeat, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=tuple(KINDS), default=tuple(KINDS))
    parser.add_argument(
        "--images", nargs="+", type=int, help="of the largest class; each kind's own by default"
    )
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="the first repetition's seed")
    parser.add_argument(
        "--search", type=int, default=0, help="generations of a search that is tried"
    )
    parser.add_argument(
        "--fitted", action="store_true", help="methods that are no networks are candidates, too"
    )
    parser.add_argument("--store", type=Path, help="keeps every repetition; goes on from there")
    parser.add_argument("--json", action="store_true", help="a list of rows")
    parser.add_argument("--markdown", action="store_true", help="a table in Markdown")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.repeats)
    kinds = [(kind, n) for kind in asked.rows for n in asked.images or KINDS[kind].images]
    plan = Plan(kinds, seeds, asked.search, asked.fitted, asked.store)
    # Tasks are tiny: more threads only wait for each other.
    torch.set_num_threads(1)
    rows = [row(kind, n, found) for (kind, n), found in plan.run().items()]
    if asked.json:
        return print(json.dumps(rows, indent=1))
    print(machine() + "\n")
    print(table(HEAD, [cells(each) for each in rows], asked.markdown))


if __name__ == "__main__":
    main()
