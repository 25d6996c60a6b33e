"""MNIST: handwritten digits, 28x28 (LeCun 1998)."""

from metaloss.data.datasets import Dataset, _mnist

_SOURCE = _mnist.MnistSource("mnist", "MNIST", classes=tuple("0123456789"))


def load() -> Dataset:
    """The 60000 + 10000 digits, from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder."""
    _SOURCE.fetch()
