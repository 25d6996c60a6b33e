"""A comparison's figures for a paper: PDF and PNG, with intervals, readable without colour."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaloss.core.metric_scale import MetricScale
from metaloss.core.plot_style import (
    STYLES,
    Picture,
    drawing_style,
    panels,
    render,
    series_look,
    short_label,
)
from metaloss.core.records import loss_name

WIDTH = 4.6  # inches of a column


@drawing_style()
def draw(summary: dict[str, Any]) -> list[Picture]:
    """All figures of a comparison."""
    pictures = [accuracy(summary), paired(summary)]
    # Kinds of a mixture are of unlike lengths, and have no common curve.
    if any(summary["curves"][family["name"]]["steps"] for family in summary["families"]):
        pictures.append(curves(summary))
    return [*pictures, ranks(summary["ranks"])] if summary["ranks"] else pictures


def accuracy(summary: dict[str, Any]) -> Picture:
    """Mean accuracies, or values of the metric, with their 95 % intervals over tasks."""
    families = summary["families"]
    height = 1.2 + 0.34 * len(summary["losses"])
    figure, axes = panels(len(families), width=WIDTH, height=height)
    for axis, family in zip(axes, families, strict=True):
        rows = _rows(summary, family["name"])
        scale = MetricScale.of(family)
        # 1.96 standard errors: the mean of many tasks is nearly normal.
        error = [1.96 * r["at"]["std"] / summary["settings"]["test_tasks"] ** 0.5 for r in rows]
        for y, (row, half_width) in enumerate(zip(rows, error, strict=True)):
            axis.plot(scale.number(row["plain"][scale.kind]), y, "|", color="0.45", ms=11, mew=1.6)
            axis.errorbar(
                scale.number(row["at"][scale.kind]),
                y,
                xerr=scale.number(half_width),
                **series_look(y),
                ls="none",
                ms=4.5,
                capsize=5,
            )
        _name_rows(axis, rows, family["name"], scale.axis)
    caption = (
        f"Mean {_titles(summary)} on meta-test tasks at each loss's best learning rate, with 95 % "
        "intervals of the mean over tasks; the bar is the same loss at the family's own rate."
    )
    return Picture("accuracy", caption, *render(figure))


def paired(summary: dict[str, Any]) -> Picture:
    """Differences from the baseline, with intervals over tasks, and over tasks and images."""
    families = summary["families"]
    base = summary["baseline"]
    height = 1.2 + 0.34 * (len(summary["losses"]) - 1)
    figure, axes = panels(len(families), width=WIDTH, height=height)
    for axis, family in zip(axes, families, strict=True):
        axis.axvline(0, color="0.3", lw=0.8)
        scale = MetricScale.of(family)
        rows = [row for row in _rows(summary, family["name"]) if row["against"]]
        for y, row in enumerate(rows):
            gain = row["against"]["gain"]
            # By its place among all losses, so that a loss looks the same in every figure.
            look = series_look([x["loss"] for x in summary["losses"]].index(row["loss"]))
            axis.hlines(
                y,
                scale.number(row["against"]["low"]),
                scale.number(row["against"]["high"]),
                color=look["color"],
                lw=1,
            )
            for end in ("low", "high"):
                axis.plot(scale.number(row["against"][end]), y, "|", color=look["color"], ms=12)
            axis.hlines(
                y,
                scale.number(gain["low"]),
                scale.number(gain["high"]),
                color=look["color"],
                lw=5,
                alpha=0.4,
            )
            axis.plot(scale.number(gain["mean"]), y, **look, ms=4.5)
        _name_rows(axis, rows, family["name"], f"Δ to {short_label(base)}{scale.unit_label}")
    caption = (
        f"Paired difference of {_titles(summary)} to {base} on the same tasks and initial weights; "
        "broad: 95 % bootstrap interval over tasks; between the ends: over tasks and images."
    )
    return Picture("paired", caption, *render(figure))


def curves(summary: dict[str, Any]) -> Picture:
    """Mean learning curves over the inner steps; the band is the tasks' standard deviation."""
    families = [x for x in summary["families"] if summary["curves"][x["name"]]["steps"]]
    height = 2.9 * len(families) + 0.3 * (1 + len(summary["losses"]) // 3)
    figure, axes = panels(2, len(families), width=WIDTH, height=height)
    # The bands of many losses lie over each other, and must be fainter.
    shade = 0.12 if len(summary["losses"]) < 6 else 0.04
    for row, family in enumerate(families):
        title = short_label(family["name"])
        scale = MetricScale.of(family)
        of_family = summary["curves"][family["name"]]
        for axis, side in zip(axes[2 * row : 2 * row + 2], ("train", "validation"), strict=True):
            _curves_of_family(axis, of_family, side, shade, scale)
            words = "training" if side == "train" else side
            axis.set(xlabel="inner step", ylabel=f"{words} {scale.axis}", title=title)
            axis.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False
    )
    caption = (
        "Learning curves at each loss's best learning rate: mean over meta-test tasks, band: one "
        "standard deviation of the tasks."
    )
    return Picture("curves", caption, *render(figure))


