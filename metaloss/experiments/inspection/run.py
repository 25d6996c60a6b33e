"""A look at a data set, with a folder for its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.core.plot_style import Picture
from metaloss.data.datasets._images import ImageOptions
from metaloss.data.inspection import Inspection
from metaloss.data.inspection import inspect as find
from metaloss.errors import DataError
from metaloss.experiments.inspection import figures, summary, webpage
from metaloss.experiments.inspection.meaning import metric_of
from metaloss.storage.folders import make_folder


@dataclass(frozen=True)
class DataReport:
    """What was found in a data set; `print` gives the lines of `metaloss data show`.

    Attributes:
        summary: all of it.
        text: the same as lines.
        folder: where the report lies.
        damage: which files cannot be read; empty where all can.
    """

    summary: dict[str, Any]
    text: list[str]
    folder: Path
    damage: str = ""

    def check(self) -> None:
        """Raise a DataError where files cannot be read: nothing trains on such data."""
        if self.damage:
            raise DataError(self.damage)

    def __str__(self) -> str:
        return "\n".join(self.text)


def inspect(
    data: str,
    *,
    metric: str | Mapping[str, Any] | None = None,
    out: str | Path = "inspections",
    command: Sequence[str] = (),
    **options: Any,
) -> DataReport:
    """Look at a data set before anything is trained, and write a report.

    Images per class, sizes, copies across classes and across training and test, damaged files, and
    what the classes' sizes mean for a metric.

    Args:
        data: folder:PATH, or a data source as `metaloss list data` names them.
        metric: its name, or a table with its kind and settings; accuracy by default.
        out: the folder that the report's folder is made in.
        command: that made it, to be told in the report.
        options: how image files are read: size, background and max_pixels, as of a task family.

    Raises:
        SettingsError: the data source or the metric is unknown, or the metric does not fit.
        DataError: there is no image, or too few classes.
    """
    found = find(data, registry.from_table(ImageOptions, options, "inspect"))
    table = {"kind": metric} if isinstance(metric, str) else metric
    measured, scale = metric_of(found, dict(table) if table else None)
    about = summary.summarise(found, measured, scale)
    text = summary.lines(found, about)
    folder = _written(found, about, scale, out, command)
    return DataReport(about, text, folder, summary.damage(found) if found.damaged else "")


def _written(
    found: Inspection,
    about: dict[str, Any],
    scale: MetricScale,
    out: str | Path,
    command: Sequence[str],
) -> Path:
    """The report's folder."""
    pictures: list[Picture] = figures.draw(found)
    files = {
        "summary.json": storage.json_bytes(about),
        "report.html": webpage.page(about, scale, pictures, command).encode(),
        **{f"{picture.name}.png": picture.png for picture in pictures},
    }
    return make_folder(Path(out), found.dataset.name, files, "data")
