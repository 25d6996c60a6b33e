"""What a user should know of images that can be read and may not show what was meant, each said as a `DataWarning`."""

import warnings

import torch
from jaxtyping import UInt8
from torch import Tensor

from metaloss.errors import DataWarning

FEW = 16  # grey levels; what has no more of them is worth a look
BLOCK = 4096  # images that are looked at at once


def warn_of(text: str) -> None:
    """Say something about the data, once for each text."""
    warnings.warn(text, DataWarning, stacklevel=3)


def warn_of_poor_images(name: str, pixels: UInt8[Tensor, "N K H W"]) -> None:
    """Say in one line how many images are constant, whether all are equal, and whether there are few grey levels."""
    n = len(pixels)
    constant = sum(int(_constant(part).sum()) for part in pixels.split(BLOCK))
    found = []
    if constant:
        found.append(f"{constant} of {n} images are constant: all pixels of one are alike")
    if n > 1 and all(bool((part == pixels[:1]).all()) for part in pixels.split(BLOCK)):
        found.append(f"all {n} images are equal")
    if (levels := _levels(pixels)) <= FEW:
        found.append(f"the images have {levels} of 256 grey levels")
    if found:
        warn_of(f"{name}: {'; '.join(found)}")


def _constant(pixels: UInt8[Tensor, "N K H W"]) -> Tensor:
    channels = pixels.flatten(2)
    return (channels.amin(-1) == channels.amax(-1)).all(-1)


def _levels(pixels: UInt8[Tensor, "N K H W"]) -> int:
    """How many of the 256 values occur; no more is counted once there are many."""
    seen = torch.zeros(256, dtype=torch.bool)
    for part in pixels.split(BLOCK):
        seen |= part.flatten().bincount(minlength=256) > 0
        if seen.sum() > FEW:
            break
    return int(seen.sum())
