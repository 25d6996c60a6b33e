"""How every figure looks, and how it becomes PNG and PDF.

Figures are drawn without a display and can be read without colour.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREY = "#777777"
# Font type 42 keeps text as text in a PDF.
STYLE: Any = {"font.size": 10, "axes.titlesize": 10, "pdf.fonttype": 42}


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """Set the style of figures, and hide numpy's warnings of overflow, while a block draws."""
    import matplotlib

    # A BLAS may leave the processor's overflow flag behind from lanes that it does not use. numpy
    # reads it after the small products of matplotlib's transforms, and warns of an overflow that
    # never was.
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with quiet, matplotlib.rc_context(STYLE):
        yield


def panels(
    columns: int,
    rows: int = 1,
    *,
    width: float = 4.8,
    height: float = 3.4,
    projection: str | None = None,
) -> tuple[Any, list[Any]]:
    """An empty figure and its axes, row by row.

    Args:
        columns: of axes.
        rows: of axes.
        width: of one column, in inches.
        height: of all rows together, in inches.
        projection: as matplotlib takes it, e.g. "3d".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps figures and a window system in global state.
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [
        figure.add_subplot(rows, columns, i + 1, projection=projection)
        for i in range(rows * columns)
    ]
    for axis in axes if projection is None else ():
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def render(figure: Any) -> tuple[bytes, bytes]:
    """A figure as PNG and as PDF; the same figure gives the same bytes."""
    png = io.BytesIO()
    pdf = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    # Otherwise a PDF holds the time at which it was drawn.
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


# Colours of Okabe and Ito without yellow. Each goes with a mark, so that series differ in a grey
# print, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
MARKS = "osD^vP"
LABEL_LENGTH = 34  # characters


@dataclass(frozen=True)
class Picture:
    """One figure as PNG and as PDF, and what it shows."""

    name: str
    caption: str
    png: bytes
    pdf: bytes


def series_look(i: int) -> dict[str, Any]:
    """Colour and mark of the i-th series of a figure."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKS[i % len(MARKS)]}


def short_label(name: str) -> str:
    """A name as a label: cut to a length, and shown as it is.

    matplotlib would hide a label that begins with an underscore, and typeset one with dollars.
    """
    return (
        (name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…")
        .lstrip("_")
        .replace("$", r"\$")
    )
