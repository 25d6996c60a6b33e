"""Data sets as image files, read one by one: for full-size training, where not all of them may fit into memory."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from metaloss.datasets import Dataset, _torchvision, data_folder
from metaloss.datasets._digests import of_image
from metaloss.datasets._splits import Split, join
from metaloss.errors import DataError

USUAL = 224  # pixels a side, where nothing else is asked for
SMALL = 64  # of an episode's images
LIMIT = 4 << 30  # bytes of images that `load` holds


@dataclass(frozen=True, eq=False)
class Files:
    """Labelled images that are not read yet; the official training split first, then the official test split if any.

    Attributes:
        name: what the user calls the set.
        paths: of the files.
        labels: the class of each image, a position in `classes`.
        classes: names of the classes.
        index: each image's index in its official split.
        test: True in the official test split.
        origin: where the images come from, to be told to the user.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    index: Int64[Tensor, " N"]
    test: Bool[Tensor, " N"]
    origin: str

    def read(self, row: int, size: int) -> UInt8[Tensor, "3 H W"]:
        """One image: its shorter side brought to `size`, the middle square of it, in colour.

        Raises:
            DataError: the file is no readable image.
        """
        with self.upright(row) as image:
            return middle(image.convert("RGB"), size)

    @contextlib.contextmanager
    def upright(self, row: int) -> Iterator[Any]:
        """A Pillow image as its file holds it, turned as it is meant to be seen.

        Raises:
            DataError: the file is no readable image.
        """
        from PIL import ImageOps

        from metaloss.datasets.folder import opened

        with opened(self.paths[row]) as image:
            yield ImageOps.exif_transpose(image)

    def pair(self, row: int, size: int) -> tuple[Tensor, Tensor]:
        """An image and its label."""
        return self.read(row, size), self.labels[row]

    def fingerprint(self) -> str:
        """SHA-256 of the files' names and labels; their pixels are not read."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            digest.update(f"{path.parent.name}/{path.name} {label}\n".encode())
        return digest.hexdigest()

    def dataset(self, size: int = SMALL) -> Dataset:
        """All of the images in memory.

        Raises:
            DataError: they are too many, or a file is no readable image.
        """
        if (total := 3 * size * size * len(self.labels)) > LIMIT:
            raise DataError(
                f"{self.name}: {len(self.labels)} images of {size}x{size} are {total} bytes, too many to hold"
            )
        images, digests = zip(*(self._known(row, size) for row in range(len(self.labels))), strict=True)
        pixels, decoded = torch.stack(images), torch.tensor(digests)
        parts = [
            Split(self.name, pixels[x], self.labels[x], self.index[x], decoded[x]) for x in (~self.test, self.test)
        ]
        train, test = parts
        origin = f"{self.origin}, as RGB of {size}x{size} pixels"
        return join(self.name, train, test if self.test.any() else None, self.classes, origin)

    def _known(self, row: int, size: int) -> tuple[UInt8[Tensor, "3 H W"], int]:
        """One image as `read` gives it, and its digest."""
        with self.upright(row) as image:
            return middle(image.convert("RGB"), size), of_image(image)


def middle(image: Any, size: int) -> UInt8[Tensor, "3 H W"]:
    """The middle square of a Pillow image whose shorter side is brought to `size`."""
    from PIL import Image

    width, height = image.size
    shrink = size / min(width, height)
    if shrink != 1:
        image = image.resize(
            (max(size, round(width * shrink)), max(size, round(height * shrink))), Image.Resampling.BILINEAR
        )
    left, top = (image.size[0] - size) // 2, (image.size[1] - size) // 2
    array = np.asarray(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


Listed = tuple[Sequence[Path], Sequence[int]]  # files and their labels


def files(name: str, train: Listed, test: Listed | None, classes: Sequence[str], origin: str) -> Files:
    """Files from the lists of their official splits, checked.

    Raises:
        DataError: a list is empty, or a label is no class.
    """
    lists = [train] if test is None else [train, test]
    for paths, labels in lists:
        if not paths:
            raise DataError(f"{origin}: images: found none, expected at least 1")
        if not 0 <= min(labels) <= max(labels) < len(classes):
            raise DataError(f"{origin}: labels: found {min(labels)} to {max(labels)}, expected 0 to {len(classes) - 1}")
    return Files(
        name=name,
        paths=tuple(path for paths, _ in lists for path in paths),
        labels=torch.tensor([label for _, labels in lists for label in labels]),
        classes=tuple(classes),
        index=torch.cat([torch.arange(len(paths)) for paths, _ in lists]),
        test=torch.cat([torch.full((len(part[0]),), part is test) for part in lists]),
        origin=origin,
    )


@dataclass(frozen=True)
class Published:
    """A data set of files that torchvision knows.

    Attributes:
        name: ours.
        kind: name of the class in `torchvision.datasets`.
        needs: what must lie below its root.
        lists: the official splits, training first, and the classes, from the root.
        manual: how to get it by hand.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    lists: Callable[[Path, Any], tuple[Listed, Listed | None, Sequence[str]]]
    manual: str = ""

    def files(self) -> Files:
        """What lies in the user's data folder; a DataError where something is missing or damaged."""
        places = data_folder() / self.name, data_folder()
        root = next((root for root in places if (root / self.needs[0]).exists()), None)
        if root is None:
            looked = " and ".join(str(place / self.needs[0]) for place in places)
            remedy = self.manual or f"get it with: metaloss data fetch {self.name}"
            raise DataError(f"{self.name}: not found, looked for {looked}; {remedy}")
        if missing := [x for x in self.needs if not (root / x).exists()]:
            raise DataError(f"{root / missing[0]}: found none, expected one; {self.manual or 'fetch it again'}")
        try:
            train, test, classes = self.lists(root, _torchvision.published(self.kind))
        except Exception as error:  # scipy raises whatever the file leads it to
            raise DataError(f"{root}: {self.name}: cannot be read ({' '.join(str(error).split())})") from error
        return files(self.name, train, test, classes, f"full set, {root}")

    def fetch(self, *splits: dict[str, Any]) -> None:
        """Let torchvision download it into the user's data folder.

        Raises:
            DataError: the download failed, or the set can no longer be had.
            DiskError: the folder cannot be written.
        """
        if self.manual:
            raise DataError(f"{self.name} cannot be downloaded; {self.manual}")
        _torchvision.download(self.name, self.kind, self.needs, splits)
