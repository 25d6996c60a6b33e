"""A small convolutional network, stacked over candidates and tasks: convolution and pooling stages,
a linear head.

Memory runs over images, then places, then the channels of all classifiers side by side ("channels
last"): one grouped convolution serves the population, and pooling compares long rows of channels.
In the first stage a group is a task, whose candidates see the same images; later it is a
classifier, so that none sees another's kernels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import (
    Bound,
    Gradients,
    LogitGradient,
    Params,
    Scale,
    backpropagate,
)

__all__ = ["Cnn"]

Width = Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True)
class Pixels:
    """Images of T tasks; the population shares them."""

    x: Float[Tensor, "N H W T K"]

    @classmethod
    def of(cls, x: Float[Tensor, "N H W T K"]) -> "Pixels":
        """A copy whose memory has this order.

        `contiguous` would leave axes of length one whatever stride they have, and convolutions take
        their own memory's order from that.
        """
        return cls(x.clone(memory_format=torch.contiguous_format))

    def block(self, images: slice) -> "Pixels":
        """Some of the images of every task."""
        return Pixels(self.x[images])

    def minibatch(self, index: Int[Tensor, "T b"]) -> "Pixels":
        """A minibatch of each task's images."""
        task = torch.arange(len(index), device=index.device)
        return Pixels.of(self.x[index.mT, :, :, task].movedim(1, 3))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' images, side by side."""
        return cls(torch.cat([part.x for part in parts], 3))

    def __len__(self) -> int:
        return len(self.x)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Cnn:
    """Stages of a padded convolution, ReLU and 2×2 max pooling, then a linear layer.

    Parameters have the shapes and initialisation of `torch.nn`'s layers. An even kernel looks one
    place further right and down.

    Attributes:
        filters: of the convolution of each stage.
        kernel: side of its window, in pixels.
        init_scale: what initial weights and biases are multiplied by.
    """

    filters: Annotated[tuple[Width, ...], Field(min_length=1, max_length=4)] = (8, 16)
    kernel: Annotated[int, Field(ge=1, le=9)] = 3
    init_scale: Scale = 1.0

    widths: ClassVar[str] = "filters"
    in_span: ClassVar[bool] = False

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """The images, and weights and biases uniform within ±1/√fan-in."""
        train, val = (
            Pixels.of(split.x().permute(1, 3, 4, 0, 2)) for split in (tasks.train, tasks.val)
        )
        image = tasks.train.images.shape
        return Bound(train, val, self.draw(train.x, image, tasks.ways, keys))

    def __call__(self, params: Params, inputs: Pixels) -> Float[Tensor, "P T N C"]:
        """The logits; in memory, the images of a class are neighbours."""
        P, T = params["b0"].shape[:2]
        # [N, T·K, H, W]
        x = inputs.x.flatten(3).permute(0, 3, 1, 2)
        groups = T
        for i in range(len(self.filters)):
            w = params[f"w{i}"].transpose(0, 1).flatten(0, 2)
            b = params[f"b{i}"].transpose(0, 1).flatten()
            if self.kernel % 2 == 0:
                # An odd kernel, centred, that has nothing to the left and above.
                w = F.pad(w, (1, 0, 1, 0))
            # [N, T·P·filters, h, w]
            x = PooledConvolution.apply(x, w, b, groups)
            groups = T * P
        height, width = x.shape[2:]
        # [T·P, N, h·w·filters].
        h = x.permute(0, 2, 3, 1).unflatten(3, (T * P, -1)).permute(3, 0, 1, 2, 4).flatten(2)
        # The weights follow the maps' order, places before filters: they are fewer.
        w = (
            params["w_head"]
            .unflatten(3, (-1, height * width))
            .mT.transpose(0, 1)
            .flatten(3)
            .flatten(0, 1)
        )
        b = params["b_head"].transpose(0, 1).flatten(0, 1).unsqueeze(2)
        result: Tensor = (
            torch.baddbmm(b, w, h.mT).unflatten(0, (T, P)).transpose(0, 1).contiguous().mT
        )
        return result

    def gradients(self, params: Params, inputs: Pixels, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters."""
        return backpropagate(self, params, inputs, slope)

    def draw(
        self, like: Tensor, image: tuple[int, ...], classes: int, keys: list[Stream]
    ) -> Params:
        """Every task's initial parameters [T, ...], in the type and on the device of `like`."""
        return {
            name: torch.stack(
                [key.at(name).uniform(*shape, low=-bound, high=bound) for key in keys]
            ).to(like)
            for name, (shape, bound) in self.shapes(image, classes).items()
        }

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """A third of the numbers in one image's maps, and its logits.

        Plans count a number three times: its value, what autograd saves, its gradient. Here all
        take one place.
        """
        return -(-self.map_numbers(image) // 3) + classes

    def map_numbers(self, image: tuple[int, ...]) -> int:
        """How many numbers the maps of all layers hold for one image."""
        total, (_, height, width) = 0, image
        for filters in self.filters:
            total += height * width * filters
            height = -(-height // 2)
            width = -(-width // 2)
        return total

    def shapes(
        self, image: tuple[int, ...], classes: int
    ) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape and initial bound of every parameter."""
        shapes: dict[str, tuple[tuple[int, ...], float]] = {}
        channels, height, width = image
        for i, filters in enumerate(self.filters):
            bound = self.init_scale / math.sqrt(channels * self.kernel**2)
            shapes[f"w{i}"] = (filters, channels, self.kernel, self.kernel), bound
            shapes[f"b{i}"] = (filters,), bound
            channels = filters
            height = -(-height // 2)
            width = -(-width // 2)
        fan_in = channels * height * width
        bound = self.init_scale / math.sqrt(fan_in)
        shapes["w_head"] = (classes, fan_in), bound
        shapes["b_head"] = (classes,), bound
        return shapes


class PooledConvolution(torch.autograd.Function):
    """Convolution, 2×2 max pooling, ReLU: in this order ReLU has a quarter of the work, with the
    same result.

    Memory traffic is what costs here. `max_pool2d` would write 64-bit indices; backward needs no
    more of a pair than which number is the greater, so the pair's difference takes the place of
    one, and later both places the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "N K H W"],
        w: Float[Tensor, "F k d d"],
        b: Float[Tensor, " F"],
        groups: int,
    ) -> Float[Tensor, "N F h w"]:
        """The pooled maps."""
        z = F.conv2d(x, w, b, padding=w.shape[-1] // 2, groups=groups)
        if z.shape[2] % 2 or z.shape[3] % 2:
            z = F.pad(z, (0, z.shape[3] % 2, 0, z.shape[2] % 2))  # zeros change nothing below ReLU
        left = z[..., ::2]
        right = z[..., 1::2]
        pairs = torch.maximum(left, right)
        top = pairs[..., ::2, :]
        bottom = pairs[..., 1::2, :]
        y = torch.maximum(top, bottom).relu_()
        if any(ctx.needs_input_grad):
            right -= left
            bottom -= top
            ctx.groups = groups
            ctx.save_for_backward(x, w, z, pairs, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """The gradients of x, w and b.

        Of equal neighbours the first takes the whole gradient, as in `torch.nn`.
        """
        x, w, z, pairs, y = ctx.saved_tensors
        g = positive(grads[0].contiguous(memory_format=torch.channels_last), y)
        share(g, pairs[..., ::2, :], pairs[..., 1::2, :])
        share(pairs, z[..., ::2], z[..., 1::2])
        # Without the padding that made the sides even.
        z = z[..., : x.shape[2], : x.shape[3]]
        sides = w.shape[-1] // 2
        groups = ctx.groups
        dx = (
            F.conv_transpose2d(z, w, padding=sides, groups=groups)
            if ctx.needs_input_grad[0]
            else None
        )
        return (
            dx,
            conv2d_weight(x, w.shape, z, padding=sides, groups=groups),
            g.sum((0, 2, 3)),
            None,
        )


def positive(x: Tensor, at: Tensor) -> Tensor:
    """The numbers of x where `at` is positive, else zero.

    ReLU's own kernel computes it, ten times as fast as a boolean mask.
    """
    result: Tensor = torch.ops.aten.threshold_backward(x, at, 0)
    return result


def share(x: Tensor, first: Tensor, second: Tensor) -> None:
    """Write every number of x to one of a pair: the second where that is positive, else the first.

    The second holds the pair's difference, so it is positive where the second number was the
    greater.
    """
    torch.ops.aten.threshold_backward(x, second, 0, grad_input=second)
    torch.sub(x, second, out=first)
