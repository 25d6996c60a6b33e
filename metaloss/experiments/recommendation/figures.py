"""The figures of a recommendation's report: gains with their intervals, and confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core.metric_scale import MetricScale
from metaloss.core.plot_style import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    drawing_style,
    panels,
    render,
    short_label,
)
from metaloss.experiments.recommendation.records import CHOICE, LOSS
from metaloss.training.figures import NUMBERED, confusions

LOOKS = {CHOICE: (GREY, "D"), LOSS: (BLUE, "o")}  # colour and mark by the kind of a row
OTHER = (ORANGE, "s")
MATRICES = (
    "Held-out images of every class (row) by their answer (column), of all folds together, spread "
    "as the answers to them are: an image may get several. The colour is the share of the class."
)


@drawing_style()
def gains(
    rows: Sequence[Mapping[str, Any]],
    verdict: Mapping[str, Any] | None,
    scale: MetricScale,
    certainty: float,
) -> list[Picture]:
    """Differences from cross-entropy with their intervals; nothing where there is none.

    Args:
        rows: of the table, each with its kind and its `gain`, None of cross-entropy; what each fold
            chose is one of them.
        verdict: what follows; None where the user stopped before it.
        scale: how differences are shown.
        certainty: of the intervals.
    """
    drawn = [(row.get("spec") or row["loss"], row) for row in rows if row["gain"]]
    if not drawn:
        return []
    figure, (axis,) = panels(1, width=7.6, height=1.1 + 0.28 * len(drawn))
    axis.axvline(0, color="0.3", lw=0.8)
    for y, (_, row) in enumerate(drawn):
        colour, mark = LOOKS.get(row["kind"], OTHER)
        low, mean, high = (scale.number(row["gain"][end]) for end in ("low", "mean", "high"))
        axis.hlines(y, low, high, color=colour, lw=1.6)
        axis.plot([low, high], [y, y], "|", color=colour, ms=9)
        axis.plot(mean, y, mark, color=colour, ms=5)
    axis.set_yticks(range(len(drawn)), [short_label(name) for name, _ in drawn], fontsize=9)
    axis.set_ylim(len(drawn) - 0.4, -0.6)
    axis.set(xlabel=f"{scale.title}: difference from cross-entropy{scale.unit_label}")
    axis.grid(axis="x", color="0.9", lw=0.6)
    axis.set_axisbelow(True)
    known = verdict["loss"] if verdict and verdict["expected"] else ""
    caption = _caption(scale, certainty, len(drawn) > 1, known)
    return [Picture("gains", caption, *render(figure))]


def _caption(scale: MetricScale, certainty: float, several: bool, known: str) -> str:
    """What the picture shows.

    Args:
        scale: how differences are shown.
        certainty: of the intervals.
        several: whether more than the choice is drawn.
        known: the loss that is recommended because it was known to help; "": none is.
    """
    others = (
        "; single losses (blue circles) and what is no loss (orange squares) are not corrected for "
        "their number"
        if several
        else ""
    )
    beside = f" beside {known}, which was named before these images were looked at" if known else ""
    less = "" if scale.maximise else " Less is better: what helps lies left of 0."
    return (
        f"Difference from cross-entropy on held-out images, with {100 * certainty:g} % interval. "
        f"The choice (grey diamond), made anew without each fold's images, decides{beside}"
        f"{others}.{less}"
    )


def matrices(records: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Picture]:
    """A confusion matrix for each record of answers; nothing where classes are too many.

    Args:
        records: of `held_out_answers.answer_record`.
        classes: their names.
    """
    rows = [
        # An image is no finer than a tenth in a picture.
        {"loss": x["loss"], "confusion": [[round(n, 1) for n in line] for line in x["confusion"]]}
        for x in records
        if "confusion" in x
    ]
    more = "" if len(classes) <= NUMBERED else " The numbers are in summary.json."
    return confusions(rows, classes, MATRICES + more)
