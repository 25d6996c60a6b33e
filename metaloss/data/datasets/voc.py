"""Images with a class for every pixel, in the format of PASCAL VOC (Everingham 2010): `voc:PATH`,
or `voc`.

PATH has JPEGImages/NAME.jpg, SegmentationClass/NAME.png and, with lists of names,
ImageSets/Segmentation/train.txt and val.txt; or it has VOCdevkit/VOC2012 with these. The palette
numbers of a mask are the classes, and pixels of the number 255 are ignored.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from metaloss.data.datasets import _torchvision, data_folder
from metaloss.data.datasets._images import (
    DEFAULT_OPTIONS,
    ImageOptions,
    decode,
    header,
    orient,
    read,
)
from metaloss.data.datasets._lists import read_names
from metaloss.errors import DataError, SettingsError

IGNORE = 255  # the number of pixels that are ignored
COLOUR = (124, 116, 104)  # of the margins of an image that is no square: the mean of ImageNet
NAMED = "classes.txt"  # names of the classes, one a line; our addition to the format
VOC = (
    *(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
    ),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
# The usual fault of masks from other programs, and the remedy.
ONE_CLASS = (
    f"found {{numbers}} alone, and {IGNORE} counts for nothing; "
    "masks of two classes hold 0 and 1: write them anew, "
    f"with Pillow and numpy as Image.fromarray((np.asarray(mask) == {IGNORE}).astype('uint8'))"
)
LISTS = "ImageSets/Segmentation"
Pair = tuple[UInt8[Tensor, "3 S S"], UInt8[Tensor, "S S"]]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images and masks that are not read yet; those of the training list first.

    Attributes:
        name: what the user calls the set.
        paths: of the images.
        masks: of their masks.
        classes: names of the classes.
        test: True for those of the validation list, which is the test split: VOC's own test masks
            are not public.
        origin: where the images come from, to be told to the user.
        options: how the images are read.
    """

    name: str
    paths: tuple[Path, ...]
    masks: tuple[Path, ...]
    classes: tuple[str, ...]
    test: Bool[Tensor, " N"]
    origin: str
    options: ImageOptions = DEFAULT_OPTIONS

    def pair(self, row: int, size: int) -> Pair:
        """An image and its mask as squares: the longer side is resized to `size`.

        The margins have the mean colour in the image and 255 in the mask.

        Raises:
            DataError: a file is no readable image, they differ in size, or a pixel has an unknown
                class.
        """
        from PIL import Image

        image = read(self.paths[row], self.options)
        mask = self._mask(row)
        width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
        pixels = np.full((size, size, 3), COLOUR, np.uint8)
        labels = np.full((size, size), IGNORE, np.uint8)
        top = (size - height) // 2
        left = (size - width) // 2
        place = slice(top, top + height), slice(left, left + width)
        pixels[place] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        # NEAREST: a number between two classes would be a third class.
        labels[place] = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST), np.uint8)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), torch.from_numpy(labels)

    def counts(self, row: int) -> Int64[Tensor, " 256"]:
        """How many pixels of a mask, as it is stored, have each number.

        Raises:
            DataError: as of `pair`.
        """
        return torch.from_numpy(
            np.bincount(np.asarray(self._mask(row), np.uint8).reshape(-1), minlength=256)
        )

    def fingerprint(self) -> str:
        """SHA-256 of the files' names and lengths and the classes; their pixels are not read."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for image, mask in zip(self.paths, self.masks, strict=True):
            digest.update(
                f"{image.name} {image.stat().st_size} {mask.name} {mask.stat().st_size}\n".encode()
            )
        return digest.hexdigest()

    def _mask(self, row: int) -> Any:
        """A mask as a checked Pillow image, upright as its image is.

        A mask is turned by its own orientation tag. Where its size is then that of the image as
        stored, not as displayed, it was drawn on the stored image and is turned as this one is.
        """
        # The image's header is enough: its pixels are not read.
        seen = header(self.paths[row], self.options)
        mask = decode(self.masks[row], self.options)
        if mask.size != seen.size and mask.size == seen.size[::-1]:
            mask = orient(mask, seen.orientation)
        self._check(row, seen.size, mask)
        return mask

    def _check(self, row: int, size: tuple[int, int], mask: Any) -> None:
        """Raise a DataError where a mask differs from its image in size or has an unknown class."""
        path = self.masks[row]
        highest = _highest(self.masks[row], mask)
        if mask.size != size:
            actual, expected = ("x".join(map(str, x)) for x in (mask.size, size))
            raise DataError(
                f"{path}: size: found {actual}, expected {expected} as of {self.paths[row].name}"
            )
        if highest >= len(self.classes):
            raise DataError(
                f"{path}: class {highest}: expected 0 to {len(self.classes) - 1}, or {IGNORE}"
            )


def scenes(path: str = "", options: ImageOptions = DEFAULT_OPTIONS) -> Scenes:
    """The scenes at a path; without one, in voc of the user's data folder, or in that folder.

    Raises:
        DataError: files are missing or damaged, a list is empty, or a name is in both.
    """
    places = [Path(path).expanduser()] if path else [data_folder() / "voc", data_folder()]
    root = next((found for place in places if (found := _root(place)) is not None), None)
    if root is None:
        looked = " and ".join(str(place) for place in places)
        advice = "" if path else "; get that with: metaloss data fetch voc"
        raise DataError(
            f"voc: {looked}: found no VOC folder, "
            "expected JPEGImages, SegmentationClass and ImageSets, "
            f"or VOCdevkit/VOC2012 with them in it{advice}"
        )
    train, val = (_listed(root / LISTS / f"{part}.txt") for part in ("train", "val"))
    if both := sorted(set(train) & set(val)):
        raise DataError(
            f"{root}: {both[0]} is in train.txt and in val.txt, expected each image in one of them"
        )
    names = [*train, *val]
    images = tuple(_existing(root / "JPEGImages" / f"{name}.jpg") for name in names)
    masks = tuple(_existing(root / "SegmentationClass" / f"{name}.png") for name in names)
    test = torch.arange(len(names)) >= len(train)
    classes = _classes(root, masks, options)
    origin = f"{root}, tested on its val.txt"
    return Scenes(f"voc:{root.resolve().name}", images, masks, classes, test, origin, options)


def load(_path: str = "") -> NoReturn:
    """Refuse: a `Dataset` has one class for every image.

    Raises:
        SettingsError: always.
    """
    raise SettingsError(
        "voc has a class for every pixel, and one for every image is needed here; "
        "metaloss train takes it"
    )


def fetch() -> None:
    """Download VOC2012 into the user's data folder (2 GB)."""
    year = "VOCdevkit/VOC2012"
    needs = [f"{year}/{part}" for part in ("JPEGImages", "SegmentationClass", LISTS)]
    _torchvision.download(
        "voc", "VOCSegmentation", needs, [{"year": "2012", "image_set": "trainval"}]
    )


