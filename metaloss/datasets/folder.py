"""A folder of images, one sub-folder per class: `folder:PATH`."""

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from metaloss.datasets import Dataset
from metaloss.datasets._digests import of_image
from metaloss.datasets._splits import Split, join
from metaloss.errors import DataError

LONGEST = 64  # pixels: a common size never exceeds this on its longer side
_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are exchanged
_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_BY_THE_SYSTEM = {"Thumbs.db", "desktop.ini"}  # Windows writes these beside images


def load(path: str | Path) -> Dataset:
    """The images of a folder, all brought to one size; there is no official test split.

    The size is the median of widths and heights, shrunk to 64 pixels on the longer side. The images are gray if all
    files are, else RGB. 16-bit images keep their upper eight bits. Classes are sorted by name, images by file name;
    hidden files, and files beside the class folders, are ignored.

    Raises:
        DataError: No such folder, too few classes, an empty class, or a file that is no readable image.
    """
    root = Path(path).expanduser()
    classes = class_names(root)
    files = [(file, label) for label, name in enumerate(classes) for file in image_files(root / name)]
    headers = [_header(file) for file, _ in files]
    size = _common([size for size, _ in headers])
    gray = all(mode in _GRAY for _, mode in headers)
    arrays, decoded = zip(*(_pixels(file, size, gray) for file, _ in files), strict=True)
    labels = torch.tensor([label for _, label in files])
    origin = f"{len(files)} images of {root}, as {'gray' if gray else 'RGB'} of {size[0]}x{size[1]} pixels"
    images = Split(str(root), torch.from_numpy(np.stack(arrays)), labels, decoded=torch.tensor(decoded))
    return join(f"folder:{root.resolve().name}", images, None, classes, origin)


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted."""
    if not root.is_dir():
        raise DataError(f"{root}: folder: found {'a file' if root.exists() else 'none'}, expected a folder of images")
    found = tuple(sorted(each.name for each in _visible(root) if each.is_dir()))
    if len(found) < 2:
        which = f" ({found[0]})" if found else ""
        raise DataError(f"{root}: classes: found {len(found)}{which}, expected at least 2 sub-folders, one per class")
    return found


def image_files(folder: Path) -> list[Path]:
    """The image files of a class, sorted by name."""
    files = sorted(_visible(folder))
    if not files:
        raise DataError(f"{folder}: images: found none, expected at least 1")
    return files


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files."""
    return [each for each in folder.iterdir() if not each.name.startswith(".") and each.name not in _BY_THE_SYSTEM]


def _header(file: Path) -> tuple[tuple[int, int], str]:
    """Width and height as displayed, and Pillow's name of the pixel format; the pixels are not read."""
    with opened(file) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return ((height, width) if turned else (width, height)), image.mode


def _common(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Width and height for all: the medians, shrunk in proportion to LONGEST."""
    width, height = (statistics.median_low(side) for side in zip(*sizes, strict=True))
    shrink = min(1.0, LONGEST / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _pixels(file: Path, size: tuple[int, int], gray: bool) -> tuple[UInt8[np.ndarray, "K H W"], int]:
    """One image, upright, at the common size: uint8 `[K H W]`; and the digest of what its file holds."""
    from PIL import Image, ImageOps

    with opened(file) as found:
        upright = ImageOps.exif_transpose(found)
        digest = of_image(upright)
        image = _eight_bits(upright, file).convert("L" if gray else "RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        array = np.asarray(image)
    return array[None] if gray else array.transpose(2, 0, 1), digest


def _eight_bits(image: Any, file: Path) -> Any:
    """The Pillow image with eight bits a channel; Pillow itself would clip 16 bits at 255 instead of scaling."""
    from PIL import Image

    if image.mode == "F":
        raise DataError(f"{file}: pixels: found 32-bit floats, expected 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image)
    if wide.min() < 0 or wide.max() > 0xFFFF:
        raise DataError(f"{file}: pixels: found {wide.min()} to {wide.max()}, expected 8 or 16 bits")
    return Image.fromarray((wide >> 8).astype(np.uint8))


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A Pillow image for a `with` block; whatever goes wrong with it becomes a DataError that names the file."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        found = "a folder" if file.is_dir() else f"none that can be read ({' '.join(str(error).split())})"
        raise DataError(f"{file}: image: found {found}, expected an image file") from error
