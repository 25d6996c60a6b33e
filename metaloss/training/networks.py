"""The papers' own small networks, for images of any size that leaves something after pooling."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """The loss report's network: two 3x3 convolutions with max-pooling, two linear layers.

    Its first linear layer takes 8·6·6 numbers at 32x32 pixels, and as many as there are at other
    sizes.
    """

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = (((n - 2) // 2 - 2) // 2 for n in size)
        if min(height, width) < 1:
            raise ValueError(
                f"images of {size[0]}x{size[1]} are used up by two convolutions and poolings"
            )
        self.first, self.second = nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 8, 3)
        self.hidden, self.head = nn.Linear(8 * height * width, 32), nn.Linear(32, classes)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
        """The logits."""
        for layer in (self.first, self.second):
            x = F.max_pool2d(layer(x).relu(), 2)
        result: Tensor = self.head(self.hidden(x.flatten(1)).relu())
        return result


def _unit(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    """A 3x3 convolution with batch normalisation, ReLU and, if asked, 2x2 max-pooling."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """What some layers add to their input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x and what the layers make of it."""
        out: Tensor = x + self.layers(x)
        return out


class ResNet9(nn.Module):
    """Nine layers with 6.6 million parameters; name and number are Morgan's, the layout is ours."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        if min(size) < 8:
            raise ValueError(f"images of {size[0]}x{size[1]} are used up by three poolings")
        self.features = nn.Sequential(
            _unit(channels, 64),
            _unit(64, 128, pool=True),
            Residual(_unit(128, 128), _unit(128, 128)),
            _unit(128, 256, pool=True),
            _unit(256, 512, pool=True),
            Residual(_unit(512, 512), _unit(512, 512)),
            nn.AdaptiveMaxPool2d(1),
        )
        self.head = nn.Linear(512, classes)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
        """The logits."""
        out: Tensor = self.head(self.features(x).flatten(1))
        return out


class Wide(nn.Module):
    """A block of a wide residual network: normalisation and ReLU before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.between = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        ready = self.before(x).relu()
        out: Tensor = self.second(self.between(self.first(ready)).relu())
        return out + (x if self.shortcut is None else self.shortcut(ready))


class WideResNet(nn.Module):
    """A wide residual network (Zagoruyko 2016): 28 layers, 10 times as wide, no dropout.

    It has 36.5 million parameters.
    """

    def __init__(
        self, channels: int, classes: int, size: tuple[int, int], depth: int = 28, widen: int = 10
    ) -> None:
        super().__init__()
        if min(size) < 4:
            raise ValueError(f"images of {size[0]}x{size[1]} are used up by two halvings")
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        blocks: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)]
        for group in range(3):
            for i in range((depth - 4) // 6):
                inputs = widths[group] if i == 0 else widths[group + 1]
                blocks.append(Wide(inputs, widths[group + 1], stride=2 if group and i == 0 else 1))
        self.features = nn.Sequential(*blocks, nn.BatchNorm2d(widths[3]), nn.ReLU())
        self.head = nn.Linear(widths[3], classes)
        self.apply(_start)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
        """The logits."""
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


@torch.no_grad()
def _start(layer: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out for convolutions (He 2015)."""
    if isinstance(layer, nn.Conv2d):
        layer.weight.normal_(
            0, math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]))
        )


class LinearHead(nn.Module):
    """One linear layer, on features of a frozen network, or on pixels; it starts at 0."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.head = nn.Linear(channels * size[0] * size[1], classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
        """The logits."""
        result: Tensor = self.head(x.flatten(1))
        return result


class MlpHead(nn.Module):
    """One hidden layer, 128 wide; mlp-256-64 has two, of these widths. On features, or on pixels.

    Args:
        channels, classes, size: of what it is fed, and how many it tells apart.
        hidden: widths of the hidden layers.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: tuple[int, int],
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__()
        widths = (channels * size[0] * size[1], *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
        """The logits."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        result: Tensor = self.head(x)
        return result


HEADS = {"linear": LinearHead, "mlp": MlpHead}  # what takes features
NETWORKS = {"convnet": ConvNet, "resnet9": ResNet9, "wrn-28-10": WideResNet, **HEADS}
_MLP = re.compile(r"mlp((?:-[1-9]\d{0,4}){1,16})")  # its widths, one to sixteen


def mlp_of(name: str) -> Callable[..., nn.Module] | None:
    """An MLP whose name has its widths, made from channels, classes and size; None for other names.

    >>> mlp_of("mlp-128-64")(1, 3, (28, 28)).hidden[1]
    Linear(in_features=128, out_features=64, bias=True)
    """
    match = _MLP.fullmatch(name)
    if match is None:
        return None
    return partial(MlpHead, hidden=[int(width) for width in match[1].split("-")[1:]])


def takes_features(name: str) -> bool:
    """Whether a network can be fed features in the place of images."""
    return name in HEADS or mlp_of(name) is not None
