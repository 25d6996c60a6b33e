"""What a primitive is, and what the tables of primitives share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-7  # Morgan 2024 prints none; their code has Keras's
TINY = 1e-30  # keeps a divisor from being 0
# Its first argument where its second lies above its third, 0 elsewhere.
where_above: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.aten.threshold_backward


@dataclass(frozen=True)
class PartialDerivative:
    """The gradient at one argument.

    Attributes:
        needs: what `run` takes, in order: g the gradient at the output, o the output, a, b, c the
            arguments.
        run: plain tensor code; None passes the gradient on.
        sign: of the result: kept apart, because signs cost nothing where gradients are added.
    """

    needs: str
    run: Callable[..., Tensor] | None
    sign: int = 1


@dataclass(frozen=True)
class Primitive:
    """One operation.

    Attributes:
        name: as in the text of a loss, name(x).
        arity: how many arguments.
        run: the torch function, differentiable by autograd.
        derivatives: the reverse derivative, argument by argument; None where it is 0 everywhere.
        latex: with #1, #2, #3 for the arguments.
        sympy: its counterpart, given the module sympy and the arguments.
        source: Python that needs torch alone; {a}, {b}, {c} stand for the arguments, which are
            tensors.
        parity: 1 if f(-x) = f(x), -1 if f(-x) = -f(x), by the first argument; 0: neither.
        symbol: how it prints between its arguments, or before its only one.
        plain: gives the same values faster, where no autograd follows.
    """

    name: str
    arity: int
    run: Callable[..., Tensor]
    derivatives: tuple[PartialDerivative | None, ...]
    latex: str
    sympy: Callable[..., Any]
    source: str
    parity: int = 0
    symbol: str = ""
    plain: Callable[..., Tensor] | None = None

    def reverse(self, g: Tensor, o: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        """The gradients at the arguments.

        Args:
            g: the gradient at the output.
            o: the output.
            *args: the arguments.
        """
        # Not strict: most primitives have fewer than three arguments.
        operands = dict(zip("goabc", (g, o, *args), strict=False))
        gradients = []
        for derivative in self.derivatives:
            if derivative is None:
                gradients.append(torch.zeros_like(o))
            else:
                value = (
                    g
                    if derivative.run is None
                    else derivative.run(*[operands[x] for x in derivative.needs])
                )
                gradients.append(value if derivative.sign > 0 else -value)
        return tuple(gradients)


# Passing a gradient on takes no step of a program.
PASS = PartialDerivative("g", None)
FLIP = PartialDerivative("g", None, -1)
# The parities.
EVEN = 1
ODD = -1


def operator_latex(name: str) -> str:
    """The LaTeX of a function of one argument that LaTeX has no command for."""
    return rf"\operatorname{{{name}}}\left(#1\right)"
