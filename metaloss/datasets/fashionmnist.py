"""Fashion-MNIST: ten kinds of clothing, 28x28 (Xiao 2017); the full set where there is one, else an embedded subset."""

from pathlib import Path

import torch

from metaloss.datasets import Dataset, _idx, _torchvision, data_folder
from metaloss.datasets._splits import Split, join

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SUBSET = Path(__file__).with_name("fashionmnist_subset")

_SOURCE = _torchvision.idx("fashionmnist", "FashionMNIST", CLASSES)
_STEMS = tuple(Path(file).name for file in _SOURCE.files)


def load() -> Dataset:
    """The full set from the first place that holds any of its files, else the embedded subset.

    Raises:
        DataError: A file in that place is missing or damaged; later places are not tried.
    """
    own = data_folder()
    for folder in (own / "fashionmnist", own / "fashionmnist/FashionMNIST/raw", own / "FashionMNIST/raw", SYSTEM):
        if any(_file(folder, stem).exists() for stem in _STEMS):
            return read(folder)
    return _subset()


def fetch() -> None:
    """Download the full set into the user's data folder."""
    _SOURCE.fetch()


def read(folder: Path) -> Dataset:
    """The full set from a folder that holds its four IDX files, gzipped or plain, under their official names."""
    train, test = (_split(_file(folder, images), _file(folder, labels)) for images, labels in (_STEMS[:2], _STEMS[2:]))
    return join("fashionmnist", train, test, CLASSES, f"full set, {folder}")


def _subset() -> Dataset:
    """The images that come with this package, made by `scripts/make_fashionmnist_subset.py`."""
    train, test = (
        _split(*(SUBSET / f"{split}-{part}.idx.gz" for part in ("images", "labels", "index")))
        for split in ("train", "test")
    )
    origin = "embedded subset (700 + 300 images per class); the full set: metaloss data fetch fashionmnist"
    return join("fashionmnist", train, test, CLASSES, origin)


def _split(images: Path, labels: Path, index: Path | None = None) -> Split:
    """One split from its files; without a file of indices the split is whole."""
    pixels, label = _idx.pair(images, labels, classes=len(CLASSES))
    order = None if index is None else torch.from_numpy(_idx.read(index, _idx.INDEX).astype("int64"))
    return Split(str(images), pixels[:, None], label, order)


def _file(folder: Path, stem: str) -> Path:
    """The plain file where there is one (it reads faster), else the gzipped one."""
    plain = folder / stem
    return plain if plain.exists() else folder / f"{stem}.gz"
