"""KMNIST: ten handwritten cursive Japanese characters, 28x28 (Clanuwat 2018)."""

from metaloss.data.datasets import Dataset, _mnist

_SOURCE = _mnist.MnistSource(
    "kmnist", "KMNIST", classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
)


def load() -> Dataset:
    """The 60000 + 10000 characters, from the user's data folder."""
    return _SOURCE.load()


def fetch() -> None:
    """Download into the user's data folder."""
    _SOURCE.fetch()
