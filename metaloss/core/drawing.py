"""How every figure looks, and how it becomes PNG and PDF: drawn without a display, readable without colour."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Okabe and Ito's colours can be told apart by the colour-blind.
BLUE = "#0072B2"


ORANGE = "#D55E00"


GREY = "#777777"


STYLE: Any = {"font.size": 10, "axes.titlesize": 10, "pdf.fonttype": 42}  # 42: text that stays text


@contextlib.contextmanager
def drawing_style() -> Iterator[None]:
    """Around all drawing: the style of every figure, and quiet arithmetic."""
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
    """An empty figure and its axes, row by row; width (of a column) and height (of all rows) in inches."""
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
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


# Okabe and Ito's colours, the yellow one left out; styles and marks go with them, so that grey
# print will do.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


STYLES = ("-", "--", "-.", ":")


MARKS = "osD^vP"


LABEL_LENGTH = 34  # characters of a name


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
    """A name that fits, and that is no formula to typeset nor one for a legend to hide."""
    return (
        (name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…")
        .lstrip("_")
        .replace("$", r"\$")
    )
