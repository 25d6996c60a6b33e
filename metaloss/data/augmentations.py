"""Morgan's augmentations: base, cutout, mixup, RandAugment, all of them; drawn per image, on its
device.

Full-size training augments every batch anew, tasks of a family draw versions of their images once.
Every draw comes from the CPU, from the generator that is given or else from torch's own: who seeds
it before a batch repeats the batch, on any device.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from torch.nn import functional as F

LEVELS = 30  # RandAugment's magnitudes go from 0 to this
Images = UInt8[Tensor, "N K H W"]
Kind = Literal["none", "shift", "base", "cutout", "mixup", "randaug", "all"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """How images to train with are changed. Morgan gives the kinds but "shift" and none of their
    sizes: those are ours.

    Attributes:
        kind: "none"; "shift", pad and crop; "base", pad, crop and flip; "cutout", "mixup" or
            "randaug", base and that; "all", everything.
        pad: zeros on each side, in pixels, before a random crop of the image's own size.
        flip: mirror every second image; digits and letters want False.
        patch: side of the square that cutout sets to the mean colour, in pixels; a patch may stick
            out.
        alpha: of mixup's Beta(alpha, alpha).
        operations: how many operations RandAugment applies one after another (N).
        magnitude: how strong they are, of 0 to 30 (M).
    """

    kind: Kind = "none"
    pad: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    patch: Count = 16
    alpha: Positive = 1.0
    operations: Count = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9

    def has(self, part: str) -> bool:
        """Whether "base", "cutout", "mixup" or "randaug" is a part of this kind.

        "shift" is base without its mirror.
        """
        return self.kind != "none" and (part == "base" or self.kind in (part, "all"))

    @property
    def mirrors(self) -> bool:
        """Whether every second image is mirrored."""
        return self.flip and self.kind not in ("none", "shift")


def raw(images: Images, augment: Augmentation, generator: torch.Generator | None = None) -> Images:
    """What is done to images as they are stored: pad, crop and flip, then RandAugment."""
    if augment.has("base"):
        images = crop(images, augment.pad, augment.mirrors, generator)
    return (
        rand_augment(images, augment.operations, augment.magnitude, generator)
        if augment.has("randaug")
        else images
    )


def mixed(
    images: Float[Tensor, "N K H W"], labels: Tensor, classes: int, augment: Augmentation
) -> tuple[Tensor, Tensor]:
    """Normalised images and their labels after cutout and then mixup.

    Mixup makes distributions of the labels.
    """
    if augment.has("cutout"):
        images = cutout(images, augment.patch)
    if not augment.has("mixup"):
        return images, labels
    from torchvision.transforms import v2

    result: tuple[Tensor, Tensor] = v2.MixUp(alpha=augment.alpha, num_classes=classes)(
        images, labels
    )
    return result


def crop(images: Images, pad: int, flip: bool, generator: torch.Generator | None = None) -> Images:
    """Images shifted by up to `pad` pixels, zeros at the edge, and every second one mirrored."""
    n, _, height, width = images.shape
    down, right = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    # [N H], [N W]
    rows = down + torch.arange(height)
    columns = right + torch.arange(width)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    place = torch.arange(n)[:, None, None]
    index = (
        x.to(images.device, non_blocking=True)
        for x in (place, rows[:, :, None], columns[:, None, :])
    )
    a, b, c = index
    padded = F.pad(images, (pad,) * 4)
    return padded.permute(0, 2, 3, 1)[a, b, c].permute(0, 3, 1, 2)


def cutout(
    images: Float[Tensor, "N K H W"], patch: int, generator: torch.Generator | None = None
) -> Float[Tensor, "N K H W"]:
    """A square of each image set to 0, the mean colour (DeVries 2017).

    Its middle lies anywhere in the image.
    """
    n, _, height, width = images.shape
    top = torch.randint(height, (n, 1), generator=generator) - patch // 2
    left = torch.randint(width, (n, 1), generator=generator) - patch // 2
    y = torch.arange(height) - top
    x = torch.arange(width) - left
    inside = ((y >= 0) & (y < patch))[:, :, None] & ((x >= 0) & (x < patch))[:, None, :]
    return images.masked_fill(inside[:, None].to(images.device), 0.0)


def rand_augment(
    images: Images, operations: int, magnitude: int, generator: torch.Generator | None = None
) -> Images:
    """Images after several operations, drawn for each of them (Cubuk 2020).

    Images that drew the same operation are computed together.
    """
    n = len(images)
    images = images.clone()
    for _ in range(operations):
        drawn = torch.randint(len(OPERATIONS), (n,), generator=generator)
        sign = torch.randint(2, (n,), generator=generator) * 2 - 1
        for number, (operation, signed) in enumerate(OPERATIONS):
            for side in (-1, 1) if signed else (1,):
                same = (drawn == number) & (sign == side) if signed else drawn == number
                rows = same.nonzero()[:, 0].to(images.device)
                if len(rows):
                    images[rows] = operation(images[rows], side * magnitude / LEVELS)
    return images


def _sheared(images: Tensor, x: float, y: float) -> Tensor:
    from torchvision.transforms.v2 import functional as v2

    tilt = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    moved: Tensor = v2.affine(
        images, angle=0.0, translate=[0, 0], scale=1.0, shear=tilt, center=[0.0, 0.0]
    )
    return moved


def _shifted(images: Tensor, x: float, y: float) -> Tensor:
    """Moved by shares of the longest shift."""
    from torchvision.transforms.v2 import functional as v2

    height, width = images.shape[-2:]
    by = [int(REACH * width * x), int(REACH * height * y)]
    moved: Tensor = v2.affine(images, angle=0.0, translate=by, scale=1.0, shear=[0.0, 0.0])
    return moved


def _rotated(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as v2

    turned: Tensor = v2.rotate(images, angle=30 * strength)
    return turned


def _by_factor(name: str) -> Callable[[Tensor, float], Tensor]:
    """torchvision's `adjust_<name>` by a factor that 0.9 at most is added to or taken from."""

    def adjust(images: Tensor, strength: float) -> Tensor:
        from torchvision.transforms.v2 import functional as v2

        adjusted: Tensor = getattr(v2, f"adjust_{name}")(images, 1 + 0.9 * strength)
        return adjusted

    return adjust


