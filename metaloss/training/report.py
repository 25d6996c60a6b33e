"""The report of a finished training: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from metaloss import storage
from metaloss.core import webpage
from metaloss.core.plot_style import Picture, drawing_style, panels, render, short_label
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import DEFAULT_SIZE, Files
from metaloss.training import text
from metaloss.training.corrections import is_corrected, row_name
from metaloss.training.images import TrainingImages
from metaloss.training.results import Fits

FILE = "report.html"
COLUMNS = 6  # of the most wrong images
MOST = 12  # of them for every loss
RECALL = (
    "The share of a class's test images that is found, as a mean over the seeds. In brackets "
    "the 95 % interval (Wilson's) over the class's test images, which all seeds share."
)
GROUPS = (
    "It counts groups: images of one group count the less the more alike the answers to them are, "
    "between one image for each group and one for each image, as far as the test images show it."
)
CAPTIONS = {
    "confusion": "Test images of every class (row) by their answer (column), means over the seeds.",
    "loss": "Loss over the steps; dashed: in training, with augmentations.",
}


def write(fits: Fits, images: TrainingImages) -> None:
    """Write the report into the training's folder."""
    storage.write(fits.folder / FILE, page(fits, images).encode())


def page(fits: Fits, images: TrainingImages) -> str:
    """The report."""
    summary = fits.summary
    counts = summary["images"]
    intro = (
        f"{summary['model']} on {summary['data']}: {counts['train']} images to train on, "
        f"{counts['validation'] or 'none'} to validate, {counts['test']} to test; "
        f"seeds {', '.join(map(str, summary['seeds']))}"
    )
    if groups := summary.get("groups"):
        numbers = " + ".join(str(n) for n in groups.values() if n)
        intro += f"; images of {numbers} groups, each whole in one share"
    heading, cells = text.results_table(fits)
    warned = summary.get("cautions", [])
    config = f"metaloss train --config {fits.folder / 'config.toml'}"
    parts = [
        webpage.paragraph(intro),
        *([webpage.section("What to look at first", webpage.bullets(warned))] if warned else []),
        webpage.section("Results", webpage.paragraph(heading), webpage.table(cells[0], cells[1:])),
        *_recalls(fits.table),
        webpage.section("Figures", *map(webpage.figure, _pictures(fits.folder))),
        *_most_wrong(summary, images),
        webpage.section("How to repeat", webpage.preformatted(config)),
    ]
    return webpage.page(f"metaloss train: {summary['data']}", parts)


def _recalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of every class's recall; nothing where pixels have classes."""
    with_recall = [row for row in rows if "recall" in row]
    if not with_recall:
        return []
    columns = ["class", *map(row_name, with_recall)]
    cells = [
        [name, *(text.recall_cell(row, name) for row in with_recall)]
        for name in with_recall[0]["recall"]
    ]
    grouped = any("independent_images" in row for row in with_recall)
    note = f"{RECALL} {GROUPS}" if grouped else RECALL
    return [
        webpage.section("Recall of every class", webpage.table(columns, cells), webpage.note(note))
    ]


def _pictures(folder: Path) -> list[Picture]:
    """The figures that the folder has."""
    return [
        Picture(path.stem, CAPTIONS.get(path.stem, f"{path.stem} over the steps"), data, b"")
        for path in sorted((folder / "plots").glob("*.png"))
        for data in [path.read_bytes()]
    ]


def _most_wrong(summary: Mapping[str, Any], images: TrainingImages) -> list[str]:
    """The test images with the most wrong answers, of the first seed of every loss."""
    pictures = []
    for row in summary["table"]:
        runs = [x for x in summary["trainings"] if x["loss"] == row["loss"]]
        wrong: list[dict[str, Any]] = next((x["wrong"] for x in runs if x.get("wrong")), [])
        if wrong and not is_corrected(row) and _shows(images):
            pictures.append(wrong_answers(row["loss"], wrong, images))
    figures = map(webpage.figure, pictures)
    return [webpage.section("The most wrong answers", *figures)] if pictures else []


def _shows(images: TrainingImages) -> bool:
    """Whether there are pixels to show."""
    dataset = images.dataset
    return isinstance(dataset, Files) or (
        isinstance(dataset, Dataset) and bool(dataset.pixels.numel())
    )


@drawing_style()
def wrong_answers(loss: str, wrong: Sequence[dict[str, Any]], images: TrainingImages) -> Picture:
    """Images with their class, the answer and its probability.

    Args:
        loss: that the network was trained with.
        wrong: the answers, the worst first.
        images: of the training.
    """
    shown = wrong[:MOST]
    rows = -(-len(shown) // COLUMNS)
    figure, axes = panels(COLUMNS, rows, width=1.5, height=2.0 * rows)
    for axis in axes:
        axis.set_axis_off()
    for axis, answer in zip(axes, shown, strict=False):
        pixels = _pixels(images.dataset, answer["row"])
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        words = f"{answer['class']} taken for\n{answer['answer']}, p = {answer['probability']:.2f}"
        name = _file(images.dataset, answer["row"])
        label = "\n".join(short_label(line) for line in (*words.split("\n"), name) if line)
        axis.set_title(label, fontsize=6)
    caption = f"{loss}, first seed: the test images whose class the network finds least probable."
    return Picture("wrong", caption, *render(figure))


def _pixels(dataset: Any, row: int) -> UInt8[np.ndarray, "..."]:
    """An image as it is drawn."""
    pixels = (
        dataset.pixels[row] if isinstance(dataset, Dataset) else dataset.read(row, DEFAULT_SIZE)
    )
    array: np.ndarray = pixels.numpy()
    return array.transpose(1, 2, 0) if len(array) == 3 else array[0]


def _file(dataset: Any, row: int) -> str:
    """The name of an image's file; empty where it has none."""
    names = dataset.files if isinstance(dataset, Dataset) else dataset.file_names
    return str(names[row]) if names else ""
