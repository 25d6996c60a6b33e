"""CIFAR-10: photographs of ten kinds of things, 32x32, colour (Krizhevsky 2009)."""

from metaloss.data.datasets import Dataset, _cifar

_SOURCE = _cifar.source(
    "cifar10",
    "CIFAR10",
    "cifar-10-batches-py",
    *(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
)


def load() -> Dataset:
    """The 50000 + 10000 photographs, from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder (170 MB)."""
    _SOURCE.fetch()
