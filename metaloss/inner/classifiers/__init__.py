"""Stacked classifiers: the parameters of P candidates × T tasks in one tensor each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from metaloss.core.streams import Stream

Params = dict[str, Tensor]
Gradients = Mapping[str, "Tensor | Product"]
# What initial weights are multiplied by.
Scale = Annotated[float, Field(gt=0, le=1000)]
# Of each classifier's value, at its logits.
LogitGradient = Callable[[Float[Tensor, "P T N C"]], Float[Tensor, "P T N C"]]
# From logits and their change along a direction: the gradient at the logits, and the derivatives by
# these of its product with the change.
Logits = Float[Tensor, "P T N C"]
SlopeAdjoint = Callable[[Logits, Logits], tuple[Logits, Logits]]


@dataclass(frozen=True)
class Product:
    """A matrix's gradient as two factors.

    Plain gradient descent adds their product to the matrix without writing it down.
    """

    left: Float[Tensor, "P T M N"]
    right: Float[Tensor, "P T N K"]

    def dense(self) -> Float[Tensor, "P T M K"]:
        """The gradient itself."""
        return self.left @ self.right

    def descend(self, weight: Float[Tensor, "P T M K"], rate: float) -> None:
        """weight -= rate · gradient."""
        # flatten must give a view here: on a copy the step would be lost.
        weight.flatten(0, 1).baddbmm_(
            self.left.flatten(0, 1), self.right.flatten(0, 1), alpha=-rate
        )


def dense(gradient: Tensor | Product) -> Tensor:
    """A gradient that more is done with than adding it."""
    return gradient.dense() if isinstance(gradient, Product) else gradient


class Inputs(Protocol):
    """What a classifier is fed: N images of each of T tasks, in the form it likes best."""

    def block(self, images: slice) -> Self:
        """Some of the images, the same ones of every task."""

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """Some of the training images of every task: a minibatch."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' inputs, side by side."""

    def __len__(self) -> int:
        """N."""


@dataclass(frozen=True)
class Bound:
    """T tasks made ready for one classifier; shared by all candidates."""

    train: Any
    val: Any
    start: Params  # [T, ...]: one draw per task

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Tasks made ready one by one, side by side."""
        if len(parts) == 1:
            return parts[0]
        train = [x.train for x in parts]
        val = [x.val for x in parts]
        start = {name: torch.cat([x.start[name] for x in parts]) for name in parts[0].start}
        return cls(train[0].join(train), val[0].join(val), start)

    def init(self, candidates: int) -> Params:
        """The start of every candidate's classifiers, [P, T, ...], in memory of its own."""
        # repeat, not expand: the inner loop steps parameters in place, for one candidate too.
        return {name: x.repeat(candidates, *[1] * x.ndim) for name, x in self.start.items()}


class Classifier(Protocol):
    """Stacked classifiers; every parameter leads with axes [P, T]."""

    widths: ClassVar[str]  # the setting that holds its layers' widths
    # Parameters stand for weights only while updates combine past gradients linearly.
    in_span: ClassVar[bool]

    def bind(self, tasks: Any, keys: list[Stream]) -> Bound:
        """Inputs for training and validation, and initial parameters from each task's key."""

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """How many numbers one image [K, H, W] leaves in the layers.

        The memory of a chunk is planned from it.
        """

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters.

        A parameter whose gradient is zero may be left out.
        """


# Makes one step of plain gradient descent on all training images, from the gradient at the logits
# and a learning rate, for all or one per candidate.
Descent = Callable[[LogitGradient, "float | Tensor"], None]


@runtime_checkable
class Descending(Protocol):
    """What a classifier has, too, that steps its parameters while it computes their gradient."""

    def descent(self, params: Params, inputs: Any) -> Descent:
        """What makes the steps of one training; parameters are overwritten, in their memory."""


@runtime_checkable
class Reversible(Protocol):
    """What a classifier has, too, that gradients go through trainings of."""

    def adjoint(self, params: Params, inputs: Any, slope: LogitGradient) -> Params:
        """The derivatives, by the parameters, of values with these derivatives by the logits.

        Those of `gradients`, but where a classifier trains by others than these. A parameter that
        no loss has a part in may be left out.
        """

    def gradients_adjoint(
        self, params: Params, direction: Params, inputs: Any, slope_adjoint: SlopeAdjoint
    ) -> Params:
        """The derivatives, by the parameters, of the product of `gradients` with a direction.

        It is the product of the gradient at the logits with the change of the logits along the
        direction. A parameter that no loss has a part in may be left out.

        Args:
            params: the parameters.
            direction: by the same names.
            inputs: the training images, as for `gradients`.
            slope_adjoint: of the gradient at the logits.
        """


def backpropagate(model: Classifier, params: Params, inputs: Any, slope: LogitGradient) -> Params:
    """`model.gradients` for classifiers that do not write down their own."""
    with torch.enable_grad():
        leaves = {name: x.detach().requires_grad_() for name, x in params.items()}
        logits = model(leaves, inputs)
    # The loss's gradient at the logits is the vector of this product: no graph leads through it.
    gradients = torch.autograd.grad(logits, list(leaves.values()), slope(logits.detach()))
    return dict(zip(leaves, gradients, strict=True))
