"""Small pictures of a data set's images, for reports."""

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets._images import is_wide, to_eight_bits


def thumbnail(dataset: Dataset | Files, row: int, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image in colours.

    Args:
        dataset: has images, in memory or in files.
        row: of the image.
        side: what its longer side is brought to, in pixels.
    """
    from PIL import Image

    image = _image(dataset, row)
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR).convert("RGB"))


def png_thumbnail(dataset: Any, row: int, side: int) -> bytes | None:
    """The same as the bytes of a PNG file; None where the data set has no pixels.

    Args:
        dataset: images, or a table of numbers.
        row: of the image.
        side: as for `thumbnail`.
    """
    from PIL import Image

    has_pixels = isinstance(dataset, Files) or (
        isinstance(dataset, Dataset) and dataset.pixels.numel() > 0
    )
    if not has_pixels:
        return None
    file = io.BytesIO()
    Image.fromarray(thumbnail(dataset, row, side)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def image_name(dataset: Dataset | Files, row: int) -> str:
    """What names an image: its class's folder and its file, or its row where it is of no file."""
    names = dataset.files if isinstance(dataset, Dataset) else dataset.file_names
    return names[row] if names else f"row {row}"


def _image(dataset: Dataset | Files, row: int) -> Any:
    """The Pillow image, in eight bits a channel."""
    from PIL import Image

    if isinstance(dataset, Dataset):
        pixels = dataset.pixels[row].numpy()
        return Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    image = dataset.open_upright(row)
    if is_wide(image):
        values = np.asarray(image, dtype=np.float64)
        span = np.ptp(values) or 1.0
        image = Image.fromarray((255 * (values - values.min()) / span).astype(np.uint8))
    return to_eight_bits(image, dataset.paths[row], dataset.options, None, gray=False)
