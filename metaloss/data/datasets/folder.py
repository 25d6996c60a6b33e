"""A folder of images, one sub-folder per class, or train and test folders of them: `folder:PATH`.

Where the sub-folders are the parts `train` and `test`, which have the classes below them, `test` is
the official test split.
"""

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._class_folders import ClassFolders, find_classes, labelled_files
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

LONGEST = 64  # pixels: a common size never exceeds this on its longer side


def load(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Dataset:
    """The images of a folder, all resized to one size.

    The size is the median of widths and heights of the images to train on, shrunk to 64 pixels on
    the longer side. The images are gray if all files are, else RGB. Classes are sorted by name,
    images by file name; hidden files, and files beside the class folders, are ignored.

    Raises:
        DataError: No such folder, too few classes, an empty class, parts that have different
            classes, a file that is no readable image, or an image that is in both splits.
    """
    images, sizes = _scanned(listed(path, options))
    training = [x for x, test in zip(sizes, images.test.tolist(), strict=True) if not test]
    width, height = _common(training)
    check_memory(images.name, len(sizes), (images.channels, height, width))
    arrays, digests = zip(
        *(_read_with_digest(images, row, (width, height)) for row in range(len(sizes))), strict=True
    )
    origin = f"{images.origin}, as {'gray' if images.gray else 'RGB'} of {width}x{height} pixels"
    pixels = torch.from_numpy(np.stack(arrays))
    return images.with_pixels(pixels, torch.tensor(digests), origin)


def files(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files | None:
    """The images, not read yet, where a size is given; None where their common size is needed.

    Raises:
        DataError: As `load`, without the images.
    """
    return None if options.size is None else _scanned(listed(path, options))[0]


def listed(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> Files:
    """A folder's classes and files, with the official test split if it has one; no file is opened.

    Raises:
        DataError: No such folder, too few classes, an empty class, or parts that have different
            classes.
    """
    root = Path(path).expanduser()
    folders = find_classes(root)
    train = labelled_files(folders.train, folders.classes)
    test = labelled_files([folders.test], folders.classes) if folders.test else None
    name = f"folder:{root.resolve().name}"
    origin = _origin(root, folders, len(train[0]), len(test[0]) if test else 0)
    images = file_list(name, train, test, folders.classes, origin, options)
    return images if test is None else replace(images, name_depth=3)


def _origin(root: Path, folders: ClassFolders, train: int, test: int) -> str:
    """Where so many images come from, to be told to the user."""
    if folders.test is None:
        return f"{train} images of {root}"
    parts = " and ".join(x.name for x in folders.train)
    return (
        f"{train} images to train on ({parts}) and {test} of an official test split "
        f"({folders.test.name}) of {root}"
    )


def _scanned(images: Files) -> tuple[Files, list[tuple[int, int]]]:
    """Files with the channels and levels that their headers state, and the size of each image.

    Sizes are width and height as displayed.
    """
    headers = [header(file, images.options) for file in images.paths]
    wide = [file for file, x in zip(images.paths, headers, strict=True) if x.wide]
    gray = all(x.gray for x in headers)
    black_and_white = levels(images.name, wide, images.options)
    return replace(images, gray=gray, levels=black_and_white), [x.size for x in headers]


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
