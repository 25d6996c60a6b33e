"""Caltech-101: photographs of 101 kinds of things, about 300x200 pixels (Fei-Fei 2004).

It has no official test split.
"""

from pathlib import Path
from typing import Any

from metaloss.data.datasets import _files
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions


def _lists(root: Path, _: Any) -> tuple[_files.FileList, None, list[str]]:
    folder = root / "caltech101/101_ObjectCategories"
    classes = sorted(
        x.name for x in folder.iterdir() if x.is_dir() and x.name != "BACKGROUND_Google"
    )
    pairs = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*.jpg"))
    ]
    return ([path for path, _ in pairs], [label for _, label in pairs]), None, classes


_SOURCE = _files.TorchvisionFiles(
    "caltech101", "Caltech101", ("caltech101/101_ObjectCategories",), _lists
)


def files(options: ImageOptions = DEFAULT_OPTIONS) -> _files.Files:
    """The 8677 photographs, without the background class, from the user's data folder."""
    return _SOURCE.files(options)


def fetch() -> None:
    """Download into the user's data folder (131 MB)."""
    _SOURCE.fetch({})
