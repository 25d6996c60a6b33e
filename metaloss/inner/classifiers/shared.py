"""The same perceptron with its first layer kept in the span of the task's few training images.

Gradient descent moves the first layer by combinations of the training images alone, W = c·W⁰ + Aᵀ
X, so a step costs B·B·H instead of B·D·H operations, and X Xᵀ, X_val Xᵀ, X W⁰ᵀ and X_val W⁰ᵀ are
computed once for the whole population. The gradient of A is by design the one at the layer's
output, δ: stepping W by its own gradient δᵀ X steps A by δ. The bias is the weight of one more
input that is 1 in every image, so it is kept in the same span. Exact, up to rounding, for every
optimiser whose update is a scalar combination of past gradients and parameters (SGD, momentum,
Nesterov, L2 decay, schedules, minibatches of the task's images); not for Adam and other scalings
per weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import Bound, Gradients, Params
from metaloss.inner.classifiers.mlp import Mlp

__all__ = ["SharedMlp"]


@dataclass(frozen=True)
class Span:
    """Images as the first layer sees them: through its start, and through the B training images."""

    start: Float[Tensor, "T N H"]  # X W⁰ᵀ + b⁰
    kernel: Float[Tensor, "T N B"]  # X X_trainᵀ + 1
    # Which training images these are; None: all of them, or others.
    index: Int[Tensor, "T N"] | None = None

    def block(self, images: slice) -> "Span":
        """Some of the images, the same ones of every task."""
        return Span(self.start[:, images], self.kernel[:, images])

    def minibatch(self, index: Int[Tensor, "T b"]) -> "Span":
        """A minibatch of the training images."""
        start, kernel = (
            x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
            for x in (self.start, self.kernel)
        )
        return Span(start, kernel, index)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' images, side by side."""
        return cls(
            torch.cat([part.start for part in parts]), torch.cat([part.kernel for part in parts])
        )

    def __len__(self) -> int:
        return self.start.shape[1]


def rows_of(a: Float[Tensor, "P T B H"], inputs: Span) -> Float[Tensor, "P T N H"]:
    """The rows of A that belong to some training images."""
    if inputs.index is None:
        return a
    return a.gather(2, inputs.index[..., None].expand(len(a), -1, -1, a.shape[3]))


def adjoint_of_rows(delta: Float[Tensor, "P T N H"], inputs: Span) -> Float[Tensor, "P T B H"]:
    """The adjoint of A, from that of its product with the kernel of some images."""
    kernel = inputs.kernel.mT.expand(len(delta), -1, -1, -1).flatten(0, 1)
    adjoint: Tensor = torch.bmm(kernel, delta.flatten(0, 1)).unflatten(0, delta.shape[:2])
    return adjoint


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class SharedMlp(Mlp):
    """An `Mlp` whose first layer trains through A [P, T, B, H] and the scalar c, not through W."""

    in_span: ClassVar[bool] = True

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """All products with images, so that the population never touches a pixel."""
        x = tasks.train.x().flatten(2)
        xval = tasks.val.x().flatten(2)
        start = self.draw(x, tasks.ways, keys)
        w = start.pop("w0")
        b = start.pop("b0")
        coefficients = {"a": x.new_zeros(*x.shape[:2], w.shape[1]), "c": x.new_ones(len(x), 1, 1)}
        # One product: what it reads most of is the images.
        both = torch.cat([w, x], 1).mT  # [T D H+B]
        of_start, of_images = slice(w.shape[1]), slice(w.shape[1], None)
        # + 1: the bias is the weight of an input that is 1 in every image.
        train, val = (
            Span(z[..., of_start] + b, z[..., of_images] + 1) for z in (x @ both, xval @ both)
        )
        return Bound(train, val, coefficients | start)

    def first(self, params: Params, inputs: Any) -> Float[Tensor, "P T N H"]:
        """c·(X W⁰ᵀ + b⁰) + (X X_trainᵀ + 1) A."""
        z = params["c"] * inputs.start
        kernel = inputs.kernel.expand(len(z), -1, -1, -1).flatten(0, 1)
        result: Tensor = z.flatten(0, 1).baddbmm_(kernel, params["a"].flatten(0, 1)).view_as(z)
        return result

    def first_linearised(
        self, params: Params, direction: Params, inputs: Any
    ) -> tuple[Float[Tensor, "P T N H"], Float[Tensor, "P T N H"]]:
        """The first layer, before ReLU, and its change: A's, whose gradient is the layer's."""
        return self.first(params, inputs), rows_of(direction["a"], inputs)

    def first_gradient(self, delta: Float[Tensor, "P T N H"], inputs: Any) -> Gradients:
        """δ for A; none for c: the gradient has no part along the start."""
        if inputs.index is None:
            return {"a": delta}
        # Images outside the minibatch have no part in this gradient.
        a = delta.new_zeros(*delta.shape[:2], inputs.kernel.shape[2], delta.shape[3])
        return {"a": a.scatter_(2, inputs.index[..., None].expand_as(delta), delta)}

    def first_adjoint(self, delta: Float[Tensor, "P T N H"], inputs: Any) -> Params:
        """The adjoint of A; no loss has a part in c."""
        return {"a": adjoint_of_rows(delta, inputs)}
