"""A multilayer perceptron of any depth, stacked over candidates and tasks."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.classifiers import Bound, Params
from metaloss.streams import Stream
from metaloss.tasks import Tasks

__all__ = ["Mlp"]

Width = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True)
class Flat:
    """Images as vectors."""

    x: Float[Tensor, "T N D"]

    def block(self, images: slice) -> "Flat":
        """Some of the images of every task."""
        return Flat(self.x[:, images])

    def __len__(self) -> int:
        return self.x.shape[1]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Mlp:
    """Linear layers with ReLU between them, initialised as `torch.nn.Linear` is."""

    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (128, 64)

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """The images as vectors, and weights and biases uniform within ±1/√fan-in."""
        train, val = Flat(tasks.train.x().flatten(2)), Flat(tasks.val.x().flatten(2))
        return Bound(train, val, self.draw(train.x, tasks.ways, keys))

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits."""
        return self.rest(params, inputs.x @ params["w0"] + params["b0"])

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """Numbers that one image leaves in the layers."""
        return sum(self.hidden) + classes

    def draw(self, x: Float[Tensor, "T N D"], classes: int, keys: list[Stream]) -> Params:
        """Every task's initial parameters [T, ...], in the type and on the device of its images."""
        return {
            name: torch.stack([key.at(name).uniform(*shape, low=-bound, high=bound) for key in keys]).to(x)
            for name, (shape, bound) in self.shapes(x.shape[-1], classes).items()
        }

    def shapes(self, features: int, classes: int) -> dict[str, tuple[tuple[int, int], float]]:
        """Shape and initial bound of every parameter."""
        shapes = {}
        for i, (fan_in, fan_out) in enumerate(self.layers(features, classes)):
            shapes[f"w{i}"] = (fan_in, fan_out), 1 / math.sqrt(fan_in)
            shapes[f"b{i}"] = (1, fan_out), 1 / math.sqrt(fan_in)
        return shapes

    def layers(self, features: int, classes: int) -> list[tuple[int, int]]:
        """Inputs and outputs of every linear layer."""
        widths = (features, *self.hidden, classes)
        return list(pairwise(widths))

    def rest(self, params: Params, z: Float[Tensor, "P T N H"]) -> Float[Tensor, "P T N C"]:
        """Every layer after the first one's linear map."""
        P, T = z.shape[:2]
        for i in range(1, len(self.hidden) + 1):
            h, w, b = z.relu().flatten(0, 1), params[f"w{i}"].flatten(0, 1), params[f"b{i}"].flatten(0, 1)
            z = torch.baddbmm(b, h, w).unflatten(0, (P, T))
        return z
