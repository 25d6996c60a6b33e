"""SVHN: digits of house numbers photographed from the street, 32x32, colour (Netzer 2011)."""

from pathlib import Path
from typing import Any

from metaloss.data.datasets import Dataset, _torchvision


def _check(root: Path, cls: Any) -> None:
    """Raise a DataError unless both files are the published ones."""
    _torchvision.check_md5(root, [cls.split_list[split][1:] for split in ("train", "test")])


_SOURCE = _torchvision.TorchvisionSource(
    "svhn",
    "SVHN",
    files=("train_32x32.mat", "test_32x32.mat"),
    splits=({"split": "train"}, {"split": "test"}),
    check=_check,
    pixels=lambda data: data,
    classes=tuple("0123456789"),
)


def load() -> Dataset:
    """The 73257 + 26032 digits (without the extra split), from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder (240 MB)."""
    _SOURCE.fetch()
