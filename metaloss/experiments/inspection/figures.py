"""A data set in pictures: a bar for every class, and a sheet of its images."""

import numpy as np

from metaloss.core.plot_style import (
    BLUE,
    ORANGE,
    Picture,
    drawing_style,
    panels,
    render,
    short_label,
)
from metaloss.core.streams import Stream
from metaloss.data.datasets import Table
from metaloss.data.inspection import Inspection
from metaloss.data.thumbnails import thumbnail

BARS = 40  # classes of the bar chart
SHEET = 16  # classes of the contact sheet
COLUMNS = 10  # images of each
SIDE = 96  # pixels
GAP = 4  # between images


@drawing_style()
def draw(found: Inspection) -> list[Picture]:
    """The bar chart, and the contact sheet where there are images."""
    pictures = [_bars(found)]
    if not isinstance(found.dataset, Table):
        pictures.append(_sheet(found))
    return pictures


def _bars(found: Inspection) -> Picture:
    classes = found.dataset.classes
    order = sorted(range(len(classes)), key=lambda i: -found.counts[i][0])
    # The largest and the smallest, which are what matters.
    shown = order if len(order) <= BARS else [*order[: BARS // 2], *order[-BARS // 2 :]]
    test = np.array([found.counts[i][1] for i in shown])
    train = np.array([found.counts[i][0] for i in shown]) - test
    figure, (axis,) = panels(1, width=6.4, height=1.2 + 0.26 * len(shown))
    places = np.arange(len(shown))
    axis.barh(places, train, color=BLUE, label="to train with")
    axis.barh(places, test, left=train, color=ORANGE, label="to test on")
    for place, (a, b) in enumerate(zip(train.tolist(), test.tolist(), strict=True)):
        axis.annotate(f" {a} + {b}", (a + b, place), va="center", fontsize=8)
    axis.set_yticks(places, [short_label(classes[i]) for i in shown])
    axis.set(xlabel="images")
    axis.margins(x=0.15)
    axis.invert_yaxis()
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    split = "official test split" if found.official else "test pool, a fifth of each class"
    left_out = f" {len(order) - BARS} classes between are left out." if len(order) > BARS else ""
    return Picture(
        "classes", f"Images of every class; to test on: the {split}.{left_out}", *render(figure)
    )


def _sheet(found: Inspection) -> Picture:
    """A row of images for every class, drawn as one picture."""
    classes = found.dataset.classes
    order = sorted(range(len(classes)), key=lambda i: -found.counts[i][0])[:SHEET]
    labels = found.dataset.labels[found.facts.rows]
    step = SIDE + GAP
    sheet = np.full((step * len(order), step * COLUMNS, 3), 255, dtype=np.uint8)
    for line, label in enumerate(order):
        rows = found.facts.rows[labels == label]
        drawn = rows[Stream(0).at("sheet", label).permutation(len(rows))[:COLUMNS]]
        for column, row in enumerate(drawn.tolist()):
            image = thumbnail(found.dataset, row, SIDE)
            height, width, _ = image.shape
            sheet[line * step :, column * step :][:height, :width] = image
    figure, (axis,) = panels(1, width=0.85 * COLUMNS, height=0.85 * len(order))
    axis.imshow(sheet, interpolation="nearest")
    places = [line * step + SIDE / 2 for line in range(len(order))]
    axis.set_yticks(places, [short_label(classes[label]) for label in order], fontsize=8)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    left_out = len(classes) - SHEET
    rest = f"; {left_out} smaller classes are left out" if left_out > 0 else ""
    caption = f"Images of every class, drawn at random, the largest class first{rest}."
    return Picture("contact_sheet", caption, *render(figure))
