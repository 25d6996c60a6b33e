"""Warnings about images that can be read but may not show what the user meant."""

import warnings

import torch
from jaxtyping import UInt8
from torch import Tensor

from metaloss.errors import DataWarning

FEW = 16  # grey levels: a set with no more is worth a warning
BLOCK = 4096  # images that are examined together


def warn_of(text: str) -> None:
    """Issue a `DataWarning`."""
    warnings.warn(text, DataWarning, stacklevel=3)


def warn_of_poor_images(name: str, pixels: UInt8[Tensor, "N K H W"]) -> None:
    """Warn of constant images, of equal images and of few grey levels, in one line."""
    n = len(pixels)
    constant = sum(int(is_constant(part).sum()) for part in pixels.split(BLOCK))
    faults = []
    if constant:
        faults.append(f"{constant} of {n} images are constant: all pixels of one are alike")
    if n > 1 and all(bool((part == pixels[:1]).all()) for part in pixels.split(BLOCK)):
        faults.append(f"all {n} images are equal")
    if (levels := _levels(pixels)) <= FEW:
        faults.append(f"the images have {levels} of 256 grey levels")
    if faults:
        warn_of(f"{name}: {'; '.join(faults)}")


def is_constant(pixels: UInt8[Tensor, "N K H W"]) -> Tensor:
    """Which images have one value in each channel, [N]."""
    channels = pixels.flatten(2)
    return (channels.amin(-1) == channels.amax(-1)).all(-1)


def _levels(pixels: UInt8[Tensor, "N K H W"]) -> int:
    """How many of the 256 values occur; counting stops when there are more than FEW."""
    seen = torch.zeros(256, dtype=torch.bool)
    for part in pixels.split(BLOCK):
        seen |= part.flatten().bincount(minlength=256) > 0
        if seen.sum() > FEW:
            break
    return int(seen.sum())
