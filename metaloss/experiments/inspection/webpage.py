"""What was found in a data set, as one HTML file."""

import shlex
from collections.abc import Sequence
from typing import Any

from metaloss.core import webpage
from metaloss.core.metric_scale import MetricScale
from metaloss.core.plot_style import Picture
from metaloss.experiments.inspection.summary import class_columns, class_rows, sizes

PAIRS = 50  # that are listed


def page(
    summary: dict[str, Any],
    scale: MetricScale,
    pictures: Sequence[Picture],
    command: Sequence[str],
) -> str:
    """The report."""
    looked = summary["looked_at"] + len(summary["damaged"])
    sampled = [
        f"A sample of {summary['looked_at']} images was looked at for copies, sizes and damage."
    ]
    *heads, last = class_columns(summary)
    columns = (*heads, f"{last} ({summary['test']})")
    counts = [
        webpage.table(columns, class_rows(summary)),
        *([webpage.paragraph(f"Sizes: {sizes(summary)}.")] if summary["sizes"] else []),
        *map(webpage.paragraph, sampled if looked < summary["images"] else []),
    ]
    parts = [
        webpage.paragraph(f"{summary['images']} images; {summary['origin']}"),
        webpage.section(
            "What to mend", webpage.bullets(summary["remarks"] or ["Nothing was found."])
        ),
        webpage.section("Classes", *counts),
        webpage.section(
            f"What the classes' sizes mean for {scale.title}",
            webpage.bullets(summary["metric"]["sentences"]),
        ),
        webpage.section("Pictures", *map(webpage.figure, pictures)),
        *_copies(summary),
        *_damaged(summary),
    ]
    if command:
        parts.append(webpage.section("How to repeat", webpage.preformatted(shlex.join(command))))
    return webpage.page(f"metaloss data show: {summary['data']}", parts)


def _copies(summary: dict[str, Any]) -> list[str]:
    pairs = summary["copies"]["pairs"]
    if not pairs:
        return []
    rows = [
        [
            *pair["images"],
            "all pixels" if pair["exact"] else "nearly",
            "two classes" if pair["classes"] else "one class",
            "both sides" if pair["split"] else "one side",
        ]
        for pair in pairs[:PAIRS]
    ]
    note = (
        "Nearly: grey thumbnails of 16x16 pixels correlate by 0.995 or more. What was cropped, "
        "turned or taken again a moment later is not found. "
        + (f"{len(pairs) - PAIRS} more pairs are in summary.json." if len(pairs) > PAIRS else "")
    )
    columns = ("image", "copy", "alike", "labels", "training and test")
    return [webpage.section("Copies", webpage.table(columns, rows), webpage.note(note))]


def _damaged(summary: dict[str, Any]) -> list[str]:
    rows = [[row["file"], row["reason"]] for row in summary["damaged"]]
    return (
        [webpage.section("Files that cannot be read", webpage.table(("file", "reason"), rows))]
        if rows
        else []
    )
