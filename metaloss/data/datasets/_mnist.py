"""The sources of the MNIST family: four IDX files, plain or gzipped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metaloss.data.datasets import Dataset, _idx, _torchvision, data_folder
from metaloss.data.datasets._splits import Split, join_splits
from metaloss.errors import DataNotFound


@dataclass(frozen=True)
class MnistSource:
    """A data set of the MNIST family, in the folders of torchvision or as four files in one.

    Attributes:
        name: Our name.
        kind: Name of the class in `torchvision.datasets`, and of its folder.
        classes: Names of the classes.
        prefixes: What the files of training and test begin with.
        options: Arguments that the class needs to download it.
        upright: Turns the images `[N H W]` of the files upright.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    prefixes: tuple[str, str] = ("train", "t10k")
    options: tuple[tuple[str, Any], ...] = ()
    upright: Callable[[Tensor], Tensor] = lambda images: images

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the plain files: images and labels of training, then those of the test."""
        parts = ("images-idx3", "labels-idx1")
        return tuple(f"{prefix}-{part}-ubyte" for prefix in self.prefixes for part in parts)

    def folder(self) -> Path | None:
        """The first folder of the user's data folder that holds any of the files."""
        return next((folder for folder in self._folders() if self.lies_in(folder)), None)

    def lies_in(self, folder: Path) -> bool:
        """Whether any of the files is there."""
        return any(_file(folder, name).is_file() for name in self.files)

    def load(self) -> Dataset:
        """The data set from the user's data folder.

        Raises:
            DataNotFound: It is missing.
            DataError: A file of it is missing or damaged.
        """
        folder = self.folder()
        if folder is None:
            looked = " and ".join(str(place / self.files[0]) for place in self._folders())
            remedy = f"get it with: metaloss data fetch {self.name}"
            raise DataNotFound(
                f"{self.name}: not found, looked for {looked}, plain or .gz; {remedy}"
            )
        return self.read(folder)

    def read(self, folder: Path) -> Dataset:
        """The data set from a folder that holds its four files, plain or gzipped, under their
        official names.

        Raises:
            DataError: A file is missing or damaged.
        """
        train, test = (self._split(folder, *names) for names in (self.files[:2], self.files[2:]))
        return join_splits(self.name, train, test, self.classes, f"full set, {folder}")

    def fetch(self) -> None:
        """Download the files into the user's data folder.

        Raises:
            DataError: The download failed; says where to put the files by hand.
            DiskError: The folder cannot be written.
        """
        files = [f"{self.kind}/raw/{name}" for name in self.files]
        splits = [{"train": train, **dict(self.options)} for train in (True, False)]
        _torchvision.download(self.name, self.kind, files, splits)

    def _folders(self) -> tuple[Path, ...]:
        """The folders that may hold the files."""
        # The last is for users whose METALOSS_DATA is the root that they use with torchvision.
        folder = data_folder()
        raw = f"{self.kind}/raw"
        return folder / self.name / raw, folder / self.name, folder / raw

    def _split(self, folder: Path, images: str, labels: str) -> Split:
        path = _file(folder, images)
        pixels, label = _idx.pair(path, _file(folder, labels), classes=len(self.classes))
        return Split(str(path), self.upright(pixels)[:, None], label)


def _file(folder: Path, name: str) -> Path:
    """The plain file where there is one, else the gzipped one.

    Plain files are faster to read. A missing file is named as the files beside it are, for the
    message.
    """
    plain = folder / name
    packed = folder / f"{name}.gz"
    if plain.is_file():
        return plain
    return packed if packed.is_file() or any(folder.glob("*-ubyte.gz")) else plain
