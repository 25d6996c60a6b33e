"""A linear layer: softmax regression, the usual classifier on features of a pretrained network."""

import math
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import Bound, Gradients, LogitGradient, Params, SlopeAdjoint
from metaloss.inner.classifiers.mlp import Flat
from metaloss.inner.classifiers.shared import Span, adjoint_of_rows, rows_of

__all__ = ["Linear"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Linear:
    """One linear layer from the features, or pixels, to the classes.

    It starts at 0, as logistic regression does: one layer needs no difference to begin with, and
    what it begins with it keeps in all directions that no training image has.

    Attributes:
        init_scale: what the initial weights and biases of `torch.nn.Linear` are multiplied by.
    """

    init_scale: Annotated[float, Field(ge=0, le=1000)] = 0.0

    widths: ClassVar[str] = ""
    in_span: ClassVar[bool] = False

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """The images as vectors, and weights and biases uniform within ±init_scale/√fan-in."""
        x = tasks.train.x().flatten(2)
        start = self.draw(x, tasks.ways, keys)
        return Bound(Flat(x), Flat(tasks.val.x().flatten(2)), start)

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        w = params["w"]
        # One product for all candidates of a task: they see the same images. It is computed
        # transposed, so that logits lie class by class.
        product = torch.bmm(_beside(w), inputs.x.mT)  # [T PC N]
        result: Tensor = _apart(product, len(w)).add(params["b"].mT).contiguous().mT
        return result

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters."""
        return self._from_logits(slope(self(params, inputs)), inputs)

    def adjoint(self, params: Params, inputs: Any, slope: LogitGradient) -> Params:
        """The derivatives, by the parameters, of values with these derivatives by the logits."""
        return self._from_logits(slope(self(params, inputs)), inputs)

    def _from_logits(self, delta: Float[Tensor, "P T N C"], inputs: Any) -> Params:
        """What a derivative by the logits makes of the parameters."""
        w = torch.bmm(_beside(delta.mT), inputs.x)  # [T PC D]
        return {"w": _apart(w, len(delta)), "b": delta.sum(-2, keepdim=True)}

    def gradients_adjoint(
        self, params: Params, direction: Params, inputs: Any, slope_adjoint: SlopeAdjoint
    ) -> Params:
        """The derivatives, by the parameters, of the product of `gradients` with a direction."""
        _, delta = slope_adjoint(self(params, inputs), self(direction, inputs))
        return self._from_logits(delta, inputs)

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """Numbers that one image leaves in the layers: its logits."""
        return classes

    def draw(self, x: Float[Tensor, "T N D"], classes: int, keys: list[Stream]) -> Params:
        """Every task's initial parameters [T, ...], in the type and on the device of its images."""
        features = x.shape[-1]
        bound = self.init_scale / math.sqrt(features)
        shapes = {"w": (classes, features), "b": (1, classes)}
        return {
            name: torch.stack(
                [key.at(name).uniform(*shape, low=-bound, high=bound) for key in keys]
            ).to(x)
            for name, shape in shapes.items()
        }


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class SharedLinear(Linear):
    """The same layer in the span of the task's B training images: W = c·W⁰ + Aᵀ X.

    A is [P, T, B, C]. Why that is exact, and for which optimisers, is said in `shared.py`.
    """

    in_span: ClassVar[bool] = True

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """All products with images, so that the population never touches a feature."""
        x = tasks.train.x().flatten(2)
        drawn = self.draw(x, tasks.ways, keys)
        start = {"a": x.new_zeros(*x.shape[:2], tasks.ways), "c": x.new_ones(len(x), 1, 1)}
        train, val = (
            Span(images @ drawn["w"].mT + drawn["b"], self.kernel(images, x))
            for images in (x, tasks.val.x().flatten(2))
        )
        return Bound(train, val, start)

    def kernel(
        self, images: Float[Tensor, "T N D"], train: Float[Tensor, "T B D"]
    ) -> Float[Tensor, "T N B"]:
        """The products of images with the training images."""
        # + 1: the bias is the weight of an input that is 1 in every image.
        return images @ train.mT + 1

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """c·(X W⁰ᵀ + b⁰) + (X X_trainᵀ + 1) A, class by class in memory."""
        z = params["c"] * inputs.start.mT  # [P T C N]
        kernel = inputs.kernel.mT.expand(len(z), -1, -1, -1).flatten(0, 1)
        a = params["a"].mT.flatten(0, 1)
        result: Tensor = z.flatten(0, 1).baddbmm_(a, kernel).view_as(z).mT
        return result

    def gradients_adjoint(
        self, params: Params, direction: Params, inputs: Any, slope_adjoint: SlopeAdjoint
    ) -> Params:
        """The derivatives, by the parameters, of the product of `gradients` with a direction."""
        # The gradient of A is that at the logits: so is what it changes along a direction.
        change = rows_of(direction["a"], inputs)
        _, delta = slope_adjoint(self(params, inputs), change)
        return {"a": adjoint_of_rows(delta, inputs)}

    def adjoint(self, params: Params, inputs: Any, slope: LogitGradient) -> Params:
        """The derivatives, by the parameters, of values with these derivatives by the logits."""
        return {"a": adjoint_of_rows(slope(self(params, inputs)), inputs)}

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """δ at the logits for A; none for c: the gradient has no part along the start."""
        delta = slope(self(params, inputs))
        if inputs.index is None:
            return {"a": delta}
        # Images outside the minibatch have no part in this gradient.
        a = delta.new_zeros(*delta.shape[:2], inputs.kernel.shape[2], delta.shape[3])
        return {"a": a.scatter_(2, inputs.index[..., None].expand_as(delta), delta)}


def _beside(x: Float[Tensor, "P T C N"]) -> Float[Tensor, "T PC N"]:
    """The matrices of a task's candidates below each other."""
    return x.transpose(0, 1).flatten(1, 2)


def _apart(x: Float[Tensor, "T PC N"], candidates: int) -> Float[Tensor, "P T C N"]:
    """What `_beside` put below each other, as it was."""
    result: Tensor = x.unflatten(1, (candidates, -1)).transpose(0, 1)
    return result
