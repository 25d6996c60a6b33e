"""Data sets as image files that are read one by one.

They are for full-size training, where not all images may fit into memory.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from metaloss.core import reading
from metaloss.data.datasets import Dataset, _images, _torchvision, data_folder
from metaloss.data.datasets._digests import of_image
from metaloss.data.datasets._images import (
    DEFAULT_OPTIONS,
    ImageOptions,
    Levels,
    check_memory,
    decode,
    to_eight_bits,
)
from metaloss.data.datasets._splits import Split, check_no_copies, join_splits
from metaloss.errors import DataError

DEFAULT_SIZE = 224  # pixels a side
EPISODE_SIZE = 64  # pixels a side, of images for episodes
# Bytes of a MATLAB file; unpacked, it has at most a thousand times as many.
MAT_LIMIT = 1 << 20
# Files of these kinds have eight bits a channel, so their headers need not be read.
_EIGHT_BITS = {".jpg", ".jpeg"}


@dataclass(frozen=True, eq=False)
class Files:
    """Labelled images that are not read yet; the official training split first, then the official
    test split if any.

    Attributes:
        name: what the user calls the set.
        paths: of the files.
        labels: the class of each image, a position in `classes`.
        classes: names of the classes.
        index: each image's index in its official split.
        test: True in the official test split.
        origin: where the images come from, to be told to the user.
        options: how they are read.
        gray: whether they have one channel, not three.
        levels: black and white in files of more than eight bits.
        name_depth: how many parts of a path, from its end, tell the files apart: the class's folder
            and the file, or before them the folder of the split.
        groups: a number for the group of every image, as of a `Dataset`.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    index: Int64[Tensor, " N"]
    test: Bool[Tensor, " N"]
    origin: str
    options: ImageOptions = DEFAULT_OPTIONS
    gray: bool = False
    levels: Levels | None = None
    name_depth: int = 2
    groups: Int64[Tensor, " N"] | None = None

    @property
    def channels(self) -> int:
        """The number of channels of an image."""
        return 1 if self.gray else 3

    @property
    def file_names(self) -> tuple[str, ...]:
        """Of each image its class's folder and its file, after the split's folder if it has one."""
        return tuple("/".join(path.parts[-self.name_depth :]) for path in self.paths)

    def read(self, row: int, size: int) -> UInt8[Tensor, "K H W"]:
        """One image: its shorter side brought to `size`, the middle square of it.

        Raises:
            DataError: the file is no readable image.
        """
        return self._square(row, self.open_upright(row), size)

    def open_upright(self, row: int) -> Any:
        """The Pillow image of a file, upright and not yet resized.

        Raises:
            DataError: the file is no readable image.
        """
        return decode(self.paths[row], self.options)

    def read_with_digest(self, row: int, size: int) -> tuple[UInt8[Tensor, "K H W"], int]:
        """One image as `read` gives it, and the digest of the image in its file."""
        image = self.open_upright(row)
        digest = of_image(image)
        return self._square(row, image, size), digest

    def _square(self, row: int, image: Any, size: int) -> UInt8[Tensor, "K H W"]:
        return middle_square(
            to_eight_bits(image, self.paths[row], self.options, self.levels, self.gray), size
        )

    def pair(self, row: int, size: int) -> tuple[Tensor, Tensor]:
        """An image and its label."""
        return self.read(row, size), self.labels[row]

    def fingerprint(self) -> str:
        """SHA-256 of the files' names and labels; their pixels are not read."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for name, label in zip(self.file_names, self.labels.tolist(), strict=True):
            digest.update(f"{name} {label}\n".encode())
        return digest.hexdigest()

    def dataset(self, size: int | None = None) -> Dataset:
        """All images in memory, at this size, else that of the options, else 64x64 pixels.

        Raises:
            DataError: they are too many to hold, or a file is no readable image.
        """
        size = size or self.options.size or EPISODE_SIZE
        check_memory(self.name, len(self.labels), (self.channels, size, size))
        images, digests = zip(
            *(self.read_with_digest(row, size) for row in range(len(self.labels))), strict=True
        )
        origin = f"{self.origin}, as {'gray' if self.gray else 'RGB'} of {size}x{size} pixels"
        return self.with_pixels(torch.stack(images), torch.tensor(digests), origin)

    def with_pixels(
        self, pixels: UInt8[Tensor, "N K H W"], decoded: Int64[Tensor, " N"], origin: str
    ) -> Dataset:
        """The data set of these images in memory.

        Args:
            pixels: of all of them, read.
            decoded: digests of the images in their files.
            origin: where they come from, and what they became.

        Raises:
            DataError: the images are not what a data set takes, or are in both splits of a folder.
        """
        names = self.file_names
        train, test = (
            Split(
                self.name,
                pixels[x],
                self.labels[x],
                self.index[x],
                decoded[x],
                tuple(names[row] for row in x.nonzero()[:, 0].tolist()),
            )
            for x in (~self.test, self.test)
        )
        dataset = join_splits(
            self.name, train, test if self.test.any() else None, self.classes, origin
        )
        dataset = replace(dataset, groups=self.groups)
        # A published split is compared by as it is; the user's own can be mended.
        if self.name.startswith("folder:"):
            check_no_copies(dataset)
        return dataset


def middle_square(image: Any, size: int) -> UInt8[Tensor, "K H W"]:
    """The middle square of a Pillow image whose shorter side is brought to `size`."""
    from PIL import Image

    width, height = image.size
    shrink = size / min(width, height)
    if shrink != 1:
        # Not below the side of the square, whatever rounding does.
        image = image.resize(
            (max(size, round(width * shrink)), max(size, round(height * shrink))),
            Image.Resampling.BILINEAR,
        )
    left = (image.size[0] - size) // 2
    top = (image.size[1] - size) // 2
    array = np.asarray(image.crop((left, top, left + size, top + size)))
    # A copy: arrays from Pillow are read-only, of which torch warns.
    return torch.from_numpy((array[None] if array.ndim == 2 else array.transpose(2, 0, 1)).copy())


FileList = tuple[Sequence[Path], Sequence[int]]  # files and their labels


def files(
    name: str,
    train: FileList,
    test: FileList | None,
    classes: Sequence[str],
    origin: str,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> Files:
    """`Files` from the lists of the official splits, checked; no file is opened.

    Args:
        name: what the user calls the set.
        train: files and labels of the official training split.
        test: of the official test split, where there is one.
        classes: their names.
        origin: where the files come from.
        options: how they are read.

    Raises:
        DataError: a list is empty, or a label is no class.
    """
    lists = [train] if test is None else [train, test]
    for paths, labels in lists:
        if not paths:
            raise DataError(f"{origin}: images: found none, expected at least 1")
        if not 0 <= min(labels) <= max(labels) < len(classes):
            raise DataError(
                f"{origin}: labels: found {min(labels)} to {max(labels)}, "
                f"expected 0 to {len(classes) - 1}"
            )
    return Files(
        name=name,
        paths=tuple(path for paths, _ in lists for path in paths),
        labels=torch.tensor([label for _, labels in lists for label in labels]),
        classes=tuple(classes),
        index=torch.cat([torch.arange(len(paths)) for paths, _ in lists]),
        test=torch.cat([torch.full((len(part[0]),), part is test) for part in lists]),
        origin=origin,
        options=options,
    )


def with_levels(images: Files) -> Files:
    """The same files, with the levels of black and white in those of more than eight bits.

    Raises:
        DataError: a file is no readable image.
    """
    unsure = [path for path in images.paths if path.suffix.lower() not in _EIGHT_BITS]
    wide = [path for path in unsure if _images.header(path, images.options).wide]
    return replace(images, levels=_images.levels(images.name, wide, images.options))


@dataclass(frozen=True)
class TorchvisionFiles:
    """A published data set of image files, whose lists torchvision can read.

    Attributes:
        name: ours.
        kind: name of the class in `torchvision.datasets`.
        needs: what must lie below its root.
        lists: the official splits, training first, and the classes, from the root.
        manual: how to get it by hand, where it can no longer be downloaded.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    lists: Callable[[Path, Any], tuple[FileList, FileList | None, Sequence[str]]]
    manual: str = ""

    def files(self, options: ImageOptions) -> Files:
        """The files in the user's data folder.

        Raises:
            DataError: something is missing or damaged.
        """
        places = data_folder() / self.name, data_folder()
        root = next((root for root in places if (root / self.needs[0]).exists()), None)
        if root is None:
            looked = " and ".join(str(place / self.needs[0]) for place in places)
            remedy = self.manual or f"get it with: metaloss data fetch {self.name}"
            raise DataError(f"{self.name}: not found, looked for {looked}; {remedy}")
        if missing := [x for x in self.needs if not (root / x).exists()]:
            raise DataError(
                f"{root / missing[0]}: found none, expected one; {self.manual or 'fetch it again'}"
            )
        self._check_tables(root)
        try:
            train, test, classes = self.lists(root, _torchvision.torchvision_class(self.kind))
        except Exception as error:  # scipy raises whatever the file leads it to
            raise DataError(
                f"{root}: {self.name}: cannot be read ({' '.join(str(error).split())})"
            ) from error
        return files(self.name, train, test, classes, f"full set, {root}", options)

    def _check_tables(self, root: Path) -> None:
        """Raise a DataError for a MATLAB file that is no regular file or is too large to unpack."""
        for place in (root / x for x in self.needs):
            for path in [place] if place.suffix == ".mat" else place.glob("*.mat"):
                try:
                    # Opened only to be checked.
                    with reading.open_regular(path, MAT_LIMIT):
                        pass
                except OSError as error:
                    raise DataError(f"{path}: {error.strerror}") from None

    def fetch(self, *splits: dict[str, Any]) -> None:
        """Let torchvision download it into the user's data folder.

        Raises:
            DataError: the download failed, or the set can no longer be downloaded.
            DiskError: the folder cannot be written.
        """
        if self.manual:
            raise DataError(f"{self.name} cannot be downloaded; {self.manual}")
        _torchvision.download(self.name, self.kind, self.needs, splits)
