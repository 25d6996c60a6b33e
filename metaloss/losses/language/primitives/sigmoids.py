"""Sigmoids, their derivatives and the integral of one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.losses.language.primitives.base import (
    EVEN,
    ODD,
    PartialDerivative,
    Primitive,
    operator_latex,
)

# torch gives these no types.
sigmoid_a: Callable[[Tensor, Tensor], Tensor] = torch.ops.aten.sigmoid_backward
tanh_a: Callable[[Tensor, Tensor], Tensor] = torch.ops.aten.tanh_backward


def dsigmoid(x: Tensor) -> Tensor:
    """σ(x)(1 - σ(x)), the second factor as σ(-x), which does not cancel."""
    return x.sigmoid() * (-x).sigmoid()


def dsigmoid_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `dsigmoid` at its argument, without its sign: o·(2σ(a) - 1)."""
    # 2σ(a) - 1 = tanh(a/2), which does not cancel near 0.
    return g * o * (a * 0.5).tanh()


def softplus(x: Tensor) -> Tensor:
    """ln(1 + eˣ), to the last digit of float64 and without overflow."""
    # torch's own threshold of 20, beyond which it returns x, is visible in float64.
    return F.softplus(x, threshold=40.0)


def softsign_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of x/(1 + |x|) at its argument."""
    return g / (a.abs() + 1).square()


def deriv_soft(x: Tensor) -> Tensor:
    """1/(1 + |x|), which the code of Morgan 2024 calls softsign's derivative.

    That is in truth the square of it.
    """
    return 1 / (1 + x.abs())


def deriv_soft_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `deriv_soft` at its argument, without its sign."""
    return g * a.sign() * o * o


def dtanh(x: Tensor) -> Tensor:
    """1 - tanh²x."""
    return 1 - x.tanh().square()


def dtanh_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `dtanh` at its argument, without its sign: 2 tanh a (1 - tanh²a)."""
    return g * o * a.tanh() * 2


def erf_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of erf at its argument."""
    return g * (a * -a).exp() * (2 / math.sqrt(math.pi))


SIGMOIDS = (
    Primitive(
        "sigmoid",
        1,
        torch.sigmoid,
        (PartialDerivative("go", sigmoid_a),),
        r"\sigma\left(#1\right)",
        lambda s, x: 1 / (1 + s.exp(-x)),
        "{a}.sigmoid()",
    ),
    Primitive(
        "dsigmoid",
        1,
        dsigmoid,
        (PartialDerivative("goa", dsigmoid_a, -1),),
        r"\sigma'\left(#1\right)",
        lambda s, x: 1 / (2 + s.exp(x) + s.exp(-x)),
        "{a}.sigmoid() * (-{a}).sigmoid()",
        EVEN,
    ),
    Primitive(
        "softplus",
        1,
        softplus,
        (PartialDerivative("ga", lambda g, a: g * a.sigmoid()),),
        r"\ln\left(1 + e^{#1}\right)",
        lambda s, x: s.log(1 + s.exp(x)),
        "torch.nn.functional.softplus({a}, threshold=40.0)",
    ),
    Primitive(
        "softsign",
        1,
        torch.nn.functional.softsign,
        (PartialDerivative("ga", softsign_a),),
        operator_latex("softsign"),
        lambda s, x: x / (1 + s.Abs(x)),
        "{a} / (1 + {a}.abs())",
        ODD,
    ),
    Primitive(
        "deriv_soft",
        1,
        deriv_soft,
        (PartialDerivative("goa", deriv_soft_a, -1),),
        r"\frac{1}{1 + \left|#1\right|}",
        lambda s, x: 1 / (1 + s.Abs(x)),
        "1 / (1 + {a}.abs())",
        EVEN,
    ),
    Primitive(
        "tanh",
        1,
        torch.tanh,
        (PartialDerivative("go", tanh_a),),
        r"\tanh\left(#1\right)",
        lambda s, x: s.tanh(x),
        "{a}.tanh()",
        ODD,
    ),
    Primitive(
        "dtanh",
        1,
        dtanh,
        (PartialDerivative("goa", dtanh_a, -1),),
        r"\left(1 - \tanh^2\left(#1\right)\right)",
        lambda s, x: 1 - s.tanh(x) ** 2,
        "1 - {a}.tanh().square()",
        EVEN,
    ),
    Primitive(
        "erf",
        1,
        torch.erf,
        (PartialDerivative("ga", erf_a),),
        operator_latex("erf"),
        lambda s, x: s.erf(x),
        "{a}.erf()",
        ODD,
    ),
    Primitive(
        "erfc",
        1,
        torch.erfc,
        (PartialDerivative("ga", erf_a, -1),),
        operator_latex("erfc"),
        lambda s, x: s.erfc(x),
        "{a}.erfc()",
    ),
)
