"""Fashion-MNIST: ten kinds of clothing, 28x28 (Xiao 2017); an embedded subset, or the full set.

The full set is read where there is one.
"""

from pathlib import Path

import torch

from metaloss.data.datasets import Dataset, _idx, _mnist
from metaloss.data.datasets._splits import Split, join_splits

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SUBSET = Path(__file__).with_name("fashionmnist_subset")

SOURCE = _mnist.MnistSource("fashionmnist", "FashionMNIST", CLASSES)


def load() -> Dataset:
    """The full set from the first place that holds any of its files, else the embedded subset.

    Raises:
        DataError: A file in that place is missing or damaged; later places are not tried.
    """
    folder = SOURCE.folder() or (SYSTEM if SOURCE.lies_in(SYSTEM) else None)
    return SOURCE.read(folder) if folder else _subset()


def fetch() -> None:
    """Download the full set into the user's data folder."""
    SOURCE.fetch()


def _subset() -> Dataset:
    """The images that come with this package, made by `scripts/make_fashionmnist_subset.py`."""
    train, test = (
        _split(*(SUBSET / f"{split}-{part}.idx.gz" for part in ("images", "labels", "index")))
        for split in ("train", "test")
    )
    origin = (
        "embedded subset (700 + 300 images per class); "
        "the full set: metaloss data fetch fashionmnist"
    )
    return join_splits("fashionmnist", train, test, CLASSES, origin)


def _split(images: Path, labels: Path, index: Path) -> Split:
    pixels, label = _idx.pair(images, labels, classes=len(CLASSES))
    order = torch.from_numpy(_idx.read(index, _idx.INDEX).astype("int64"))
    return Split(str(images), pixels[:, None], label, order)