def _curves_of_family(
    axis: Any, of_family: dict[str, Any], side: str, shade: float, scale: MetricScale
) -> None:
    """Every loss's mean learning curve and its band.

    Args:
        axis: what is drawn on.
        of_family: the steps, and by loss the means and standard deviations.
        side: "train" or "validation".
        shade: how opaque the bands are.
        scale: how values are shown.
    """
    steps = of_family["steps"]
    for i, (name, curve) in enumerate(of_family["losses"].items()):
        mean, std = (scale.number(1.0) * np.array(values) for values in curve[side])
        colour = series_look(i)["color"]
        axis.fill_between(steps, mean - std, mean + std, color=colour, alpha=shade, lw=0)
        style = STYLES[i % len(STYLES)]
        axis.plot(steps, mean, style, color=colour, lw=1.7, label=short_label(name))


def ranks(rank_summary: dict[str, Any]) -> Picture:
    """The critical-difference diagram of Demšar 2006: a bar joins mean ranks that do not differ."""
    order = sorted(rank_summary["mean"].items(), key=lambda pair: pair[1])
    cd = rank_summary["critical_difference"]
    groups = _alike(order, rank_summary["critical_difference"])
    low = -0.6 * len(groups)
    figure, (axis,) = panels(1, width=6.4, height=1.4 + 0.3 * len(order) + 0.2 * len(groups))
    axis.set(xlim=(len(order) + 0.3, 0.7), ylim=(low - len(order) - 0.6, 2.4))
    for y, (name, rank) in enumerate(order, start=1):
        axis.plot([rank, rank], [0, low - y], color="0.3", lw=0.8)
        axis.text(rank, low - y, f" {short_label(name)}  {rank:.2f}", va="center", ha="left")
    for y, span in enumerate(groups):
        axis.hlines(-0.4 - 0.6 * y, *span, color="black", lw=4)
    # With few families the difference may be longer than the axis.
    shown = min(cd, len(order) - 1)
    axis.errorbar(1 + shown / 2, 1.9, xerr=shown / 2, color="0.3", capsize=3)
    axis.text(
        1 + shown / 2, 2.0, f"critical difference {cd:.2f}", ha="center", va="bottom", fontsize=9
    )
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.spines["top"].set(visible=True, position=("data", 0))
    axis.xaxis.set_ticks_position("top")
    axis.set_xticks(range(1, len(order) + 1))
    axis.set_yticks([])
    caption = (
        f"Mean ranks over {rank_summary['families']} families (1 is best); losses under one "
        f"bar are not told apart by Nemenyi's test at 5 %, whose critical difference is {cd:.2f}. "
        "So few families seldom tell any apart."
    )
    return Picture("ranks", caption, *render(figure))


def _alike(order: Sequence[tuple[str, float]], cd: float) -> list[tuple[float, float]]:
    """The widest spans of mean ranks within a critical difference, of two losses or more."""
    spans: list[tuple[float, float]] = []
    for i, (_, first) in enumerate(order):
        last = max(rank for _, rank in order[i:] if rank - first <= cd)
        # A span within the one before would only repeat it.
        if last > first and (not spans or last > spans[-1][1]):
            spans.append((first, last))
    return spans


def _titles(summary: dict[str, Any]) -> str:
    """What the families' losses are compared by."""
    return " and ".join(dict.fromkeys(MetricScale.of(x).title for x in summary["families"]))


def _rows(summary: dict[str, Any], family: str) -> list[dict[str, Any]]:
    of_losses = [row for row in summary["rows"] if row["kind"] == "loss"]
    return [row for row in of_losses if row["family"] == family]


def _name_rows(axis: Any, rows: Sequence[Mapping[str, Any]], family: str, label: str) -> None:
    """One row per loss, the first one on top."""
    axis.set_yticks(range(len(rows)), [short_label(loss_name(row)) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set(title=short_label(family), xlabel=label)
    axis.grid(axis="x", color="0.9", lw=0.6)
    axis.set_axisbelow(True)
