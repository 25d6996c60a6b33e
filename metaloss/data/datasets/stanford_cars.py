"""Stanford Cars: photographs of 196 models of cars, about 700x480 pixels (Krause 2013)."""

from pathlib import Path
from typing import Any

from metaloss.data.datasets import _files
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions

_MANUAL = (
    "its publisher's address is gone: put cars_train, cars_test, devkit and "
    "cars_test_annos_withlabels.mat into stanford_cars/stanford_cars of the data folder"
)


def _lists(root: Path, kind: Any) -> tuple[_files.FileList, _files.FileList, list[str]]:
    parts = [kind(root, split=split) for split in ("train", "test")]
    train, test = (
        ([Path(path) for path, _ in x._samples], [int(y) for _, y in x._samples]) for x in parts
    )
    return train, test, [str(name) for name in parts[0].classes]


_NEEDS = ("cars_train", "cars_test", "devkit", "cars_test_annos_withlabels.mat")
_SOURCE = _files.TorchvisionFiles(
    "stanford_cars", "StanfordCars", tuple(f"stanford_cars/{x}" for x in _NEEDS), _lists, _MANUAL
)


def files(options: ImageOptions = DEFAULT_OPTIONS) -> _files.Files:
    """The 8144 + 8041 photographs, from the user's data folder."""
    return _SOURCE.files(options)


def fetch() -> None:
    """Say how to get it: it can no longer be downloaded."""
    _SOURCE.fetch()
