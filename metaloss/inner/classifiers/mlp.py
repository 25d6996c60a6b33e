"""A multilayer perceptron of any depth, stacked over candidates and tasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import (
    Bound,
    Gradients,
    LogitGradient,
    Params,
    Product,
    Scale,
    SlopeAdjoint,
    dense,
)

__all__ = ["Mlp"]

Width = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True)
class Flat:
    """Images as vectors."""

    x: Float[Tensor, "T N D"]

    def block(self, images: slice) -> "Flat":
        """Some of the images, the same ones of every task."""
        return Flat(self.x[:, images])

    def minibatch(self, index: Int[Tensor, "T b"]) -> "Flat":
        """A minibatch."""
        return Flat(self.x.gather(1, index[..., None].expand(-1, -1, self.x.shape[-1])))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' images, side by side."""
        return cls(torch.cat([part.x for part in parts]))

    def __len__(self) -> int:
        return self.x.shape[1]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Mlp:
    """Linear layers with ReLU between them, initialised as `torch.nn.Linear` is.

    Hidden layers hold one row per image, [P T N H]: products run fastest along rows of whole
    vectors, and widths are such numbers more often than counts of images are. The last one's few
    classes are rows of many images instead.

    Attributes:
        hidden: widths of the hidden layers.
        init_scale: what initial weights and biases are multiplied by.
    """

    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (128, 64)
    init_scale: Scale = 1.0

    widths: ClassVar[str] = "hidden"
    in_span: ClassVar[bool] = False

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """The images as vectors, and weights and biases uniform within ±1/√fan-in."""
        train = Flat(tasks.train.x().flatten(2))
        val = Flat(tasks.val.x().flatten(2))
        return Bound(train, val, self.draw(train.x, tasks.ways, keys))

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        return self.layers(params, inputs)[-1]

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters."""
        gradients, delta = self._backward(params, inputs, slope)
        return {**gradients, **self.first_gradient(delta, inputs)}

    def adjoint(self, params: Params, inputs: Any, slope: LogitGradient) -> Params:
        """The derivatives, by the parameters, of values with these derivatives by the logits."""
        gradients, delta = self._backward(params, inputs, slope)
        later = {name: dense(x) for name, x in gradients.items()}
        return {**later, **self.first_adjoint(delta, inputs)}

    def _backward(
        self, params: Params, inputs: Any, slope: LogitGradient
    ) -> tuple[dict[str, Tensor | Product], Float[Tensor, "P T N H"]]:
        """The gradients of all layers but the first, and that at the first one's output."""
        *hidden, logits = self.layers(params, inputs)
        axes = logits.shape[:2]
        delta = slope(logits).flatten(0, 1)
        gradients: dict[str, Tensor | Product] = {}
        for i in range(len(hidden), 0, -1):
            x = hidden[i - 1]
            gradients[f"w{i}"] = Product(delta.mT.unflatten(0, axes), x.unflatten(0, axes))
            gradients[f"b{i}"] = delta.sum(-2, keepdim=True).unflatten(0, axes)
            back = torch.bmm(delta, params[f"w{i}"].flatten(0, 1))
            # In place: nothing else reads the product.
            delta = torch.ops.aten.threshold_backward.grad_input(back, x, 0, grad_input=back)
        return gradients, delta.unflatten(0, axes)

    def layers(self, params: Params, inputs: Any) -> list[Tensor]:
        """The outputs of every layer.

        After ReLU in the hidden ones [PT N H]; the logits [P T N C] in the last.
        """
        z = self.first(params, inputs)
        axes = z.shape[:2]
        z = z.flatten(0, 1)
        hidden = []
        for i in range(1, len(self.hidden) + 1):
            hidden.append(z.relu_())
            w = params[f"w{i}"].flatten(0, 1)
            b = params[f"b{i}"].flatten(0, 1)
            last = i == len(self.hidden)
            # The last product is computed transposed, so that logits lie class by class.
            z = torch.baddbmm(b.mT, w, z.mT).mT if last else torch.baddbmm(b, z, w.mT)
        return [*hidden, z.unflatten(0, axes)]

    def gradients_adjoint(
        self, params: Params, direction: Params, inputs: Any, slope_adjoint: SlopeAdjoint
    ) -> Params:
        """The derivatives, by the parameters, of the product of `gradients` with a direction."""
        # --- forward: what layers read, its change along the direction ---
        z, change = self.first_linearised(params, direction, inputs)
        axes = z.shape[:2]
        z, change = z.flatten(0, 1), change.flatten(0, 1)  # [PT N H]
        weights = self._after_first(params), self._after_first(direction)
        read = []
        for (w, b), (dw, db) in zip(*weights, strict=True):
            x = z.relu_()
            dx = threshold(change, x)
            read.append((x, dx))
            # Transposed, as in `layers`: logits lie class by class.
            z = torch.baddbmm(b.mT, w, x.mT).mT
            change = torch.baddbmm(torch.baddbmm(db.mT, dw, x.mT), w, dx.mT).mT

        # --- backward: the adjoints of a layer's output, and of its change ---
        of_change, of_value = (
            x.flatten(0, 1) for x in slope_adjoint(z.unflatten(0, axes), change.unflatten(0, axes))
        )
        adjoint = {}
        for i in range(len(read), 0, -1):
            (x, dx), (w, _), (dw, _) = read[i - 1], weights[0][i - 1], weights[1][i - 1]
            by_w = torch.bmm(of_value.mT, x).baddbmm_(of_change.mT, dx)
            adjoint[f"w{i}"] = by_w.unflatten(0, axes)
            adjoint[f"b{i}"] = of_value.sum(-2, keepdim=True).unflatten(0, axes)
            of_value = threshold(torch.bmm(of_value, w).baddbmm_(of_change, dw), x)
            # The first layer's change is given.
            of_change = threshold(torch.bmm(of_change, w), x) if i > 1 else of_change
        return {**adjoint, **self.first_adjoint(of_value.unflatten(0, axes), inputs)}

    def _after_first(self, params: Params) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of all layers but the first, candidates and tasks along one axis."""
        numbers = range(1, len(self.hidden) + 1)
        return [(params[f"w{i}"].flatten(0, 1), params[f"b{i}"].flatten(0, 1)) for i in numbers]

    def first(self, params: Params, inputs: Any) -> Float[Tensor, "P T N H"]:
        """The first layer, before ReLU."""
        result: Tensor = inputs.x @ params["w0"].mT + params["b0"]
        return result

    def first_linearised(
        self, params: Params, direction: Params, inputs: Any
    ) -> tuple[Float[Tensor, "P T N H"], Float[Tensor, "P T N H"]]:
        """The first layer, before ReLU, and its change along a direction."""
        return self.first(params, inputs), self.first(direction, inputs)

    def first_gradient(self, delta: Float[Tensor, "P T N H"], inputs: Any) -> Gradients:
        """The first layer's, from the gradient at its output."""
        return {"w0": delta.mT @ inputs.x, "b0": delta.sum(-2, keepdim=True)}

    def first_adjoint(self, delta: Float[Tensor, "P T N H"], inputs: Any) -> Params:
        """The adjoint of the first layer's parameters, from that of its output."""
        return {"w0": delta.mT @ inputs.x, "b0": delta.sum(-2, keepdim=True)}

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """Numbers that one image leaves in the layers."""
        return sum(self.hidden) + classes

    def draw(self, x: Float[Tensor, "T N D"], classes: int, keys: list[Stream]) -> Params:
        """Every task's initial parameters [T, ...], in the type and on the device of its images."""
        return {
            name: torch.stack(
                [key.at(name).uniform(*shape, low=-bound, high=bound) for key in keys]
            ).to(x)
            for name, (shape, bound) in self.shapes(x.shape[-1], classes).items()
        }

    def shapes(self, features: int, classes: int) -> dict[str, tuple[tuple[int, int], float]]:
        """Shape, outputs × inputs, and initial bound of every parameter."""
        shapes = {}
        for i, (fan_in, fan_out) in enumerate(pairwise((features, *self.hidden, classes))):
            bound = self.init_scale / math.sqrt(fan_in)
            shapes[f"w{i}"] = (fan_out, fan_in), bound
            shapes[f"b{i}"] = (1, fan_out), bound
        return shapes


def threshold(x: Tensor, at: Tensor) -> Tensor:
    """The numbers of x where `at` is positive, else zero."""
    result: Tensor = torch.ops.aten.threshold_backward(x, at, 0)
    return result
