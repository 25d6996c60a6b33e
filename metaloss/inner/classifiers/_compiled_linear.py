"""`SharedLinear` with compiled passes, for a CPU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import Bound, Descent, LogitGradient, Params
from metaloss.inner.classifiers._compiled import Rates
from metaloss.inner.classifiers.linear import SharedLinear
from metaloss.inner.classifiers.shared import Span
from metaloss.inner.optimisers import Rate


class CompiledLinear(SharedLinear):
    """The same layer: a task's candidates are one product, which reads its images once for all."""

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """As without compiled passes, but with an image's products in a column of memory."""
        x, xval = (images.x().flatten(2) for images in (tasks.train, tasks.val))
        drawn = self.draw(x, tasks.ways, keys)
        start = {"a": x.new_zeros(*x.shape[:2], tasks.ways), "c": x.new_ones(len(x), 1, 1)}
        # + 1: the bias is the weight of an input that is 1 in every image.
        train, val = (
            Span(images @ drawn["w"].mT + drawn["b"], torch.bmm(x, images.mT).add_(1).mT)
            for images in (x, xval)
        )
        return Bound(train, val, start)

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        from metaloss.kernels.classifiers import linear

        a = params["a"].mT.contiguous()  # [P T C B]
        logits = a.new_empty(*a.shape[:3], len(inputs))
        linear.classify(*_kernel_args(params, inputs), _array(a), _array(logits))
        return logits.mT

    def descent(self, params: Params, inputs: Any) -> Descent:
        """What makes the steps of one training."""
        from metaloss.kernels.classifiers import linear

        kernel_args = _kernel_args(params, inputs)
        # Class by class in memory from here on, as the gradient is.
        a = params["a"].mT.contiguous()  # [P T C B]
        params["a"] = a.mT
        coefficients = _array(a)
        rates = Rates(a)

        def step(slope: LogitGradient, rate: Rate) -> None:
            # New at every step: a loss may keep them.
            logits = torch.empty_like(a)
            linear.classify(*kernel_args, coefficients, _array(logits))
            gradient = _array(slope(logits.mT).mT.contiguous())
            linear.descend(coefficients, gradient, rates(rate))

        return step


def _kernel_args(params: Params, inputs: Any) -> tuple[Any, ...]:
    """The logits before any step, [PT C Np], and the products with N images, [T B Np]."""
    base = _in_whole_vectors(params["c"] * inputs.start.mT)
    return _array(base), _in_whole_vectors(inputs.kernel.mT).numpy()


def _in_whole_vectors(x: Float[Tensor, "*A N"]) -> Float[Tensor, "*A _"]:
    """The same with zeros at the end of every row, in memory of its own where that is needed."""
    more = -x.shape[-1] % kernels.VECTOR
    return torch.nn.functional.pad(x, (0, more)) if more else x.contiguous()


def _array(x: Float[Tensor, "P T ..."]) -> Any:
    """The tensor's memory, candidates and tasks along one axis."""
    return x.flatten(0, 1).numpy()
