"""Trigonometric and hyperbolic functions."""

import torch
from torch import Tensor

from metaloss.losses.language.primitives.base import (
    EVEN,
    ODD,
    PartialDerivative,
    Primitive,
    operator_latex,
)


def asinh_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of asinh at its argument."""
    return g / (a * a + 1).sqrt()


def atan_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of atan at its argument."""
    return g / (a * a + 1)


TRIGONOMETRIC = (
    Primitive(
        "sin",
        1,
        torch.sin,
        (PartialDerivative("ga", lambda g, a: g * a.cos()),),
        r"\sin\left(#1\right)",
        lambda s, x: s.sin(x),
        "{a}.sin()",
        ODD,
    ),
    Primitive(
        "cos",
        1,
        torch.cos,
        (PartialDerivative("ga", lambda g, a: g * a.sin(), -1),),
        r"\cos\left(#1\right)",
        lambda s, x: s.cos(x),
        "{a}.cos()",
        EVEN,
    ),
    Primitive(
        "sinh",
        1,
        torch.sinh,
        (PartialDerivative("ga", lambda g, a: g * a.cosh()),),
        r"\sinh\left(#1\right)",
        lambda s, x: s.sinh(x),
        "{a}.sinh()",
        ODD,
    ),
    Primitive(
        "asinh",
        1,
        torch.asinh,
        (PartialDerivative("ga", asinh_a),),
        operator_latex("arsinh"),
        lambda s, x: s.asinh(x),
        "{a}.asinh()",
        ODD,
    ),
    Primitive(
        "atan",
        1,
        torch.atan,
        (PartialDerivative("ga", atan_a),),
        r"\arctan\left(#1\right)",
        lambda s, x: s.atan(x),
        "{a}.atan()",
        ODD,
    ),
)
