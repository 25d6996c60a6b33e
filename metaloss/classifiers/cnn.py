"""A small convolutional network, stacked over candidates and tasks: convolution and pooling stages, a linear head."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from torch.nn import functional as F

from metaloss.classifiers import Bound, Params
from metaloss.streams import Stream
from metaloss.tasks import Tasks

__all__ = ["Cnn"]

Width = Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True)
class Patches:
    """The windows that the first convolution sees; the population shares them."""

    windows: Float[Tensor, "T N L D"]  # L places, D numbers in a window
    size: tuple[int, int]

    def block(self, images: slice) -> "Patches":
        """Some of the images of every task."""
        return Patches(self.windows[:, images], self.size)

    def __len__(self) -> int:
        return self.windows.shape[1]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Cnn:
    """Stages of a padded convolution, ReLU and 2×2 max pooling, then a linear layer; `torch.nn`'s initialisation.

    Convolutions are products of unfolded windows, so no candidate shares a kernel or a statistic with another.
    """

    filters: Annotated[tuple[Width, ...], Field(min_length=1, max_length=4)] = (8, 16)
    kernel: Annotated[int, Field(ge=1, le=9)] = 3

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """Unfolded images, and weights and biases uniform within ±1/√fan-in."""
        train, val = self._patches(tasks.train.x()), self._patches(tasks.val.x())
        image = tasks.train.images.pixels.shape[1:]
        start = {
            name: torch.stack([key.at(name).uniform(*shape, low=-bound, high=bound) for key in keys]).to(train.windows)
            for name, (shape, bound) in self.shapes(tuple(image), tasks.ways).items()
        }
        return Bound(train, val, start)

    def __call__(self, params: Params, inputs: Patches) -> Float[Tensor, "P T N C"]:
        """The logits."""
        P, T = params["b0"].shape[:2]
        N, size = len(inputs), inputs.size
        windows = inputs.windows.flatten(1, 2)  # [T N·L W]
        for i, filters in enumerate(self.filters):
            z = windows @ params[f"w{i}"] + params[f"b{i}"]  # [P T N·L filters]
            x = z.reshape(P * T * N, *size, filters).permute(0, 3, 1, 2)
            x = F.max_pool2d(x, 2, ceil_mode=True).relu()  # in this order: a quarter of the work, the same result
            size = (x.shape[2], x.shape[3])
            if i + 1 < len(self.filters):
                windows = self._unfold(x).reshape(P, T, N * size[0] * size[1], -1)
        return x.reshape(P, T, N, -1) @ params["w_head"] + params["b_head"]

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """Numbers that one image leaves in the layers, windows included."""
        total, (channels, height, width) = classes, image
        for filters in self.filters:
            total += height * width * (channels * self.kernel**2 + 2 * filters)
            channels, height, width = filters, -(-height // 2), -(-width // 2)
        return total

    def shapes(self, image: tuple[int, ...], classes: int) -> dict[str, tuple[tuple[int, int], float]]:
        """Shape and initial bound of every parameter."""
        shapes, (channels, height, width) = {}, image
        for i, filters in enumerate(self.filters):
            fan_in = channels * self.kernel**2
            shapes[f"w{i}"] = (fan_in, filters), 1 / math.sqrt(fan_in)
            shapes[f"b{i}"] = (1, filters), 1 / math.sqrt(fan_in)
            channels, height, width = filters, -(-height // 2), -(-width // 2)
        fan_in = channels * height * width
        shapes["w_head"] = (fan_in, classes), 1 / math.sqrt(fan_in)
        shapes["b_head"] = (1, classes), 1 / math.sqrt(fan_in)
        return shapes

    def _patches(self, x: Float[Tensor, "T N K H W"]) -> Patches:
        T, N, _, height, width = x.shape
        windows = self._unfold(x.flatten(0, 1))
        return Patches(windows.reshape(T, N, height * width, -1), (height, width))

    def _unfold(self, x: Float[Tensor, "M K H W"]) -> Float[Tensor, "M L D"]:
        """Every place's window; an even kernel looks one place further right and down."""
        before, after = (self.kernel - 1) // 2, self.kernel // 2
        padded = F.pad(x, (before, after, before, after))
        return (
            padded.unfold(2, self.kernel, 1)
            .unfold(3, self.kernel, 1)
            .permute(0, 2, 3, 1, 4, 5)
            .flatten(3)
            .flatten(1, 2)
        )
