"""Photos: images and labels in one file, photos.npz, in the user's data folder."""

import numpy as np
import torch

from metaloss import Dataset, Split, data_folder, join_splits
from metaloss.errors import DataError


def load() -> Dataset:
    """The photos; they have no official test split.

    Raises:
        DataError: the file is missing, or its images and labels do not fit each other.
    """
    path = data_folder() / "photos.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            # uint8 [N K H W], numbers of classes [N]
            images = file["images"]
            label = file["label"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    split = Split(str(path), torch.from_numpy(images), torch.from_numpy(label).long())
    return join_splits("photos", split, None, ("cat", "dog", "owl"), f"full set, {path}")
