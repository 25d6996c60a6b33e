"""A user's folder of few, uneven images, cut from Fashion-MNIST: pullovers, coats and shirts.

    python benchmarks/user_folder.py FOLDER [--seed 0]

It makes `FOLDER/train` with 120 pullovers, 45 coats and 18 shirts of the official training split,
drawn by the seed, and `FOLDER/test` with 300 of each from the official test split, the same for
every seed. Measurements take them from the full Fashion-MNIST (`metaloss data fetch fashionmnist`,
or Debian's package dataset-fashion-mnist); without it they come from the subset that metaloss
embeds, and are other images.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset, fashionmnist

TRAIN = {"Pullover": 120, "Coat": 45, "Shirt": 18}
TEST = 300  # of each


def cut(folder: Path, seed: int) -> None:
    """Write the images of one draw."""
    dataset = fashionmnist.load()
    for name, n in TRAIN.items():
        for split, official, most in (("train", False, n), ("test", True, TEST)):
            rows = torch.nonzero(
                (dataset.labels == fashionmnist.CLASSES.index(name)) & (dataset.test == official)
            )[:, 0]
            if not official:
                rows = rows[Stream(seed).at("user folder", name).permutation(len(rows))]
            _write(dataset, rows[:most], folder / split / name.lower())


def _write(dataset: Dataset, rows: torch.Tensor, folder: Path) -> None:
    folder.mkdir(parents=True)
    for row in rows.tolist():
        Image.fromarray(dataset.pixels[row, 0].numpy()).save(folder / f"{row:05}.png")


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    cut(asked.folder, asked.seed)


if __name__ == "__main__":
    main()
