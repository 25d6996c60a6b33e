"""Figures, drawn without a display and readable without colour.

Each is written as PNG and, for a paper, as PDF.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from metaloss import storage
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.plot_style import BLUE, GREY, ORANGE, drawing_style, panels, render
from metaloss.core.records import GenerationRecord
from metaloss.losses import phenotype as looks
from metaloss.losses.base import CrossEntropies, Losses, reads_clock
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.programs import evaluate, whole_program


@drawing_style()
def fitness(history: Sequence[GenerationRecord], path: Path, scale: MetricScale = ACCURACY) -> None:
    """The metric over the generations: best and mean of each, and the centre on held-out tasks.

    Args:
        history: a run's, one record per generation.
        path: of the PNG, of this figure and of all others; the PDF lies beside it.
        scale: how values are shown.
    """
    figure, (axis,) = panels(1)
    lines: dict[Literal["best", "mean"], tuple[str, str, str]] = {
        "best": (":", GREY, "best (this generation's tasks)"),
        "mean": ("-", BLUE, "mean"),
    }
    for key, (style, colour, label) in lines.items():
        points = [(r["generation"], scale.number(x)) for r in history if (x := r[key]) is not None]
        axis.plot(*_columns(points), style, color=colour, lw=1.1, label=label)
    # Held-out tasks are scored every few generations alone.
    looks = [(r["generation"], r["held_out"]) for r in history if "held_out" in r]
    held = [(generation, scale.number(look[scale.kind])) for generation, look in looks]
    if held:
        axis.plot(*_columns(held), "o-", color=ORANGE, ms=3, lw=1.5, label="centre, held-out tasks")
        line = [
            (generation, scale.number(look[scale.kind] - look["gain"]))
            for generation, look in looks
        ]
        axis.plot(
            *_columns(line),
            "--",
            color="black",
            lw=1,
            label="cross-entropy at its best rate, held-out tasks",
        )
    axis.set(xlabel="generation", ylabel=f"validation {scale.axis}")
    axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


@drawing_style()
def front(rows: Sequence[dict[str, Any]], path: Path, scale: MetricScale = ACCURACY) -> None:
    """The metric against size: the formulas that no smaller one reaches."""
    figure, (axis,) = panels(1)
    axis.step(
        [r["size"] for r in rows],
        [scale.number(r[scale.kind]) for r in rows],
        "o-",
        where="post",
        color=BLUE,
        ms=4,
    )
    axis.set(xlabel="nodes of the formula", ylabel=f"meta-validation {scale.axis}")
    _save(figure, path)


@drawing_style()
def ranks(pairs: Sequence[dict[str, Any]], path: Path) -> None:
    """What losses reached in one stage of an elimination against what they reached in the one
    before.

    Args:
        pairs: tables with the number of the later `stage`, the two values of each loss, `before`
            and `after`, their Kendall's `tau`, and how they are shown.
        path: of the picture.
    """
    figure, axes = panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=True):
        scale = MetricScale.of(pair)
        values = ([scale.number(x) for x in pair[side]] for side in ("before", "after"))
        axis.scatter(*values, s=12, color=BLUE)
        tau = "none" if pair["tau"] is None else f"{pair['tau']:.2f}"
        number = pair["stage"]
        axis.set(xlabel=f"stage {number - 1}: {scale.axis}", ylabel=f"stage {number}: {scale.axis}")
        axis.set_title(f"Kendall's τ {tau}", fontsize=9)
    _save(figure, path)


@drawing_style()
def phenotype(loss: Losses, name: str, classes: int | None, path: Path) -> None:
    """What one loss does to an image, over the probability of its true class, beside cross-entropy.

    What training descends, from its lowest place on, the same between 0 and 1, and the pull on the
    true class's logit. The other classes share the rest equally. A loss that sees how far the
    training is is drawn at its middle, start and end, others for several numbers of classes.
    """
    figure, axes = panels(3)
    name = name.lstrip("_").replace("$", r"\$")  # a stranger's name is no formula to typeset
    for (label, count, drawn), style in zip(
        _variants(loss, classes), ("-", "--", ":"), strict=False
    ):
        _curves(axes, drawn, count, style=style, color=ORANGE, label=f"{name}, {label}")
    _curves(
        axes,
        CrossEntropies.of(1),
        classes or 10,
        style="-",
        color="black",
        lw=1,
        label="cross-entropy",
    )
    titles = ("loss (lowest value at 0)", "loss, between 0 and 1", "pull on the true logit, −∂L/∂z")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlabel="probability of the true class", ylabel=title)
    axes[2].axhline(0, color=GREY, lw=0.5)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def _variants(loss: Losses, classes: int | None) -> list[tuple[str, int, Losses]]:
    """What of a loss is drawn: label, number of classes, the loss."""
    if reads_clock(loss):
        places = {"half-way": loss.clock.t, "first step": 0.0, "end": 1.0}
        drawn = {name: loss.at(replace(loss.clock, t=t)) for name, t in places.items()}
        return [(name, classes or 10, one) for name, one in drawn.items()]
    return [(f"{n} classes", n, loss) for n in ((classes,) if classes else (10, 5, 2))]


def _curves(axes: Any, loss: Losses, classes: int, style: str, **look: Any) -> None:
    p, value = looks.descent(loss, classes)
    # The last places before 0 and 1 lie out of sight, and would set the scale.
    shown = (p > 0.005) & (p < 0.995)
    p = p[shown]
    value = value[shown]
    for axis, y in zip(
        axes,
        (value - value.min(), looks.normalised(value), looks.pull(loss, p, classes)),
        strict=True,
    ):
        axis.plot(p, y, style, **look)


@drawing_style()
def surface(formula: Formula, path: Path, points: int = 60) -> None:
    """One class's term over its target and its probability, as the papers draw losses."""
    # Not up to 0 and 1, where a logarithm or a quotient may be infinite.
    axis_p = torch.linspace(1e-3, 1 - 1e-3, points)
    axis_y = torch.linspace(0, 1, points)
    y, p = torch.meshgrid(axis_y.double(), axis_p.double(), indexing="ij")
    z = evaluate(whole_program(formula.expression), y, p, p.log(), classes=10)
    figure, (axis,) = panels(1, projection="3d")
    axis.plot_surface(y, p, z, cmap="viridis", linewidth=0)
    axis.set(xlabel="target $y$", ylabel=r"probability $\hat{y}$", zlabel=r"$\ell(y, \hat{y})$")
    _save(figure, path)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _save(figure: Any, path: Path) -> None:
    for data, suffix in zip(render(figure), (".png", ".pdf"), strict=True):
        storage.write(path.with_suffix(suffix), data)