def verify(path: str = "", options: ImageOptions = DEFAULT_OPTIONS) -> list[str]:
    """Read and check every image and mask; the lines to print: how many pixels every class has.

    Raises:
        DataError: files are missing or damaged.
    """
    images = scenes(path, options)
    for image in images.paths:
        decode(image, images.options)
    counts = torch.stack([images.counts(row) for row in range(len(images.paths))])
    train, test = (counts[rows].sum(0).tolist() for rows in (~images.test, images.test))
    names = {**dict(enumerate(images.classes)), IGNORE: "no class"}
    width = max(map(len, names.values()))
    split = f"{int((~images.test).sum())} to train, {int(images.test.sum())} to test"
    return [
        f"{images.name}: {images.origin}",
        f"{len(images.paths)} images ({split}) with a class for every pixel, "
        f"{len(images.classes)} classes",
        f"{'pixels':{width}}  {'training':>12}{'test':>12}",
        *(f"{name:{width}}  {train[number]:12}{test[number]:12}" for number, name in names.items()),
        f"fingerprint {images.fingerprint()}",
    ]


def _root(place: Path) -> Path | None:
    """The folder with the images: the place itself, or where VOC's archive has them below it."""
    # The newest year first.
    options = [place, *sorted(place.glob("VOCdevkit/VOC*"), reverse=True)]
    return next((x for x in options if (x / "SegmentationClass").is_dir()), None)


def _listed(path: Path) -> list[str]:
    """The names of a list of images, each once."""
    return list(dict.fromkeys(read_names(path)))


def _existing(path: Path) -> Path:
    """The path of a file; a DataError where it does not exist."""
    if not path.is_file():
        raise DataError(f"{path}: found none, expected an image that the lists name")
    return path


def _classes(root: Path, masks: tuple[Path, ...], options: ImageOptions) -> tuple[str, ...]:
    """Names from classes.txt; else those of VOC where the folder is named so; else numbers."""
    if (root / NAMED).is_file():
        names = tuple(read_names(root / NAMED))
    elif root.resolve().name.startswith("VOC20"):
        names = VOC
    else:
        highest = max(_highest(path, decode(path, options)) for path in masks)
        if highest < 1:
            raise DataError(
                f"{root}: masks: {ONE_CLASS.format(numbers=f'{max(highest, 0)} and {IGNORE}')}"
            )
        names = tuple(map(str, range(1 + highest)))
    if not 2 <= len(names) < IGNORE:
        raise DataError(f"{root}: classes: found {len(names)}, expected 2 to {IGNORE - 1}")
    return names


def _highest(path: Path, mask: Any) -> int:
    """The highest class of a mask; -1 where all of its pixels are ignored."""
    if mask.mode not in ("P", "L", "1"):
        raise DataError(
            f"{path}: pixels: found {mask.mode}, "
            "expected a palette or gray PNG whose numbers are classes"
        )
    numbers = np.asarray(mask).astype(np.int64)  # a mask of one bit has 0 and 1
    return int(numbers.max(initial=-1, where=numbers != IGNORE))
