"""Images that a caller hands over instead of a name, as a data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloss.datasets import Dataset
from metaloss.datasets._splits import Split, join
from metaloss.errors import DataError


def taken(given: Any) -> Dataset:
    """The data set that a caller hands over: one of ours; images and labels; a set of pairs as torchvision's; two sets.

    Raises:
        DataError: it is none of these, or images and labels do not fit.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        if all(isinstance(x, Tensor | np.ndarray) for x in given):
            return _joined([_arrays(*given)], None)
        if all(hasattr(x, "__getitem__") and hasattr(x, "__len__") for x in given):
            return _joined([_pairs(x) for x in given], getattr(given[0], "classes", None))
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return _joined([_pairs(given)], getattr(given, "classes", None))
    raise DataError(
        f"data: found {type(given).__name__}, expected a name, (images, labels), a data set of pairs, or (train, test)"
    )


def _joined(splits: Sequence[Split], names: Sequence[str] | None) -> Dataset:
    count = 1 + max(int(split.labels.max()) for split in splits)
    classes = tuple(map(str, names)) if names is not None and len(names) >= count else tuple(map(str, range(count)))
    return join("given", splits[0], splits[1] if len(splits) > 1 else None, classes, "given by the caller")


def _arrays(images: Any, labels: Any) -> Split:
    """Images [N H W] or [N K H W], bytes or numbers from 0 to 1, and their labels."""
    pixels, label = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels).detach().cpu()
    if pixels.is_floating_point():
        if not 0 <= float(pixels.min()) <= float(pixels.max()) <= 1:
            raise DataError(f"data: images: found {pixels.min():g} to {pixels.max():g}, expected 0 to 1, or bytes")
        pixels = (255 * pixels).round().to(torch.uint8)
    return Split("data", pixels[:, None] if pixels.ndim == 3 else pixels, label.long())


def _pairs(found: Any) -> Split:
    """A set of (image, label) pairs, the images Pillow's or tensors."""
    images, labels = zip(*(found[i] for i in range(len(found))), strict=True)
    try:
        stacked = torch.stack([_image(x) for x in images])
    except RuntimeError:
        sizes = sorted({tuple(_image(x).shape) for x in images})[:3]
        raise DataError(
            f"data: images: found several sizes ({sizes}), expected one: resize them, or use folder:PATH"
        ) from None
    return _arrays(stacked, torch.tensor([int(y) for y in labels]))


def _image(x: Any) -> Tensor:
    """An image as a tensor [K H W]."""
    if isinstance(x, Tensor):
        return x if x.ndim == 3 else x[None]
    array = torch.from_numpy(np.array(x))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)
