"""Figures, drawn without a display and readable without colour."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import storage
from metaloss.losses import CrossEntropies, Losses, one_hot

# Okabe and Ito's colours can be told apart by the colour-blind.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"


def fitness(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the generations: best and mean of each, and the centre on held-out tasks."""
    figure, axes = _figure(1)
    axis = axes[0]
    for key, colour, label in (("best", GREY, "best (this generation's tasks)"), ("mean", BLUE, "mean")):
        points = [(r["generation"], 100 * r[key]) for r in history if r[key] is not None]
        axis.plot(*_columns(points), color=colour, lw=0.9, alpha=0.8, label=label)
    held = [(r["generation"], 100 * r["held_out"]["accuracy"]) for r in history if "held_out" in r]
    if held:
        axis.plot(*_columns(held), "o-", color=ORANGE, ms=3, lw=1.5, label="centre, held-out tasks")
        line = [(r["generation"], 100 * (r["held_out"]["accuracy"] - r["held_out"]["gain"])) for r in history
                if "held_out" in r]  # fmt: skip
        axis.plot(*_columns(line), "--", color="black", lw=1, label="cross-entropy at its best rate, held-out tasks")
    axis.set(xlabel="generation", ylabel="validation accuracy [%]")
    axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def phenotype(losses: Losses, classes: int | None, path: Path) -> None:
    """What one loss does to an image: its value, and its pull on the true class's logit, over that class's probability.

    The other classes share the rest equally. Cross-entropy is drawn beside it; values are shifted to start at 0.
    """
    figure, axes = _figure(2)
    counts = (classes,) if classes else (10, 5, 2)
    for count, style in zip(counts, ("-", "--", ":"), strict=False):
        p, value, pull = curve(losses, count)
        axes[0].plot(p, value - value.min(), style, color=ORANGE, label=f"evolved, {count} classes")
        axes[1].plot(p, pull, style, color=ORANGE, label=f"evolved, {count} classes")
    p, value, pull = curve(CrossEntropies.of(1), counts[0])
    axes[0].plot(p, value - value.min(), color="black", lw=1, label="cross-entropy")
    axes[1].plot(p, pull, color="black", lw=1, label="cross-entropy")
    axes[0].set(xlabel="probability of the true class", ylabel="loss (lowest value at 0)")
    axes[1].set(xlabel="probability of the true class", ylabel="pull on the true logit, −∂L/∂z")
    axes[1].axhline(0, color=GREY, lw=0.5)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def curve(losses: Losses, classes: int, points: int = 199) -> tuple[Float[Tensor, " n"], ...]:
    """The true class's probability, a loss's value there and its pull on the true logit, for one loss."""
    p = torch.linspace(0.005, 0.995, points, dtype=torch.float64)
    logits = torch.zeros(points, classes, dtype=torch.float64)
    logits[:, 0] = torch.log(p * (classes - 1) / (1 - p))
    logits = logits[None, :, None].requires_grad_()  # every point a task of one image: [1 n 1 C]
    target = one_hot(torch.zeros(points, 1, dtype=torch.int64), classes).double()
    value = losses.bind(target)(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return p, value[0].detach(), -gradient[0, :, 0, 0]


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps figures and a window system in global state.
    figure = Figure(figsize=(4.8 * columns, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    storage.write(path, picture.getvalue())
