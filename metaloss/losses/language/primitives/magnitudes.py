"""Roots, the square, the absolute value, the sign and both relus."""

import torch
from torch import Tensor

from metaloss.losses.language.primitives.base import (
    EPSILON,
    EVEN,
    ODD,
    TINY,
    PartialDerivative,
    Primitive,
    operator_latex,
    where_above,
)


def sqrt(x: Tensor) -> Tensor:
    """√|x| (Morgan 2024).

    Its infinite slope at 0 is taken as 0, so that no gradient becomes NaN there.
    """
    # Two selections: with the outer one alone, autograd would multiply 0 by infinity.
    free = x == 0
    return torch.where(free, 0.0, torch.where(free, 1.0, x).abs().sqrt())


def plain_sqrt(x: Tensor) -> Tensor:
    """The values of `sqrt`; autograd would give NaN at 0."""
    return x.abs().sqrt()


def sqrt_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `sqrt` at its argument."""
    return g * a.sign() / (o + o).clamp_(min=TINY)


def sqrt_clamp(x: Tensor) -> Tensor:
    """√max(|x|, ε) (Raymond 2023)."""
    return torch.where(x.abs() <= EPSILON, EPSILON, x).abs().sqrt()


def plain_sqrt_clamp(x: Tensor) -> Tensor:
    """The values of `sqrt_clamp`."""
    return x.abs().clamp_(min=EPSILON).sqrt_()


def sqrt_clamp_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `sqrt_clamp` at its argument."""
    return where_above(g * a.sign() / (o + o), a.abs(), EPSILON)


def relu_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of max(x, 0) at x."""
    return where_above(g, a, 0)


def nrelu(x: Tensor) -> Tensor:
    """min(x, 0)."""
    return -(-x).relu()


def nrelu_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of `nrelu` at its argument."""
    return where_above(g, -a, 0)


MAGNITUDES = (
    Primitive(
        "sqrt",
        1,
        sqrt,
        (PartialDerivative("goa", sqrt_a),),
        r"\sqrt{\left|#1\right|}",
        lambda s, x: s.sqrt(s.Abs(x)),
        "torch.where({a} == 0, 0.0, torch.where({a} == 0, 1.0, {a}).abs().sqrt())",
        EVEN,
        plain=plain_sqrt,
    ),
    Primitive(
        "sqrt_clamp",
        1,
        sqrt_clamp,
        (PartialDerivative("goa", sqrt_clamp_a),),
        r"\sqrt{\max\left(\left|#1\right|, \varepsilon\right)}",
        lambda s, x: s.sqrt(s.Max(s.Abs(x), EPSILON)),
        "torch.where({a}.abs() <= 1e-07, 1e-07, {a}).abs().sqrt()",
        EVEN,
        plain=plain_sqrt_clamp,
    ),
    Primitive(
        "square",
        1,
        torch.square,
        (PartialDerivative("ga", lambda g, a: g * (a + a)),),
        r"\left(#1\right)^2",
        lambda s, x: x**2,
        "{a}.square()",
        EVEN,
    ),
    Primitive(
        "abs",
        1,
        torch.abs,
        (PartialDerivative("ga", lambda g, a: g * a.sign()),),
        r"\left|#1\right|",
        lambda s, x: s.Abs(x),
        "{a}.abs()",
        EVEN,
    ),
    Primitive(
        "sign",
        1,
        torch.sign,
        (None,),
        operator_latex("sign"),
        lambda s, x: s.sign(x),
        "{a}.sign()",
        ODD,
    ),
    Primitive(
        "relu",
        1,
        torch.relu,
        (PartialDerivative("ga", relu_a),),
        r"\max\left(#1, 0\right)",
        lambda s, x: s.Max(x, 0),
        "{a}.relu()",
    ),
    Primitive(
        "nrelu",
        1,
        nrelu,
        (PartialDerivative("ga", nrelu_a),),
        r"\min\left(#1, 0\right)",
        lambda s, x: s.Min(x, 0),
        "-(-{a}).relu()",
    ),
)
