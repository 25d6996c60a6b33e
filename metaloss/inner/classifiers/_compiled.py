"""`SharedMlp` with compiled passes through its layers, for a CPU."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import kernels
from metaloss.inner.classifiers import Descent, Gradients, LogitGradient, Params, Product
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.optimisers import Rate


@runtime_checkable
class StepsPerceptrons(Protocol):
    """A gradient at the logits of losses that may step perceptrons themselves."""

    @property
    def perceptron_step(self) -> Callable[[tuple[Any, ...], Any], None] | None:
        """A whole compiled step, from what both passes read and learning rates; None: none."""


def fits(hidden: tuple[int, ...], device: torch.device) -> bool:
    """Whether there is a compiler, a CPU, and hidden layers that are whole vectors."""
    return (
        kernels.available()
        and device.type == "cpu"
        and not any(width % kernels.VECTOR for width in hidden)
    )


class CompiledProduct(Product):
    """A gradient that is added without packing its factors first."""

    def descend(self, weight: Float[Tensor, "P T M K"], rate: float) -> None:
        """weight -= rate · gradient."""
        from metaloss.kernels.classifiers import perceptron

        transposed = self.left.mT.is_contiguous()
        left = array(self.left.mT if transposed else self.left.contiguous())
        perceptron.descend(
            array(weight), left, array(self.right), left.dtype.type(rate), transposed
        )


class CompiledMlp(SharedMlp):
    """The same classifier, where it `fits`."""

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        from metaloss.kernels.classifiers import perceptron

        logits = self._logits(params, inputs)
        perceptron.classify(*self._kernel_args(params, inputs), array(logits))
        return logits.mT

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters."""
        from metaloss.kernels.classifiers import perceptron

        a = params["a"]
        kernel_args = self._kernel_args(params, inputs)
        logits = self._logits(params, inputs)
        *_, weights, _ = kernel_args
        hidden = [a.new_empty(*a.shape[:2], len(inputs), width) for width in self.hidden]
        layers = tuple(map(array, hidden))
        perceptron.forward(*kernel_args, layers, array(logits))
        delta = slope(logits.mT).mT.contiguous()
        back = [torch.empty_like(x) for x in hidden]
        biases = [torch.empty_like(b) for b in self._later(params, "b")]
        perceptron.backward(
            array(delta), weights, layers, tuple(map(array, back)), tuple(map(array, biases))
        )
        gradients: dict[str, Tensor | Product] = {f"b{i}": b for i, b in enumerate(biases, 1)}
        lefts = [*(x.mT for x in back[1:]), delta]
        gradients |= {
            f"w{i}": CompiledProduct(*pair)
            for i, pair in enumerate(zip(lefts, hidden, strict=True), 1)
        }
        return {**gradients, **self.first_gradient(back[0], inputs)}

    def descent(self, params: Params, inputs: Any) -> Descent:
        """What makes the steps of one training: no gradient of a parameter is written down."""
        from metaloss.kernels.classifiers import perceptron

        kernel_args = self._kernel_args(params, inputs)
        *_, a, weights, biases = kernel_args
        images = len(inputs)
        layers = tuple(np.empty((len(a), images, width), a.dtype) for width in self.hidden)
        rates = Rates(params["a"])

        def step(slope: LogitGradient, rate: Rate) -> None:
            if a.dtype == np.float32 and isinstance(slope, StepsPerceptrons):
                whole = slope.perceptron_step
                if whole is not None:
                    return whole(kernel_args, rates(rate))
            # New at every step: a loss may keep them.
            logits = self._logits(params, inputs)
            perceptron.forward(*kernel_args, layers, array(logits))
            delta = array(slope(logits.mT).mT.contiguous())
            perceptron.train_step(delta, weights, biases, a, layers, rates(rate))

        return step

    def _kernel_args(self, params: Params, inputs: Any) -> tuple[Any, ...]:
        """What both passes read, candidates and tasks along one axis."""
        weights, biases = (tuple(map(array, self._later(params, kind))) for kind in "wb")
        start = inputs.start.contiguous().numpy()
        kernel = inputs.kernel.contiguous().numpy()
        return start, kernel, params["c"].flatten().numpy(), array(params["a"]), weights, biases

    def _later(self, params: Params, kind: str) -> list[Tensor]:
        return [params[f"{kind}{i}"] for i in range(1, len(self.hidden) + 1)]

    def _logits(self, params: Params, inputs: Any) -> Float[Tensor, "P T C N"]:
        last = params[f"w{len(self.hidden)}"]
        return last.new_empty(*last.shape[:3], len(inputs))


class Rates:
    """Learning rates as compiled steps read them: one for each training.

    Args:
        like: a parameter of all trainings.
    """

    def __init__(self, like: Float[Tensor, "P T ..."]) -> None:
        self.like = like
        self.last: tuple[Rate | None, Any] = None, None

    def __call__(self, rate: Rate) -> Any:
        """A rate for all, or one per candidate, for candidates and tasks along one axis."""
        P, T = self.like.shape[:2]
        if isinstance(rate, Tensor):
            return rate.to(self.like).repeat_interleave(T).numpy()
        if rate != self.last[0]:
            self.last = rate, np.full(P * T, rate, self.like.numpy().dtype)
        return self.last[1]


def array(x: Float[Tensor, "P T ..."]) -> Any:
    """The tensor's memory, candidates and tasks along one axis."""
    # Shares the tensor's memory where that is contiguous: kernels write their results into it.
    return x.flatten(0, 1).numpy()
