"""A user's folder of few images, cut from Fashion-MNIST.

    python benchmarks/user_folder.py FOLDER [--seed 0] [--kind uneven|easy|alike]

It makes `FOLDER/train` of images of the official training split, drawn by the seed, and
`FOLDER/test` with 300 of each class from the official test split, the same for every seed. What is
in it says `--kind`:

    uneven  120 pullovers, 45 coats and 18 shirts, which look alike: another loss helps
    easy    60 trousers, 60 bags and 60 boots, which do not: nothing is left to gain
    alike   60 pullovers in each of three classes: nothing can be learned

Measurements take them from the full Fashion-MNIST (`metaloss data fetch fashionmnist`,
or Debian's package dataset-fashion-mnist); without it they come from the subset that metaloss
embeds, and are other images.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset, fashionmnist

# Of each class of a folder: what its images show, and how many are to train on.
TRAIN = {"Pullover": 120, "Coat": 45, "Shirt": 18}
KINDS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "uneven": {name.lower(): (name, n) for name, n in TRAIN.items()},
    "easy": {"trouser": ("Trouser", 60), "bag": ("Bag", 60), "boot": ("Ankle boot", 60)},
    "alike": dict.fromkeys(("first", "second", "third"), ("Pullover", 60)),
}
TEST = 300  # of each


def cut(folder: Path, seed: int, kind: str = "uneven") -> None:
    """Write the images of one draw.

    Args:
        folder: gets `train` and `test`.
        seed: of the draw.
        kind: what is drawn, a key of `KINDS`.
    """
    dataset = fashionmnist.load()
    for split, official in (("train", False), ("test", True)):
        used: dict[str, int] = {}  # of what images show, how many are in a class already
        for name, (shown, n) in KINDS[kind].items():
            rows = drawn_rows(dataset, shown, official, seed)
            first = used.get(shown, 0)
            last = first + (TEST if official else n)
            _write(dataset, rows[first:last], folder / split / name)
            used[shown] = last


def drawn_rows(dataset: Dataset, shown: str, official: bool, seed: int) -> torch.Tensor:
    """The images of a class of Fashion-MNIST, in the order in which they are taken.

    Args:
        dataset: Fashion-MNIST.
        shown: its class.
        official: of its test split, which is in the same order for every seed.
        seed: of the draw.
    """
    label = fashionmnist.CLASSES.index(shown)
    rows = torch.nonzero((dataset.labels == label) & (dataset.test == official))[:, 0]
    if official:
        return rows
    return rows[Stream(seed).at("user folder", shown).permutation(len(rows))]


def _write(dataset: Dataset, rows: torch.Tensor, folder: Path) -> None:
    folder.mkdir(parents=True)
    for row in rows.tolist():
        Image.fromarray(dataset.pixels[row, 0].numpy()).save(folder / f"{row:05}.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, default="uneven")
    asked = parser.parse_args(arguments)
    cut(asked.folder, asked.seed, asked.kind)


if __name__ == "__main__":
    main()
