"""Versions of a task's training images: the image itself and augmented ones, drawn once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.augmentations import Augmentation, Kind, cutout, raw
from metaloss.data.shapes import table_of
from metaloss.errors import SettingsError

KINDS = tuple(kind for kind in get_args(Kind) if kind != "none")


def _kind(value: Any) -> Any:
    if value not in KINDS:
        raise ValueError(registry.unknown_message("augmentation", str(value), KINDS))
    return value


def _copies(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        raise ValueError(
            "expected a whole number of at least 2, the image itself and one that is changed, "
            f"got {value!r}"
        )
    return value


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TaskAugment(Augmentation):
    """How the versions of a task's training images are made.

    Attributes:
        copies: versions of every image; the first is the image itself.
        all: whether a step trains on all of them; else on one version of each of its images.
    """

    # Without a field of its own it would have the default of the class above.
    kind: Annotated[Kind, BeforeValidator(_kind)] = Field()
    copies: Annotated[int, BeforeValidator(_copies)] = 8
    all: bool = False

    @model_validator(mode="after")
    def _changes(self) -> "TaskAugment":
        if self.kind == "shift" and not self.pad:
            raise ValueError("pad = 0 shifts nothing; it must be at least 1")
        return self

    def __str__(self) -> str:
        return f"{self.copies} versions of every image ({self.kind})"


def _augment(value: Any) -> Any:
    if value is None or isinstance(value, TaskAugment):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, dict):
        return table_of(TaskAugment, value)
    raise ValueError(f'expected {{ kind = "shift", copies = 8 }}, got {value!r}')


TaskAugmentation = Annotated[TaskAugment | None, BeforeValidator(_augment)]


def check_size(augment: TaskAugment, height: int, width: int) -> None:
    """Refuse what would leave nothing of an image.

    Raises:
        SettingsError: names the setting, its value and the images' size.
    """
    side = min(height, width)
    sizes = {"base": "pad", "cutout": "patch"}
    for part, name in sizes.items():
        value = getattr(augment, name)
        if augment.has(part) and value >= side:
            raise SettingsError(
                f"augment: {name} = {value} must be below the side of the images, which are "
                f"{height}x{width} pixels"
            )


@dataclass(frozen=True)
class Versions:
    """The versions of T tasks' training images, side by side: a task's rows are image by image.

    Attributes:
        augment: how they are made.
        keys: of every task; its versions are drawn from this alone.
    """

    augment: TaskAugment
    keys: tuple[Stream, ...]

    def __getitem__(self, tasks: slice | Int64[Tensor, " t"]) -> "Versions":
        if isinstance(tasks, slice):
            return Versions(self.augment, self.keys[tasks])
        return Versions(self.augment, tuple(self.keys[t] for t in tasks.tolist()))

    @property
    def copies(self) -> int:
        """Rows of every image."""
        return self.augment.copies

    def images(
        self,
        task: int,
        pixels: UInt8[Tensor, "B K H W"],
        normalised: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "B_copies K H W"]:
        """All versions of a task's B images, normalised.

        Args:
            task: its place among the tasks.
            pixels: its images.
            normalised: what pixels become before they are cut out and mixed.
        """
        augment = self.augment
        generator = self.keys[task].at("change").generator()
        more = augment.copies - 1
        changed = normalised(raw(pixels.repeat_interleave(more, 0), augment, generator))
        if augment.has("cutout"):
            changed = cutout(changed, augment.patch, generator)
        # [B copies-1 K H W]
        changed = changed.unflatten(0, (-1, more))
        if augment.has("mixup"):
            other, share = self._mixture(task, len(pixels))
            place = torch.arange(more)
            share = share[:, :, None, None, None].to(changed)
            changed = share * changed + (1 - share) * changed[other, place]
        return torch.cat([normalised(pixels)[:, None], changed], 1).flatten(0, 1)

    def targets(self, task: int, target: Float[Tensor, "B C"]) -> Float[Tensor, "B_copies C"]:
        """The labels of all versions of a task's B images as distributions; mixed ones are soft.

        Args:
            task: its place among the tasks.
            target: the labels of its images.
        """
        copies = target.repeat_interleave(self.copies, 0)
        if not self.augment.has("mixup"):
            return copies
        versions = copies.unflatten(0, (-1, self.copies))
        other, share = self._mixture(task, len(target))
        share = share[..., None].to(target)
        versions[:, 1:] = share * versions[:, 1:] + (1 - share) * target[other.to(target.device)]
        return copies

    def _mixture(self, task: int, images: int) -> tuple[Int64[Tensor, "B V"], Float[Tensor, "B V"]]:
        """Which image each changed version is mixed with, and its own share in the mixture.

        It is mixed with the same version of another image; shares are drawn from
        Beta(alpha, alpha) (Zhang 2018).
        """
        key = self.keys[task].at("mix")
        shape = images, self.copies - 1
        # Adding 1 ... B-1 modulo B never gives the same image again.
        step = 1 + key.at("other").integers(images - 1, *shape)
        other = (torch.arange(images)[:, None] + step) % images
        draw = key.at("share").python_rng()
        alpha = self.augment.alpha
        share = [draw.betavariate(alpha, alpha) for _ in range(images * (self.copies - 1))]
        return other, torch.tensor(share).view(shape)
