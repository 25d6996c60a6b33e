"""What was found in a data set, as plain values, and as lines of text."""

from collections.abc import Sequence
from typing import Any

from metaloss.core.formatting import counted, percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import table
from metaloss.data.datasets import Table
from metaloss.data.inspection import NAMED, Inspection, copy_sentences
from metaloss.experiments.inspection.meaning import meaning, sentences
from metaloss.inner.metrics import Metric

SIZES = 5  # that are given
OFFICIAL = "official split"


def summarise(found: Inspection, metric: Metric, scale: MetricScale) -> dict[str, Any]:
    """All that was found, as values for JSON."""
    dataset = found.dataset
    about = meaning(found, metric, scale)
    in_classes = zip(dataset.classes, found.counts, strict=True)
    constant = found.facts.constant.nonzero()[:, 0].tolist()
    return {
        "data": found.source,
        "origin": dataset.origin,
        "images": len(dataset.labels),
        "looked_at": len(found.facts.rows),
        "test": OFFICIAL if found.official else "test pool, a fifth of each class",
        "classes": {name: {"images": n, "test": test} for name, (n, test) in in_classes},
        "sizes": [{"size": list(size), "images": n} for size, n in found.sizes],
        "copies": {
            "in_another_class": found.copies.in_classes,
            "on_both_sides_of_the_split": found.copies.in_split,
            "pairs": [
                {
                    "images": [found.name(pair.first), found.name(pair.second)],
                    "exact": pair.exact,
                    "classes": pair.classes,
                    "split": pair.split,
                }
                for pair in found.copies.pairs
            ],
        },
        "constant": [found.name(place) for place in constant],
        "damaged": [{"file": file, "reason": reason} for file, reason in found.damaged],
        **scale.entry(),
        "metric": {**about, "sentences": sentences(found, about, scale)},
        "remarks": remarks(found),
    }


def remarks(found: Inspection) -> list[str]:
    """What is wrong with the images, and what to do; a sentence each."""
    lines = [f"{sentence}" for sentence in copy_sentences(found)]
    constant = found.facts.constant.nonzero()[:, 0].tolist()
    if constant:
        names = _some([found.name(place) for place in constant])
        lines.append(
            f"{counted(len(constant), 'image')} of one colour ({names}): there is nothing to learn "
            "from them; remove them"
        )
    if found.damaged:
        lines.append(damage(found))
    return lines


def damage(found: Inspection) -> str:
    """Which files cannot be read, why, and what to do."""
    names = _some([f"{file}: {reason}" for file, reason in found.damaged], "; ")
    return (
        f"{counted(len(found.damaged), 'file')} cannot be read ({names}): remove or replace them; "
        "until then nothing trains on this data"
    )


def _origin(found: Inspection) -> str:
    """Where the images come from, where the name that they were asked for by does not say it."""
    origin = found.dataset.origin.removeprefix(f"{len(found.dataset.labels)} images of ")
    return "" if origin == found.source.partition(":")[2] else f"; {origin}"


def _some(names: Sequence[str], between: str = ", ") -> str:
    """The first of some names."""
    return between.join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])


def lines(found: Inspection, summary: dict[str, Any]) -> list[str]:
    """The summary as text."""
    dataset = found.dataset
    what = "rows of features" if isinstance(dataset, Table) else "images"
    sampled = summary["looked_at"] + len(found.damaged) < summary["images"]
    return [
        f"data    {found.source}: {summary['images']} {what}, "
        f"{counted(len(dataset.classes), 'class')}{_origin(found)}",
        *([f"        {SAMPLE.format(summary['looked_at'])}"] if sampled else []),
        *table([class_columns(summary), *class_rows(summary)]),
        *([f"sizes   {sizes(summary)}"] if summary["sizes"] else []),
        *(f"metric  {sentence}" for sentence in summary["metric"]["sentences"]),
        *(f"note    {sentence}" for sentence in summary["remarks"]),
        *([] if summary["remarks"] else [NOTHING]),
    ]


SAMPLE = "sizes, copies and damage are those of a sample of {} images"
NOTHING = (
    "note    no copies in another class or on the other side of the split, and no constant or "
    "damaged images"
)


def class_columns(summary: dict[str, Any]) -> list[str]:
    """The heads of the columns of `class_rows`."""
    return ["class", "to train on" if _official(summary) else "images", "share", "to test on"]


def class_rows(summary: dict[str, Any]) -> list[list[str]]:
    """A row for every class, the largest first.

    Images of an official test split are counted apart: its shares are made by whoever made it.
    """
    apart = _official(summary)
    counts = {
        name: (n["images"] - apart * n["test"], n["test"]) for name, n in summary["classes"].items()
    }
    total = sum(n for n, _ in counts.values())
    rows = sorted(counts.items(), key=lambda x: -x[1][0])
    return [[name, str(n), percent(n / max(1, total)), str(test)] for name, (n, test) in rows]


def _official(summary: dict[str, Any]) -> bool:
    return bool(summary["test"] == OFFICIAL)


def sizes(summary: dict[str, Any]) -> str:
    """Widths and heights, the most frequent first."""
    texts = [
        f"{width}x{height} ({row['images']})"
        for row in summary["sizes"]
        for width, height in [row["size"]]
    ]
    more = f" and {len(texts) - SIZES} others" if len(texts) > SIZES else ""
    return f"{', '.join(texts[:SIZES])}{more}, width x height"
