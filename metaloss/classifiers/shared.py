"""The same perceptron with its first layer kept in the span of the task's few training images.

Gradient descent moves the first layer by combinations of the training images alone, W = c·W⁰ + Xᵀ A, so a step costs
B·B·H instead of B·D·H operations, and X Xᵀ, X_val Xᵀ, X W⁰ and X_val W⁰ are computed once for the whole population.
Exact, up to rounding, for every optimiser whose update is a scalar combination of past gradients and parameters (SGD,
momentum, Nesterov, L2 decay, schedules); not for Adam and other scalings per weight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
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
    """Images as the first layer sees them: through its start, and through the training images."""

    start: Float[Tensor, "T N H"]  # X W⁰
    kernel: Float[Tensor, "T N B"]  # X X_trainᵀ

    def block(self, images: slice) -> "Span":
        """Some of the images of every task."""
        return Span(self.start[:, images], self.kernel[:, images])

    def __len__(self) -> int:
        return self.start.shape[1]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class SharedMlp(Mlp):
    """An `Mlp` whose first layer trains through A [P, T, B, H] and the scalar c, instead of through W."""

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """All products with images, so that the population never touches a pixel."""
        x, xval = tasks.train.x().flatten(2), tasks.val.x().flatten(2)
        start = self.draw(x, tasks.ways, keys)
        w = start.pop("w0")
        coefficients = {"a": x.new_zeros(*x.shape[:2], w.shape[-1]), "c": x.new_ones(len(x), 1, 1)}
        xt = x.transpose(1, 2)
        return Bound(Span(x @ w, x @ xt), Span(xval @ w, xval @ xt), coefficients | start)

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits."""
        z = InSpan.apply(params["a"], params["c"], inputs.start, inputs.kernel)
        return self.rest(params, z + params["b0"])


class InSpan(torch.autograd.Function):
    """c·X W⁰ + X Xᵀ A. Stepping W by its gradient Xᵀδ steps A by δ: that, not X Xᵀδ, is what backward returns."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Float[Tensor, "P T B H"],
        c: Float[Tensor, "P T 1 1"],
        start: Float[Tensor, "T N H"],
        kernel: Float[Tensor, "T N B"],
    ) -> Float[Tensor, "P T N H"]:
        """The first layer's output, without its bias."""
        P, T = a.shape[:2]
        base = (c * start).flatten(0, 1)
        return torch.baddbmm(base, kernel.expand(P, *kernel.shape).flatten(0, 1), a.flatten(0, 1)).unflatten(0, (P, T))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The step of A, and none for c: in W, the gradient has no part along the start."""
        delta = grads[0]
        return delta, delta.new_zeros(*delta.shape[:2], 1, 1), None, None
