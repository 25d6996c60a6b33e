"""The same perceptron with its first layer kept in the span of the task's few training images.

Gradient descent moves the first layer by combinations of the training images alone, W = c·W⁰ + A X, so a step costs
B·B·H instead of B·D·H operations, and X Xᵀ, X X_valᵀ, W⁰ Xᵀ and W⁰ X_valᵀ are computed once for the whole population.
The gradient of A is by design the one at the layer's output, δ: stepping W by its own gradient δ X steps A by δ.
Exact, up to rounding, for every optimiser whose update is a scalar combination of past gradients and parameters (SGD,
momentum, Nesterov, L2 decay, schedules, minibatches of the task's images); not for Adam and other scalings per weight.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.classifiers import Bound, Params
from metaloss.classifiers.mlp import Mlp
from metaloss.streams import Stream
from metaloss.tasks import Tasks

__all__ = ["SharedMlp"]


@dataclass(frozen=True)
class Span:
    """Images as the first layer sees them: through its start, and through the B training images."""

    start: Float[Tensor, "T H N"]  # W⁰ Xᵀ
    kernel: Float[Tensor, "T B N"]  # X_train Xᵀ
    index: Int[Tensor, "T N"] | None = None  # which training images these are; None: all of them, or others

    def block(self, images: slice) -> "Span":
        """Some of the images, the same ones of every task."""
        return Span(self.start[..., images], self.kernel[..., images])

    def pick(self, index: Int[Tensor, "T b"]) -> "Span":
        """A minibatch of the training images."""
        start, kernel = (x.gather(2, index[:, None].expand(-1, x.shape[1], -1)) for x in (self.start, self.kernel))
        return Span(start, kernel, index)

    def __len__(self) -> int:
        return self.start.shape[-1]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class SharedMlp(Mlp):
    """An `Mlp` whose first layer trains through A [P, T, H, B] and the scalar c, instead of through W."""

    in_span: ClassVar[bool] = True

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """All products with images, so that the population never touches a pixel."""
        x, xval = tasks.train.x().flatten(2), tasks.val.x().flatten(2)
        start = self.draw(x, tasks.ways, keys)
        w = start.pop("w0")
        coefficients = {"a": x.new_zeros(*w.shape[:2], x.shape[1]), "c": x.new_ones(len(x), 1, 1)}
        train, val = (Span(w @ images.mT, x @ images.mT) for images in (x, xval))
        return Bound(train, val, coefficients | start)

    def first(self, params: Params, inputs: Any) -> Float[Tensor, "P T H N"]:
        """c·W⁰ Xᵀ + A X_train Xᵀ and the bias."""
        P, T = params["c"].shape[:2]
        z = torch.addcmul(params["b0"], params["c"], inputs.start).flatten(0, 1)
        kernel = inputs.kernel.expand(P, *inputs.kernel.shape).flatten(0, 1)
        return z.baddbmm_(params["a"].flatten(0, 1), kernel).unflatten(0, (P, T))

    def first_gradient(self, delta: Float[Tensor, "P T H N"], inputs: Any) -> Params:
        """δ for A; none for c: the gradient has no part along the start."""
        if inputs.index is None:
            return {"a": delta}
        a = delta.new_zeros(*delta.shape[:-1], inputs.kernel.shape[1])
        return {"a": a.scatter_(-1, inputs.index[:, None].expand_as(delta), delta)}
