"""Digits: 1797 handwritten digits, 8x8, that come with scikit-learn (Alpaydin 1998)."""

import torch

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._splits import Split, join_splits
from metaloss.errors import DataError


def load() -> Dataset:
    """The digits of scikit-learn; they have no official test split.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "digits: these images come with scikit-learn: pip install scikit-learn"
        ) from error
    bunch = load_digits()
    # Stored as 0 ... 16; times 15 is the largest whole factor that stays within a byte.
    pixels = (torch.from_numpy(bunch.images) * 15).to(torch.uint8)[:, None]
    labels = torch.as_tensor(bunch.target, dtype=torch.int64)
    train = Split("scikit-learn's digits", pixels, labels)
    return join_splits("digits", train, None, tuple("0123456789"), "full set, part of scikit-learn")
