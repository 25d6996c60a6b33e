"""The sources that are read through torchvision: their files, checks and downloads."""

import contextlib
import errno
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloss.core import reading
from metaloss.data.datasets import Dataset, data_folder
from metaloss.data.datasets._splits import Split, join_splits
from metaloss.errors import DataError, DiskError

# Errors of a download that are the disk's, not the network's.
_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,
}


@dataclass(frozen=True)
class TorchvisionSource:
    """A data set that a class of torchvision reads.

    Attributes:
        name: Our name.
        kind: Name of the class in `torchvision.datasets`.
        files: Paths below its root: those of training first, then those of the test split.
        splits: Arguments that choose the training split and the test split.
        check: Called with the root and the class before reading; raises a DataError that names the
            damaged file.
        pixels: Makes `[N K H W]` of the class's `data`.
        classes: Names of the classes; empty: torchvision's own.
    """

    name: str
    kind: str
    files: tuple[str, ...]
    splits: tuple[dict[str, Any], dict[str, Any]]
    check: Callable[[Path, Any], None]
    pixels: Callable[[Tensor], Tensor]
    classes: tuple[str, ...] = ()

    def load(self) -> Dataset:
        """The data set from the user's data folder.

        Raises:
            DataError: It is missing or damaged.
        """
        root = self._root()
        kind = torchvision_class(self.kind)
        self.check(root, kind)
        try:
            with _quiet():
                parts = [kind(root, download=False, **split) for split in self.splits]
        except Exception as error:  # a damaged pickle can raise anything
            raise DataError(
                f"{root}: {self.name}: torchvision cannot read it ({_line(error)})"
            ) from error
        train, test = (
            Split(f"{root} ({self.name})", self.pixels(_data(part)), _labels(part))
            for part in parts
        )
        return join_splits(
            self.name, train, test, self.classes or tuple(parts[0].classes), f"full set, {root}"
        )

    def fetch(self) -> None:
        """Download the files into the user's data folder.

        Raises:
            DataError: The download failed; says where to put the files by hand.
            DiskError: The folder cannot be written.
        """
        download(self.name, self.kind, self.files, self.splits)

    def _root(self) -> Path:
        """The folder that torchvision calls root; a DataError where a file of it is missing."""
        # The second is for users whose METALOSS_DATA is the root that they use with torchvision.
        places = data_folder() / self.name, data_folder()
        remedy = f"get it with: metaloss data fetch {self.name}"
        for root in places:
            missing = [file for file in self.files if not (root / file).is_file()]
            if missing and len(missing) < len(self.files):
                raise DataError(f"{root / missing[0]}: file: found none, expected one; {remedy}")
            if not missing:
                return root
        looked = " and ".join(str(root / self.files[0]) for root in places)
        raise DataError(f"{self.name}: not found, looked for {looked}; {remedy}")


def check_md5(root: Path, sums: Sequence[Sequence[str]]) -> None:
    """Raise a DataError that names the first file whose MD5 is not the one beside it."""
    for file, expected in sums:
        with reading.open_regular(root / file) as stream:
            # MD5, as published; not for security, or machines in FIPS mode would refuse it.
            actual = hashlib.file_digest(
                stream, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if actual != expected:
            raise DataError(f"{root / file}: md5: found {actual}, expected {expected}")


def download(name: str, kind: str, files: Sequence[str], splits: Sequence[dict[str, Any]]) -> None:
    """Let a class of `torchvision.datasets` download its splits into the user's data folder.

    Args:
        name: ours.
        kind: name of the class.
        files: that must be there afterwards, below the root.
        splits: arguments of the class, for each split.

    Raises:
        DataError: The download failed; says where to put the files by hand.
        DiskError: The folder cannot be written.
    """
    root = data_folder() / name
    cls = torchvision_class(kind)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision prints which mirrors failed; our standard output is for results.
        with _quiet(), contextlib.redirect_stdout(sys.stderr):
            for split in splits:
                cls(root, download=True, **split)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise DiskError(f"{root}: cannot be written ({error.strerror})") from error
        if all((root / file).exists() for file in files):
            # The files are there, but torchvision cannot read them: `load` names the damaged one.
            return
        raise DataError(
            f"{name}: download failed ({_line(error)}); by hand: put {', '.join(files)} into {root}"
        ) from error


def torchvision_class(kind: str) -> Any:
    """A class of `torchvision.datasets`.

    Raises:
        DataError: torchvision is missing, or was built for another torch.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        advice = "install both together and from one index: pip install torch torchvision"
        raise DataError(f"torchvision cannot be imported ({_line(error)}): {advice}") from error
    return getattr(torchvision.datasets, kind)


def _data(part: Any) -> Tensor:
    """The images of a torchvision data set as a tensor, in its own order of axes."""
    return torch.as_tensor(part.data)


def _labels(part: Any) -> Tensor:
    """The labels of a torchvision data set; SVHN calls them by another name than all others."""
    return torch.as_tensor(
        part.labels if hasattr(part, "labels") else part.targets, dtype=torch.int64
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings: old pickles use deprecated parts of numpy, which users cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _line(error: BaseException) -> str:
    """A message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
