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
# Files and folders that operating systems and network storage put beside images.
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
    """The images of a folder, all resized to one size; there is no official test split.

    The size is the median of widths and heights, shrunk to 64 pixels on the longer side. The images
    are gray if all files are, else RGB. Classes are sorted by name, images by file name; hidden
    files, and files beside the class folders, are ignored.

    Raises:
        DataError: No such folder, too few classes, an empty class, or a file that is no readable
            image.
    """
    images, sizes = _scanned(listed(path, options))
    width, height = _common(sizes)
    check_memory(images.name, len(sizes), (images.channels, height, width))
    arrays, digests = zip(
        *(_read_with_digest(images, row, (width, height)) for row in range(len(sizes))), strict=True
    )
    origin = f"{images.origin}, as {'gray' if images.gray else 'RGB'} of {width}x{height} pixels"
    split = Split(
        str(path),
        torch.from_numpy(np.stack(arrays)),
        images.labels,
        decoded=torch.tensor(digests),
        files=images.file_names,
    )
    return join_splits(images.name, split, None, images.classes, origin)


def files(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files | None:
    """The images, not read yet, where a size is given; None where their common size is needed.

    Raises:
        DataError: As `load`, without the images.
    """
    return None if options.size is None else _scanned(listed(path, options))[0]


def listed(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files:
    """A folder's classes and files; no file is opened.

    Raises:
        DataError: No such folder, too few classes, or an empty class.
    """
    root = Path(path).expanduser()
    classes = class_names(root)
    _check_layout(root, classes)
    pairs = [
        (file, label) for label, name in enumerate(classes) for file in image_files(root / name)
    ]
    train = [file for file, _ in pairs], [label for _, label in pairs]
    origin = f"{len(pairs)} images of {root}"
    return file_list(f"folder:{root.resolve().name}", train, None, classes, origin, options)


def _scanned(images: Files) -> tuple[Files, list[tuple[int, int]]]:
    """Files with the channels and levels that their headers state, and the size of each image.

    Sizes are width and height as displayed.
    """
    headers = [header(file, images.options) for file in images.paths]
    wide = [file for file, x in zip(images.paths, headers, strict=True) if x.wide]
    gray = all(x.gray for x in headers)
    black_and_white = levels(images.name, wide, images.options)
    return replace(images, gray=gray, levels=black_and_white), [x.size for x in headers]


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted; folders of operating systems are no classes.

    Raises:
        DataError: there is no such folder, it cannot be read, or it has fewer than two sub-folders.
    """
    with _readable(root):
        if not root.is_dir():
            actual = "a file" if root.exists() else "none"
            raise DataError(f"{root}: folder: found {actual}, expected a folder of images")
        classes = tuple(sorted(path.name for path in _visible(root) if path.is_dir()))
    if len(classes) < 2:
        which = f" ({classes[0]})" if classes else ""
        raise DataError(
            f"{root}: classes: found {len(classes)}{which}, "
            "expected at least 2 sub-folders, one per class"
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
    """Raise a DataError where the sub-folders are splits, which have the classes below them."""
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
        f"{root}: classes: found {', '.join(classes)}, "
        f"which are parts of a data set and no classes; use {use}"
    )


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files and those of operating systems.

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
    """Within the block, an OSError becomes a DataError that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: folder: cannot be read ({error.strerror}), expected a folder of images"
        ) from None


def _common(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Width and height for all images: the medians, reduced in proportion to LONGEST."""
    # The lower median: a side that some image has, never half a pixel.
    width, height = (statistics.median_low(side) for side in zip(*sizes, strict=True))
    shrink = min(1.0, LONGEST / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _read_with_digest(
    images: Files, row: int, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "K H W"], int]:
    """One image at the common size, and the digest of the image in its file."""
    from PIL import Image

    image = decode(images.paths[row], images.options)
    # Before resizing: the same image has the same digest at any size.
    digest = of_image(image)
    image = to_eight_bits(image, images.paths[row], images.options, images.levels, images.gray)
    array = np.asarray(
        image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    )
    return array[None] if images.gray else array.transpose(2, 0, 1), digest
