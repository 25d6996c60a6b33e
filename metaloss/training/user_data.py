"""Images that a caller hands over instead of a name, as a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._images import DEFAULT_OPTIONS, GRAY, to_eight_bits
from metaloss.data.datasets._splits import Split, join_splits
from metaloss.errors import DataError

CHANNELS = (1, 3)  # of an image, gray or in colour


def as_dataset(data: Any) -> Dataset:
    """The data set that a caller hands over: one of ours; images and labels; a set of pairs as
    torchvision's; two sets.

    Images are [N H W], [N K H W], or [N H W K] with one or three channels. Labels are whole numbers
    from 0, or names.

    Raises:
        DataError: it is none of these, or images and labels do not fit.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        if isinstance(data[0], Tensor | np.ndarray):
            return _joined([(data[0], data[1])], None)
        if all(hasattr(x, "__getitem__") and hasattr(x, "__len__") for x in data):
            return _joined([_pairs(x) for x in data], getattr(data[0], "classes", None))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _joined([_pairs(data)], getattr(data, "classes", None))
    raise DataError(
        f"data: found {type(data).__name__}, expected a name, (images, labels), a data set of "
        "pairs, or (train, test)"
    )


def _joined(parts: Sequence[tuple[Any, Any]], names: Sequence[str] | None) -> Dataset:
    """A data set of images and labels, to train on and, where there are two parts, to test on."""
    labels, texts = _numbered([labels for _, labels in parts])
    splits = [
        Split("data", _bytes(images), column)
        for (images, _), column in zip(parts, labels, strict=True)
    ]
    count = 1 + max(int(column.max()) for column in labels)
    if texts is None:
        texts = (
            tuple(map(str, names))
            if names is not None and len(names) >= count
            else tuple(map(str, range(count)))
        )
    return join_splits(
        "given", splits[0], splits[1] if len(splits) > 1 else None, texts, "given by the caller"
    )


def _numbered(columns: Sequence[Any]) -> tuple[list[Tensor], tuple[str, ...] | None]:
    """Labels as positions of classes; and the names of these, where the labels are names.

    Raises:
        DataError: they are neither whole numbers nor names, or not one an image.
    """
    arrays = [x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in columns]
    for array in arrays:
        if array.ndim != 1:
            shape = "x".join(map(str, array.shape)) or "a single one"
            raise DataError(
                f"data: labels: found {shape}, expected one an image; of one-hot rows take "
                "argmax(1)"
            )
        if not len(array):
            raise DataError("data: labels: found none, expected at least 1")
    if all(isinstance(x, str) for array in arrays for x in array.tolist()):
        texts, positions = np.unique(np.concatenate(arrays).astype(str), return_inverse=True)
        sizes = np.cumsum([len(array) for array in arrays])[:-1]
        return [torch.from_numpy(x).long() for x in np.split(positions, sizes)], tuple(
            map(str, texts)
        )
    return [torch.from_numpy(_whole(array)) for array in arrays], None


def _whole(labels: np.ndarray) -> Int64[np.ndarray, " N"]:
    """Labels as whole numbers; floats are taken where they are whole."""
    try:
        numbers = labels.astype(np.float64)
        wrong = numbers[~(np.isfinite(numbers) & (numbers == np.round(numbers)))]
        wrong_label = f"{wrong[0]:g}" if len(wrong) else ""
    except (TypeError, ValueError):
        wrong_label = next(repr(x) for x in labels.tolist() if not isinstance(x, int | float))
    if wrong_label:
        raise DataError(
            f"data: labels: found {wrong_label}, expected whole numbers from 0, or names alone"
        )
    return numbers.astype(np.int64)


def _bytes(images: Any) -> Tensor:
    """Images as bytes [N K H W].

    Raises:
        DataError: the shape can be read in two ways or in none, or the numbers are neither bytes
            nor from 0 to 1.
    """
    pixels = torch.as_tensor(images).detach().cpu()
    if not pixels.numel():
        raise DataError(f"data: images: found none ({_shape(pixels)}), expected at least 1")
    pixels = _channels_first(pixels)
    low = float(pixels.min())
    high = float(pixels.max())
    if pixels.is_floating_point():
        if not 0 <= low <= high <= 1:
            raise DataError(f"data: images: found {low:g} to {high:g}, expected 0 to 1, or bytes")
        return (255 * pixels).round().to(torch.uint8)
    if not 0 <= low <= high <= 255:
        raise DataError(
            f"data: images: found {low:g} to {high:g}, expected bytes, 0 to 255, or numbers from "
            "0 to 1"
        )
    return pixels.to(torch.uint8)


def _channels_first(pixels: Tensor) -> Tensor:
    """Images as [N K H W]; the last axis counts as channels where it can and the second cannot."""
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim != 4:
        raise DataError(
            f"data: images: found {_shape(pixels)}, expected [N H W], [N K H W] or [N H W K]"
        )
    _, second, third, last = pixels.shape
    if second in CHANNELS and last in CHANNELS and second != third:
        raise DataError(
            f"data: images: found {_shape(pixels)}, which may be [N K H W] or [N H W K]: make "
            "their height and width "
            "larger than 3"
        )
    if second in CHANNELS or last not in (*CHANNELS, 2, 4):
        return pixels
    if last in CHANNELS:
        return pixels.permute(0, 3, 1, 2)
    raise DataError(
        f"data: images: found {_shape(pixels)}, which looks like [N H W K] with {last} channels: "
        "give one or three of "
        "them, or [N K H W]"
    )


def _shape(pixels: Tensor) -> str:
    return "x".join(map(str, pixels.shape))


def _pairs(dataset: Any) -> tuple[Tensor, list[Any]]:
    """Images and labels of (image, label) pairs; images are Pillow's, arrays or tensors."""
    if not len(dataset):
        raise DataError("data: images: found none, expected at least 1")
    try:
        images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    except (TypeError, ValueError):
        kind = type(dataset[0]).__name__
        raise DataError(
            f"data: found {kind} where a pair of an image and its label was expected; images and "
            "labels apart are "
            "given as arrays: (images, labels)"
        ) from None
    tensors = [_image(x) for x in images]
    sizes = sorted({tuple(x.shape) for x in tensors})
    if len(sizes) > 1:
        raise DataError(
            f"data: images: found several sizes ({sizes[:3]}), expected one: resize them, or use "
            "folder:PATH"
        )
    return torch.stack(tensors), [x.item() if isinstance(x, Tensor) else x for x in labels]


def _image(x: Any) -> Tensor:
    """An image as a tensor, of Pillow's on white and with its channels in front."""
    if isinstance(x, Tensor | np.ndarray):
        return torch.as_tensor(x)
    if getattr(x, "has_transparency_data", False) or getattr(x, "mode", "L") not in (
        "L",
        "RGB",
        "I;16",
        "I",
        "F",
    ):
        x = to_eight_bits(x, Path("data"), DEFAULT_OPTIONS, None, gray=x.mode in GRAY)
    array = torch.from_numpy(np.array(x))
    return array if array.ndim == 2 else array.permute(2, 0, 1)