def _plain(name: str) -> Callable[[Tensor, float], Tensor]:
    """torchvision's operation of that name, which has no strength."""

    def apply(images: Tensor, _: float) -> Tensor:
        from torchvision.transforms.v2 import functional as v2

        done: Tensor = getattr(v2, name)(images)
        return done

    return apply


def _posterize(images: Tensor, strength: float) -> Tensor:
    """The upper 8 to 4 bits."""
    from torchvision.transforms.v2 import functional as v2

    posterized: Tensor = v2.posterize(images, 8 - round(4 * strength))
    return posterized


def _solarize(images: Tensor, strength: float) -> Tensor:
    """What is brighter than a threshold, turned over."""
    from torchvision.transforms.v2 import functional as v2

    solarized: Tensor = v2.solarize(images, 255 * (1 - strength))
    return solarized


REACH = 150 / 331  # of an image's side, the longest shift
# Operation and whether its strength, of -1 to 1, has a sign; Cubuk's list with torchvision's
# ranges.
OPERATIONS: tuple[tuple[Callable[[Tensor, float], Tensor], bool], ...] = (
    (lambda images, s: images, False),
    (lambda images, s: _sheared(images, 0.3 * s, 0.0), True),
    (lambda images, s: _sheared(images, 0.0, 0.3 * s), True),
    (lambda images, s: _shifted(images, s, 0.0), True),
    (lambda images, s: _shifted(images, 0.0, s), True),
    (_rotated, True),
    *((_by_factor(name), True) for name in ("brightness", "saturation", "contrast", "sharpness")),
    (_posterize, False),
    (_solarize, False),
    (_plain("autocontrast"), False),
    (_plain("equalize"), False),
)
