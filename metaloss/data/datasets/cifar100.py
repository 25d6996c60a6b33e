"""CIFAR-100: photographs of 100 kinds of things, 32x32, colour, fine labels (Krizhevsky 2009)."""

from metaloss.data.datasets import Dataset, _cifar

_SOURCE = _cifar.source("cifar100", "CIFAR100", "cifar-100-python", "train", "test")


def load() -> Dataset:
    """The 50000 + 10000 photographs, from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder (169 MB)."""
    _SOURCE.fetch()
