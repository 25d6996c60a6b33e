"""A folder of images, one sub-folder per class: `folder:PATH`."""

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._digests import of_image
from metaloss.data.datasets._files import Files
from metaloss.data.datasets._files import files as file_list
from metaloss.data.datasets._images import (
    DEFAULT_OPTIONS,
    ImageOptions,
    check_memory,
    decode,
    header,
    levels,
    to_eight_bits,
)
from metaloss.data.datasets._splits import Split, join_splits
from metaloss.errors import DataError

LONGEST = 64  # pixels: a common size never exceeds this on its longer side
# What Windows, macOS' archives and a Synology put beside images.
_BY_THE_SYSTEM = {
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def load(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Dataset:
    """The images of a folder, all brought to one size; there is no official test split.

    The size is the median of widths and heights, shrunk to 64 pixels on the longer side. The images
    are gray if all files are, else RGB. Classes are sorted by name, images by file name; hidden
    files, and files beside the class folders, are ignored.

    Raises:
        DataError: No such folder, too few classes, an empty class, or a file that is no readable
            image.
    """
    found, sizes = _scanned(listed(Path(path).expanduser(), options))
    width, height = _common(sizes)
    check_memory(found.name, len(sizes), (found.channels, height, width))
    arrays, digests = zip(
        *(_known(found, row, (width, height)) for row in range(len(sizes))), strict=True
    )
    origin = f"{found.origin}, as {'gray' if found.gray else 'RGB'} of {width}x{height} pixels"
    images = Split(
        str(path), torch.from_numpy(np.stack(arrays)), found.labels, decoded=torch.tensor(digests)
    )
    return join_splits(found.name, images, None, found.classes, origin)


def files(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files | None:
    """The images that are not read yet, where a size is asked for; None where all come to a size of
    their own.

    Raises:
        DataError: As `load`, without the images.
    """
    return None if options.size is None else _scanned(listed(Path(path).expanduser(), options))[0]


def listed(root: Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files:
    """A folder's classes and files; no file is opened.

    Raises:
        DataError: No such folder, too few classes, or an empty class.
    """
    classes = class_names(root)
    _check_layout(root, classes)
    pairs = [
        (file, label) for label, name in enumerate(classes) for file in image_files(root / name)
    ]
    train = [file for file, _ in pairs], [label for _, label in pairs]
    origin = f"{len(pairs)} images of {root}"
    return file_list(f"folder:{root.resolve().name}", train, None, classes, origin, options)


def _scanned(found: Files) -> tuple[Files, list[tuple[int, int]]]:
    """Files with what their headers say of their channels and bits; and width and height of each as displayed."""
    headers = [header(file, found.options) for file in found.paths]
    wide = [file for file, x in zip(found.paths, headers, strict=True) if x.wide]
    gray = all(x.gray for x in headers)
    return replace(found, gray=gray, levels=levels(found.name, wide, found.options)), [
        x.size for x in headers
    ]


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted; those that programs and systems make are no classes.

    Raises:
        DataError: there is no such folder, it cannot be read, or it has fewer than two sub-folders.
    """
    with _readable(root):
        if not root.is_dir():
            found = "a file" if root.exists() else "none"
            raise DataError(f"{root}: folder: found {found}, expected a folder of images")
        classes = tuple(sorted(each.name for each in _visible(root) if each.is_dir()))
    if len(classes) < 2:
        which = f" ({classes[0]})" if classes else ""
        raise DataError(
            f"{root}: classes: found {len(classes)}{which}, expected at least 2 sub-folders, one per class"
        )
    return classes


def image_files(folder: Path) -> list[Path]:
    """The image files of a class, sorted by name.

    Raises:
        DataError: the folder cannot be read, or it holds none.
    """
    files = sorted(_visible(folder))
    if not files:
        raise DataError(f"{folder}: images: found none, expected at least 1")
    return files


def _check_layout(root: Path, classes: tuple[str, ...]) -> None:
    """Raise a DataError where sub-folders are splits of a data set, whose classes are one level deeper."""
    if not all(
        name.casefold() in _SPLITS and any(x.is_dir() for x in _visible(root / name))
        for name in classes
    ):
        return
    use = f"imagenet:{root}, which tests on val"
    if set(classes) != {"train", "val"}:
        largest = next(
            (name for name in classes if name.casefold().startswith("train")), classes[0]
        )
        use = f"folder:{root / largest} alone, or rename two of them train and val and use {use}"
    raise DataError(
        f"{root}: classes: found {', '.join(classes)}, which are parts of a data set and no classes; use {use}"
    )


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files and what systems put there.

    Raises:
        DataError: the folder cannot be read.
    """
    with _readable(folder):
        return [
            x
            for x in folder.iterdir()
            if not x.name.startswith(".") and x.name not in _BY_THE_SYSTEM
        ]


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raise a DataError that names the folder where it cannot be read."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: folder: cannot be read ({error.strerror}), expected a folder of images"
        ) from None


def _common(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Width and height for all: the medians, shrunk in proportion to LONGEST."""
    width, height = (statistics.median_low(side) for side in zip(*sizes, strict=True))
    shrink = min(1.0, LONGEST / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _known(found: Files, row: int, size: tuple[int, int]) -> tuple[UInt8[np.ndarray, "K H W"], int]:
    """One image at the common size, and the digest of what its file holds."""
    from PIL import Image

    image = decode(found.paths[row], found.options)
    digest = of_image(image)
    image = to_eight_bits(image, found.paths[row], found.options, found.levels, found.gray)
    array = np.asarray(
        image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    )
    return array[None] if found.gray else array.transpose(2, 0, 1), digest
