"""Oxford Flowers-102: photographs of 102 kinds of flowers, about 500x500 (Nilsback 2008)."""

from pathlib import Path
from typing import Any

from metaloss.data.datasets import _files
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions


def _lists(root: Path, kind: Any) -> tuple[_files.FileList, _files.FileList, list[str]]:
    train, validation, test = (kind(root, split=split) for split in ("train", "val", "test"))
    both = [*train._image_files, *validation._image_files], [*train._labels, *validation._labels]
    return both, (test._image_files, test._labels), kind.classes


_FOLDER = "flowers-102"
_SOURCE = _files.TorchvisionFiles(
    "flowers102",
    "Flowers102",
    tuple(f"{_FOLDER}/{x}" for x in ("jpg", "imagelabels.mat", "setid.mat")),
    _lists,
)


def files(options: ImageOptions = DEFAULT_OPTIONS) -> _files.Files:
    """The 2040 + 6149 photographs, from the user's data folder.

    Those of the training and validation splits come first, then those of the test split.
    """
    return _SOURCE.files(options)


def fetch() -> None:
    """Download into the user's data folder (345 MB)."""
    _SOURCE.fetch({"split": "train"})
