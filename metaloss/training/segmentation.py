"""Pixels with classes: losses that ignore some, augmentation with masks, mean IoU."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from metaloss.criterion.base import Criterion
from metaloss.data.datasets._remarks import warn_of
from metaloss.data.datasets.voc import COLOUR, IGNORE, ONE_CLASS, Scenes
from metaloss.errors import DataError
from metaloss.training.measurement import Measurement, confusion, mean_of_occurring
from metaloss.training.models import ImageClassifier, outputs
from metaloss.training.settings import Augment


class Counted(nn.Module):
    """Any loss of logits [M, C] and classes [M], on the pixels that count; 0 where none does.

    Args:
        loss: cannot be told which class to ignore.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Float[Tensor, "N C H W"], target: Int64[Tensor, "N H W"]) -> Tensor:
        """The loss's value."""
        counts = target != IGNORE
        if not bool(counts.any()):
            return _nothing(logits)
        value: Tensor = self.loss(logits.movedim(1, -1)[counts], target[counts])
        return value


class Guarded(nn.Module):
    """Any loss that leaves pixels out by itself: 0 where it would leave out all of them, and not
    0/0.

    Args:
        loss: of logits [N C H W] and classes [N H W].
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Float[Tensor, "N C H W"], target: Int64[Tensor, "N H W"]) -> Tensor:
        """The loss's value."""
        value: Tensor = (
            self.loss(logits, target) if bool((target != IGNORE).any()) else _nothing(logits)
        )
        return value


def _nothing(logits: Tensor) -> Tensor:
    """The sum of no logits: 0, whose gradient is 0 even where logits are not finite."""
    return logits.flatten()[:0].sum()


def ignoring(loss: nn.Module) -> nn.Module:
    """The same loss for pixels, those marked 255 left out."""
    if isinstance(loss, Criterion):
        return loss.with_options(ignore_index=IGNORE)
    if hasattr(loss, "ignore_index"):
        ignoring_loss: Any = copy.deepcopy(loss)
        ignoring_loss.ignore_index = IGNORE
        return Guarded(ignoring_loss)
    return Counted(loss)


def check_masks(scenes: Scenes) -> None:
    """Look at the masks to train on before any training.

    Raises:
        DataError: fewer than two classes have a pixel in them, or a file is damaged.

    Warns:
        DataWarning: a class has no pixel, or an image has none that counts.
    """
    rows = (~scenes.test).nonzero()[:, 0].tolist()
    counts = torch.stack([scenes.counts(row) for row in rows])
    void = [
        scenes.masks[row].name
        for row, in_mask in zip(rows, counts, strict=True)
        if not in_mask[:IGNORE].any()
    ]
    if void:
        warn_of(
            f"{scenes.name}: {len(void)} of {len(rows)} images to train on teach nothing, all "
            "pixels of their masks are "
            f"{IGNORE}: {_some(void)}"
        )
    pixels = counts.sum(0)
    absent = [f"'{name}'" for name, n in zip(scenes.classes, pixels, strict=False) if not n]
    if not absent:
        return
    missing = f"{scenes.name}: no mask to train on has a pixel of {_some(absent)}"
    if len(scenes.classes) - len(absent) < 2:
        numbers = " and ".join(map(str, pixels.nonzero()[:, 0].tolist()))
        raise DataError(f"{missing}: {ONE_CLASS.format(numbers=numbers)}")
    warn_of(missing)


def _some(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def varied(
    images: UInt8[Tensor, "N K H W"], masks: UInt8[Tensor, "N H W"], augment: Augment
) -> tuple[Tensor, Tensor]:
    """Images and their masks, each pair made smaller or larger, cropped and flipped alike; what
    comes in is 255.

    Every draw comes from torch's own generator.
    """
    if not augment.has("base"):
        return images, masks
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    size = tuple(images.shape[-2:])
    change = v2.Compose(
        [
            v2.ScaleJitter(size, augment.scale),
            v2.RandomCrop(
                size, pad_if_needed=True, fill={tv_tensors.Image: COLOUR, tv_tensors.Mask: IGNORE}
            ),
            v2.RandomHorizontalFlip(0.5 if augment.flip else 0.0),
        ]
    )
    pairs = [
        change(tv_tensors.Image(x), tv_tensors.Mask(y)) for x, y in zip(images, masks, strict=True)
    ]
    return tuple(
        torch.stack([x.as_subclass(Tensor) for x in part]) for part in zip(*pairs, strict=True)
    )  # type: ignore[return-value]


@torch.no_grad()
def measure(
    classifier: ImageClassifier, loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> Measurement:
    """Look at all batches, without augmentation and in full precision; the classifier is left as it
    was.

    Its loss is the mean over the pixels that count; of a loss that reads a whole batch, as Dice
    does, the mean over batches so weighed.
    """
    training = classifier.training
    classes = classifier.shape.classes
    classifier.eval()
    total = torch.zeros((), dtype=torch.float64)
    pixels = 0
    sound = True
    table = torch.zeros(classes, classes, dtype=torch.int64)
    for images, masks in batches:
        target = masks.long()
        counts = target != IGNORE
        if not (n := int(counts.sum())):
            continue
        logits, _ = outputs(classifier(images))
        total += loss(logits, target).double().cpu() * n
        pixels += n
        sound = sound and bool(logits.isfinite().all())
        table += confusion(logits.argmax(1)[counts], target[counts], classes).cpu()
    classifier.train(training)
    value = float(total) / max(pixels, 1)
    if not sound or not pixels:
        return Measurement(value, math.nan, math.nan, math.nan, (math.nan,) * classes)
    ious, f1 = overlaps(table)
    right = float(table.diagonal().sum()) / pixels
    answered = tuple(table.sum(0).tolist())
    f1_mean = mean_of_occurring(f1)
    iou_mean = mean_of_occurring(ious)
    return Measurement(value, right, f1_mean, iou_mean, tuple(ious.tolist()), answered=answered)


def overlaps(table: Int64[Tensor, "C C"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Intersection over union, and F1, of every class.

    NaN for a class that is neither a label nor an answer.
    """
    hits = table.diagonal().double()
    sizes = (table.sum(0) + table.sum(1)).double()
    return hits / (sizes - hits), 2 * hits / sizes
