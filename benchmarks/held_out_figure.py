"""The figure of `held_out_kinds.py`: gains over tuned cross-entropy as a heat map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from held_out_report import MAIN, cells_of, signs

from metaloss.core.metric_scale import ACCURACY
from metaloss.core.plot_style import BLUE, ORANGE, drawing_style, panels, render, short_label

LINEAR = 2.0  # points up to which colours grow in proportion; beyond, with the logarithm
TITLE = (
    "Gain over cross-entropy, both at their best rates for the number of steps,\n"
    "in points of accuracy; bold: ahead or behind after Holm's correction"
)
DARK = 0.55  # share of the colours from which on letters are white


@drawing_style()
def draw_gains(rows: Sequence[Mapping[str, Any]], losses: Sequence[str]) -> bytes:
    """A heat map of every loss's gains, as PNG: a row for each kind, a column for each number of
    steps.

    Bold: ahead or behind after Holm's correction for all cells of the panel.

    Raises:
        SystemExit: nothing is known of a loss.
    """
    from matplotlib.colors import SymLogNorm

    of_losses = {loss: [x for x in cells_of(rows, loss) if x["part"] in MAIN] for loss in losses}
    if lacking := [loss for loss, cells in of_losses.items() if not cells]:
        raise SystemExit(f"the store has no cells of {', '.join(lacking)}: measure them first")
    kinds = list(dict.fromkeys(x["kind"] for cells in of_losses.values() for x in cells))
    steps = sorted({x["steps"] for cells in of_losses.values() for x in cells})
    gains = [100 * x["versus"]["ce"]["mean"] for cells in of_losses.values() for x in cells]
    most = max(1.0, *map(abs, gains))
    norm = SymLogNorm(LINEAR, vmin=-most, vmax=most)
    figure, axes = panels(len(losses), width=6.4, height=1.9 + 0.34 * len(kinds))
    for axis, (loss, cells) in zip(axes, of_losses.items(), strict=True):
        image = _draw_cells(axis, cells, kinds, steps, norm)
        axis.set_yticks(range(len(kinds)), kinds if axis is axes[0] else [""] * len(kinds))
        axis.set(xlabel="steps of training", title=short_label(loss))
    figure.suptitle(TITLE, fontsize="medium")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    ticks = [x for x in (0.0, 1.0, 3.0, 10.0, 30.0) if x <= most]
    ticks = [*(-x for x in ticks[:0:-1]), *ticks]
    bar.set_ticks(ticks, labels=[f"{x:+g}" if x else "0" for x in ticks])
    bar.ax.minorticks_off()
    return render(figure)[0]


def _draw_cells(
    axis: Any,
    cells: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    steps: Sequence[int],
    norm: Any,
) -> Any:
    """One loss's gains, as colours and as numbers; what a bar of colours is drawn from."""
    from matplotlib.colors import LinearSegmentedColormap

    values = np.full((len(kinds), len(steps)), np.nan)
    for x in cells:
        values[kinds.index(x["kind"]), steps.index(x["steps"])] = 100 * x["versus"]["ce"]["mean"]
    colours = LinearSegmentedColormap.from_list("gains", [ORANGE, "white", BLUE])
    image = axis.imshow(values, cmap=colours, norm=norm, aspect="auto")
    _write_numbers(axis, cells, kinds, steps, norm)
    axis.set_xticks(range(len(steps)), [str(n) for n in steps])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def _write_numbers(
    axis: Any,
    cells: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    steps: Sequence[int],
    norm: Any,
) -> None:
    """The gain in every cell."""
    sign = signs(cells, "ce")
    for x in cells:
        gain = x["versus"]["ce"]["mean"]
        clear = sign[x["kind"], x["steps"]] != 0
        strength = abs(2 * float(norm(100 * gain)) - 1)
        axis.text(
            steps.index(x["steps"]),
            kinds.index(x["kind"]),
            ACCURACY.signed(gain),
            ha="center",
            va="center",
            weight="bold" if clear else "normal",
            color="white" if strength > DARK else "black",
        )
