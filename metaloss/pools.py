"""Three pools of images that never mix: meta-training, meta-validation and meta-test."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt64
from torch import Tensor

from metaloss.datasets import Dataset
from metaloss.datasets._files import Files

# Fixed for good: another salt would move images between pools, and old results would have seen their test images.
SALT = 0x6D65_7461_6C6F_7373  # "metaloss"


@dataclass(frozen=True, eq=False)
class Pool:
    """The images tasks may be drawn from.

    Attributes:
        rows: Per class, rows of `dataset.pixels` in ascending order of their hash.
    """

    rows: tuple[Int64[Tensor, " _"], ...]


def pools(dataset: Dataset | Files) -> dict[str, Pool]:
    """The pools "train", "validation" and "test" (meta-training, ...), disjoint, the same for every seed of a run.

    Per class, images stand in the order of a hash of their official index. With an official test split, the first 4/7
    of the training split are for meta-training and the rest for meta-validation. Without one, 60, 20 and 20 %.
    """
    order = torch.from_numpy(np.argsort(hashes(dataset.index), kind="stable"))
    per_class = [order[dataset.labels[order] == label] for label in range(len(dataset.classes))]
    cuts = [_cut(rows, dataset.test[rows], bool(dataset.test.any())) for rows in per_class]
    train, validation, test = zip(*cuts, strict=True)
    return {"train": Pool(train), "validation": Pool(validation), "test": Pool(test)}


def hashes(index: Int64[Tensor, " N"]) -> UInt64[np.ndarray, " N"]:
    """Output number `index` (from 0) of the generator splitmix64 seeded with SALT (Steele 2014); no two are equal."""
    # Unsigned arrays wrap around silently, which is what the algorithm asks for.
    z = (index.numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SALT)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _cut(rows: Tensor, official: Tensor, has_test: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One class's rows for training, validation and test; `official` marks those of the official test split."""
    if has_test:
        rest = rows[~official]
        n = round(len(rest) * 4 / 7)
        return rest[:n], rest[n:], rows[official]
    fifth = round(len(rows) / 5)
    n = len(rows) - 2 * fifth
    return rows[:n], rows[n : n + fifth], rows[n + fifth :]
