"""A study's figure: what losses reach under every two settings, coloured by cluster."""

import textwrap
from collections.abc import Sequence
from typing import Any

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.plot_style import COLOURS, MARKS, Picture, drawing_style, panels, render
from metaloss.experiments.rank_study.ranking import Pair
from metaloss.experiments.rank_study.results import StudyResults

SIDE = 3.4  # inches of a panel
WIDE = 36  # characters of a line


@drawing_style()
def scatter(results: StudyResults, pairs: Sequence[Pair]) -> Picture:
    """A panel for every pair: the earlier setting across, the later one upwards."""
    names = list(results.scores)
    n = len(names) - 1
    figure, axes = panels(n, n, width=SIDE + 0.4, height=SIDE * n)
    # Every pair once makes a triangle: the other panels stay hidden.
    for axis in axes:
        axis.set_visible(False)
    for pair in pairs:
        column = names.index(pair.a)
        row = names.index(pair.b) - 1
        axis = axes[row * n + column]
        axis.set_visible(True)
        _panel(axis, pair, results)
    what, failure = (
        ("Accuracy of every loss", "0")
        if results.by_accuracy
        else ("What every loss reaches, by the metric beside the setting,", "the worst value")
    )
    caption = (
        f"{what} under two settings; colours and marks: clusters. A failed training counts as "
        f"{failure}."
    )
    return Picture("scatter", caption, *render(figure))


def _panel(axis: Any, pair: Pair, results: StudyResults) -> None:
    a, b = (
        [results.scales[name].number(value) for value in results.values_of(name)]
        for name in (pair.a, pair.b)
    )
    for cluster in sorted(set(pair.clusters)):
        rows = [i for i, label in enumerate(pair.clusters) if label == cluster]
        look = {"color": COLOURS[cluster % len(COLOURS)], "marker": MARKS[cluster % len(MARKS)]}
        axis.scatter(
            [a[i] for i in rows], [b[i] for i in rows], s=18, alpha=0.8, linewidths=0, **look
        )
    tau = "none" if pair.all.tau is None else f"{pair.all.tau:.2f}"
    xlabel, ylabel = (_wrapped(name, results.scales[name]) for name in (pair.a, pair.b))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.set_title(f"Kendall's τ {tau}, n = {pair.all.n}", fontsize=9)


def _wrapped(name: str, scale: MetricScale = ACCURACY) -> str:
    """A setting's name and unit in lines that fit, broken behind commas, no formula to typeset."""
    unit = "[%]" if scale.is_accuracy else f"· {scale.axis}"
    return "\n".join(
        textwrap.wrap(f"{name.replace(',', ', ')} {unit}", WIDE, break_on_hyphens=False)
    ).replace("$", r"\$")
