"""A training's figures, and sheets of augmented images.

Loss, accuracy and F1 are drawn over the epochs, with a band over the seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloss.core.plot_style import (
    COLOURS,
    STYLES,
    Picture,
    drawing_style,
    panels,
    render,
    short_label,
)
from metaloss.core.streams import Stream
from metaloss.data.augmentations import mixed, raw
from metaloss.data.datasets.voc import IGNORE
from metaloss.training.corrections import row_name
from metaloss.training.folders import TrainingRecord
from metaloss.training.images import TrainingImages
from metaloss.training.segmentation import varied
from metaloss.training.settings import AUGMENTATIONS, Augment
from metaloss.training.targets import (
    ACCURACY,
    CLASSIFICATION,
    F1,
    SEGMENTATION,
    Target,
    TargetMetric,
)

LOSSES = (("train_loss", "--"), ("val_loss", "-"))
MATRICES = 6  # that are drawn side by side
CONFUSION = (
    "Test images of every class (row) by their answer (column), means over the seeds; the colour "
    "is the share of the class."
)
NUMBERED = 24  # classes of a matrix whose numbers are written
COLUMNS = 8  # images in a row of a contact sheet
COPIES = 5  # augmented, of every image with a mask
TRAINING = ", training"
WIDE = 26  # characters, of which two stand side by side in a legend


@drawing_style()
def curves(trainings: Sequence[TrainingRecord], target: Target = CLASSIFICATION) -> list[Picture]:
    """Loss, accuracy and F1 of finished trainings, and the metric that they are judged by.

    Args:
        trainings: the records.
        target: what the networks learned to tell.
    """
    known = {key for x in trainings for record in x.epochs for key in record}
    metrics = {metric.key: metric for metric in (ACCURACY, F1, target.metric)}
    lines = {"loss": LOSSES, **{key: ((f"val_{key}", "-"),) for key in metrics}}
    drawn = {
        name: [line for line in of_name if line[0] in known] for name, of_name in lines.items()
    }
    return [
        _curve(name, of_name, metrics.get(name), trainings)
        for name, of_name in drawn.items()
        if of_name
    ]


@drawing_style()
def confusions(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str], caption: str = CONFUSION
) -> list[Picture]:
    """The confusion matrix of every row of the table; nothing where there is none.

    Args:
        rows: of the table.
        classes: their names.
        caption: what the matrices show.
    """
    drawn = [row for row in rows if row.get("confusion")][:MATRICES]
    if not drawn:
        return []
    side = max(2.6, 0.5 * min(len(classes), NUMBERED) + 1.4)
    figure, axes = panels(len(drawn), width=side, height=side + 0.3)
    names = [short_label(name)[:14] for name in classes]
    for axis, row in zip(axes, drawn, strict=True):
        counts = np.array(row["confusion"], dtype=float)
        shares = counts / counts.sum(1, keepdims=True).clip(min=1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if len(classes) <= NUMBERED:
            for (i, j), count in np.ndenumerate(counts):
                dark = "white" if shares[i, j] > 0.6 else "black"
                axis.annotate(
                    f"{count:.4g}", (j, i), ha="center", va="center", color=dark, fontsize=8
                )
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
            axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set(xlabel="answer", ylabel="class")
        axis.set_title(short_label(row_name(row)), fontsize=9)
    return [Picture("confusion", caption, *render(figure))]


def _curve(
    name: str,
    of_name: Sequence[tuple[str, str]],
    metric: TargetMetric | None,
    trainings: Sequence[TrainingRecord],
) -> Picture:
    labels = list(dict.fromkeys(x.loss for x in trainings))
    words = [f"{short_label(x)}{end}" for x in labels for end in ("", TRAINING)[: len(of_name)]]
    # A legend wider than the figure would be cut off.
    ncols = 2 if max(map(len, words)) <= WIDE else 1
    figure, (axis,) = panels(1, width=5.2, height=3.4 + 0.22 * -(-len(words) // ncols))
    factor = 100.0 if metric is not None and metric.percent else 1.0
    for i, label in enumerate(labels):
        runs = [x for x in trainings if x.loss == label]
        for key, style in of_name:
            steps, middle, spread = _over_seeds(runs, key, factor)
            colour = COLOURS[i % len(COLOURS)]
            axis.fill_between(
                steps, middle - spread, middle + spread, color=colour, alpha=0.15, lw=0
            )
            line = f"{short_label(label)}{TRAINING if key == 'train_loss' else ''}"
            line_style = style if name == "loss" else STYLES[i % len(STYLES)]
            mark = ("o" if key != "train_loss" else "x") if len(steps) == 1 else ""
            axis.plot(steps, middle, line_style, color=colour, lw=1.6, marker=mark, label=line)
    axis.set(xlabel="step", ylabel=name if metric is None else metric.axis)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(at := {record["step"] for x in trainings for record in x.epochs}) == 1:
        axis.set_xticks(list(at))
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside lower center", ncols=ncols, frameon=False
    )
    return Picture(name, "Mean over seeds; band: one standard deviation.", *render(figure))


def _over_seeds(runs: Sequence[TrainingRecord], key: str, factor: float) -> tuple[Any, Any, Any]:
    """Steps, mean and standard deviation over the seeds that got so far."""
    steps = sorted({record["step"] for x in runs for record in x.epochs})
    at = [
        [r[key] for x in runs for r in x.epochs if r["step"] == step and r[key] is not None]
        for step in steps
    ]
    kept = [(step, values) for step, values in zip(steps, at, strict=True) if values]
    middle = np.array([factor * np.mean(values) for _, values in kept])
    # As in the table of the test: the sample's standard deviation; one seed has none.
    spread = [factor * np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in kept]
    return np.array([step for step, _ in kept]), middle, np.array(spread)


@drawing_style()
def contact_sheet(
    data: TrainingImages, augment: Augment, key: Stream, images: int = COLUMNS
) -> bytes:
    """A PNG: images as they are in the first row, and under each of the augmentations in one row
    after the other.

    Where pixels have classes, a row for every image: as it is, then augmented, its mask laid over
    in colour.
    """
    rows = data.shares.train
    picked = rows[key.at("chosen").permutation(len(rows))[:images]]
    pixels, labels = next(data.source.batches(picked, images))
    if data.target is SEGMENTATION:
        return _masked_sheet(
            pixels, labels, data.dataset.classes, replace(augment, kind="base"), key
        )
    figure, axes = panels(images, len(AUGMENTATIONS), width=1.1, height=1.15 * len(AUGMENTATIONS))
    for i, kind in enumerate(AUGMENTATIONS):
        one_kind = replace(augment, kind=kind)
        shown = _augmented(pixels, labels, data, one_kind, key.at(kind))
        for j, image in enumerate(shown):
            axis = axes[i * len(pixels) + j]
            axis.imshow(
                image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
            )
            _bare(axis)
        axes[i * len(pixels)].set_ylabel(kind)
    return render(figure)[0]


def _bare(axis: Any) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _augmented(
    pixels: Tensor, labels: Tensor, data: TrainingImages, augment: Augment, key: Stream
) -> Tensor:
    """Images under an augmentation, their colours from 0 to 1."""
    mean, std = (torch.tensor(x).reshape(-1, 1, 1).to(pixels.device) for x in (data.mean, data.std))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key.generator().initial_seed())
        ready = (raw(pixels, augment) / 255 - mean) / std
        # A batch is mixed by one share; in pairs, several of them can be seen.
        pairs = [
            mixed(x, y, data.classes, augment)[0]
            for x, y in zip(ready.split(2), labels.split(2), strict=True)
        ]
    return (torch.cat(pairs) * std + mean).clamp(0, 1).cpu()


def _masked_sheet(
    pixels: Tensor, masks: Tensor, names: Sequence[str], augment: Augment, key: Stream
) -> bytes:
    """A PNG of images with masks, a row each.

    The first column shows them as they are, each further one another augmentation.
    """
    columns = [
        (pixels, masks),
        *(_moved(pixels, masks, augment, key.at("copy", i)) for i in range(COPIES)),
    ]
    seen = torch.cat([labels.unique() for _, labels in columns]).unique().tolist()
    height = 1.35 * len(pixels) + 0.25 * (1 + len(seen) // COLUMNS)
    figure, axes = panels(len(columns), len(pixels), width=1.35, height=height)
    for j, (images, labels) in enumerate(columns):
        for i, (image, mask) in enumerate(zip(images, labels, strict=True)):
            axis = axes[i * len(columns) + j]
            axis.imshow(_overlaid(image, mask).permute(1, 2, 0).numpy(), interpolation="nearest")
            _bare(axis)
        axes[j].set_title("as it is" if j == 0 else f"base, {j}", fontsize=8)
    marks = [_mark(number) for number in seen]
    words = ["no class" if number == IGNORE else short_label(names[number]) for number in seen]
    figure.legend(
        marks,
        words,
        loc="outside lower center",
        ncols=min(COLUMNS, len(seen)),
        frameon=False,
        fontsize=7,
    )
    return render(figure)[0]


def _moved(pixels: Tensor, masks: Tensor, augment: Augment, key: Stream) -> tuple[Tensor, Tensor]:
    """Images and masks, augmented by the draws of a stream."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key.generator().initial_seed())
        return varied(pixels, masks, augment)


def _overlaid(image: Tensor, mask: Tensor) -> Tensor:
    """An image [3 H W] half covered by its classes' colours, from 0 to 1."""
    colours = torch.tensor([colour(number) for number in range(256)])[mask.long().cpu()]
    mixed_up: Tensor = (image.cpu() + colours.movedim(-1, 0)) / 510
    return mixed_up


def _mark(number: int) -> Any:
    from matplotlib.patches import Patch

    red, green, blue = (x / 255 for x in colour(number))
    return Patch(color=(red, green, blue))


def colour(number: int) -> tuple[int, int, int]:
    """A class's colour, as VOC's own masks have it: bits 0, 3, 6 of the number are the highest of
    red, and so on.

    >>> colour(1), colour(15), colour(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    red, green, blue = (sum((number >> 3 * i + k & 1) << 7 - i for i in range(3)) for k in range(3))
    return red, green, blue
