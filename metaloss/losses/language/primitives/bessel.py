"""Modified Bessel functions of the first kind."""

from collections.abc import Callable

import torch
from torch import Tensor

from metaloss.losses.language.primitives.base import (
    EVEN,
    ODD,
    TINY,
    PartialDerivative,
    Primitive,
    where_above,
)

BOUND = 80.0  # beyond it i0 and i1 are held: they overflow in float32 at 92
# torch gives these no types.
_I0: Callable[[Tensor], Tensor] = torch.special.i0
_I1: Callable[[Tensor], Tensor] = torch.special.i1
_I0E: Callable[[Tensor], Tensor] = torch.special.i0e
_I1E: Callable[[Tensor], Tensor] = torch.special.i1e


def i0(x: Tensor) -> Tensor:
    """The modified Bessel function I0, held beyond ±80."""
    return _I0(x.clamp(-BOUND, BOUND))


def i0_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of `i0` at its argument."""
    # -|a| > -80 is |a| < 80: beyond it the value is held, and its slope is 0.
    return where_above(g * _I1(a), -a.abs(), -BOUND)


def i0e_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of I0(x) e^(-|x|) at its argument."""
    return g * (_I1E(a) - a.sign() * o)


def i1(x: Tensor) -> Tensor:
    """The modified Bessel function I1, held beyond ±80."""
    return _I1(x.clamp(-BOUND, BOUND))


def ratio(o: Tensor, a: Tensor) -> Tensor:
    """o/a for an odd function with slope 1/2 at 0, where this is 1/2 too."""
    return (o.abs() + TINY / 2) / (a.abs() + TINY)


def i1_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `i1` at its argument: I0 - I1/x, at 0 a half."""
    return where_above(g * (_I0(a) - ratio(o, a)), -a.abs(), -BOUND)


def i1e_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of I1(x) e^(-|x|) at its argument; at 0 a half."""
    return g * (_I0E(a) - o.abs() - ratio(o, a))


BESSEL = (
    Primitive(
        "i0",
        1,
        i0,
        (PartialDerivative("ga", i0_a),),
        r"I_0\left(#1\right)",
        lambda s, x: s.besseli(0, x),
        "torch.special.i0({a}.clamp(-80.0, 80.0))",
        EVEN,
    ),
    Primitive(
        "i0e",
        1,
        torch.special.i0e,
        (PartialDerivative("goa", i0e_a),),
        r"\tilde{I}_0\left(#1\right)",
        lambda s, x: s.besseli(0, x) * s.exp(-s.Abs(x)),
        "torch.special.i0e({a})",
        EVEN,
    ),
    Primitive(
        "i1",
        1,
        i1,
        (PartialDerivative("goa", i1_a),),
        r"I_1\left(#1\right)",
        lambda s, x: s.besseli(1, x),
        "torch.special.i1({a}.clamp(-80.0, 80.0))",
        ODD,
    ),
    Primitive(
        "i1e",
        1,
        torch.special.i1e,
        (PartialDerivative("goa", i1e_a),),
        r"\tilde{I}_1\left(#1\right)",
        lambda s, x: s.besseli(1, x) * s.exp(-s.Abs(x)),
        "torch.special.i1e({a})",
        ODD,
    ),
)
