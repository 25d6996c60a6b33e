"""EMNIST, split "balanced": handwritten digits and letters in 47 classes, 28x28 (Cohen 2017).

Fifteen lower-case letters that look like their capitals (c, i, j, ...) share the capital's class.
"""

from metaloss.data.datasets import Dataset, _mnist

_CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
_SOURCE = _mnist.MnistSource(
    "emnist",
    "EMNIST",
    _CLASSES,
    prefixes=("emnist-balanced-train", "emnist-balanced-test"),
    options=(("split", "balanced"),),
    # The files hold every image with rows and columns exchanged.
    upright=lambda images: images.mT,
)


def load() -> Dataset:
    """The 112800 + 18800 characters, upright, from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder (one archive of all splits, 540 MB)."""
    _SOURCE.fetch()
