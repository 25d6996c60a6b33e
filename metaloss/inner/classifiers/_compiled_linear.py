"""`SharedLinear` with compiled passes, for a CPU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import kernels
from metaloss.inner.classifiers import Descent, LogitGradient, Params
from metaloss.inner.classifiers._compiled import Rates, array
from metaloss.inner.classifiers.linear import SharedLinear
from metaloss.inner.optimisers import Rate


class CompiledLinear(SharedLinear):
    """The same layer: a task's candidates are one product, which reads its images once for all."""

    def kernel(
        self, images: Float[Tensor, "T N D"], train: Float[Tensor, "T B D"]
    ) -> Float[Tensor, "T N B"]:
        """As without compiled passes, but with an image's products in a column of memory."""
        return torch.bmm(train, images.mT).add_(1).mT

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        from metaloss.kernels.classifiers import linear

        a = params["a"].mT.contiguous()  # [P T C B]
        logits = a.new_empty(*a.shape[:3], len(inputs))
        linear.classify(*_kernel_args(params, inputs), array(a), array(logits))
        return logits.mT

    def descent(self, params: Params, inputs: Any) -> Descent:
        """What makes the steps of one training."""
        from metaloss.kernels.classifiers import linear

        kernel_args = _kernel_args(params, inputs)
        # Class by class in memory from here on, as the gradient is.
        a = params["a"].mT.contiguous()  # [P T C B]
        params["a"] = a.mT
        coefficients = array(a)
        rates = Rates(a)

        def step(slope: LogitGradient, rate: Rate) -> None:
            # New at every step: a loss may keep them.
            logits = torch.empty_like(a)
            linear.classify(*kernel_args, coefficients, array(logits))
            gradient = array(slope(logits.mT).mT.contiguous())
            linear.descend(coefficients, gradient, rates(rate))

        return step


def _kernel_args(params: Params, inputs: Any) -> tuple[Any, ...]:
    """The logits before any step, [PT C Np], and the products with N images, [T B Np]."""
    base = _in_whole_vectors(params["c"] * inputs.start.mT)
    return array(base), _in_whole_vectors(inputs.kernel.mT).numpy()


def _in_whole_vectors(x: Float[Tensor, "*A N"]) -> Float[Tensor, "*A _"]:
    """The same with zeros at the end of every row, in memory of its own where that is needed."""
    more = -x.shape[-1] % kernels.VECTOR
    return torch.nn.functional.pad(x, (0, more)) if more else x.contiguous()
