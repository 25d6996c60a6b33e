"""Arithmetic, and the selection of the greater or the lesser."""

import torch
from torch import Tensor

from metaloss.losses.language.primitives.base import (
    EPSILON,
    FLIP,
    ODD,
    PASS,
    PartialDerivative,
    Primitive,
    where_above,
)


def divide_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """The gradient of a/b at its denominator, without its sign."""
    return g * o / b


def power(a: Tensor, b: Tensor) -> Tensor:
    """aᵇ; where a is 0 and its slope infinite (b < 1), the slope is taken as 0."""
    # As in `sqrt` of magnitudes.py, the slope that is not wanted must not be computed at all.
    free = (a == 0) & (b < 1)
    return torch.where(free, a.detach() ** b.detach(), torch.where(free, 1.0, a) ** b)


def power_a(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The gradient of `power` at the base."""
    return torch.where((a == 0) & (b < 1), 0.0, g * b * a ** (b - 1))


def power_b(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """The gradient of `power` at the exponent."""
    # ln 0 is infinite, and its product with 0 would be NaN.
    return torch.where(a == 0, 0.0, g * o * a.log())


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """a/(b + ε) (Morgan 2024)."""
    return a / (b + EPSILON)


def quotient_a(g: Tensor, b: Tensor) -> Tensor:
    """The gradient of `quotient` at its numerator."""
    return g / (b + EPSILON)


def quotient_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """The gradient of `quotient` at its denominator, without its sign."""
    return g * o / (b + EPSILON)


def inverse(x: Tensor) -> Tensor:
    """1/(x + ε) (Morgan 2024); its pole is at -ε."""
    return 1 / (x + EPSILON)


def aq(a: Tensor, b: Tensor) -> Tensor:
    """The analytic quotient a/√(1 + b²)."""
    return a / (b * b + 1).sqrt()


def aq_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """The gradient of `aq` at its denominator, without its sign."""
    return g * o * b / (b * b + 1)


def maximum_a(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The gradient of max at its first argument; equal arguments share it.

    It selects rather than multiplies: 0·NaN must not reach the argument that was not the greater.
    """
    # d > 0 and, but for a tiny number, d >= 0: each counts half, so that equals share.
    d = a - b
    return (where_above(g, d, 0) + where_above(g, d, -1e-37)) * 0.5


def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x, but at least `low` and at most `high`; at either, the slope is x's."""
    return torch.where(x < low, low, torch.where(x > high, high, x))


def clip_a(g: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The gradient of `clip` at what is clipped."""
    return torch.where((a < b) | (a > c), 0.0, g)


def clip_b(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The gradient of `clip` at the lower end."""
    return torch.where(a < b, g, 0.0)


def clip_c(g: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The gradient of `clip` at the upper end."""
    return torch.where((a < b) | ~(a > c), 0.0, g)


ARITHMETIC = (
    Primitive("neg", 1, torch.neg, (FLIP,), "-#1", lambda s, x: -x, "-{a}", ODD, "-"),
    Primitive(
        "add",
        2,
        torch.add,
        (PASS, PASS),
        "#1 + #2",
        lambda s, x, y: x + y,
        "{a} + {b}",
        symbol="+",
    ),
    Primitive(
        "sub",
        2,
        torch.sub,
        (PASS, FLIP),
        "#1 - #2",
        lambda s, x, y: x - y,
        "{a} - {b}",
        symbol="-",
    ),
    Primitive(
        "mul",
        2,
        torch.mul,
        (PartialDerivative("gb", torch.mul), PartialDerivative("ga", torch.mul)),
        r"#1 \cdot #2",
        lambda s, x, y: x * y,
        "{a} * {b}",
        symbol="*",
    ),
    Primitive(
        "div",
        2,
        torch.div,
        (PartialDerivative("gb", torch.div), PartialDerivative("gob", divide_b, -1)),
        r"\frac{#1}{#2}",
        lambda s, x, y: x / y,
        "{a} / {b}",
        symbol="/",
    ),
    Primitive(
        "pow",
        2,
        power,
        (PartialDerivative("gab", power_a), PartialDerivative("goa", power_b)),
        "{#1}^{#2}",
        lambda s, x, y: x**y,
        "torch.where(({a} == 0) & ({b} < 1), {a}.detach() ** {b}.detach(), "
        "torch.where(({a} == 0) & ({b} < 1), 1.0, {a}) ** {b})",
        symbol="**",
        plain=torch.pow,
    ),
    Primitive(
        "quotient",
        2,
        quotient,
        (PartialDerivative("gb", quotient_a), PartialDerivative("gob", quotient_b, -1)),
        r"\frac{#1}{#2 + \varepsilon}",
        lambda s, x, y: x / (y + EPSILON),
        "{a} / ({b} + 1e-07)",
    ),
    Primitive(
        "aq",
        2,
        aq,
        # The numerator's gradient, g/√(1 + b²), is the same function of g.
        (PartialDerivative("gb", aq), PartialDerivative("gob", aq_b, -1)),
        r"\frac{#1}{\sqrt{1 + \left(#2\right)^2}}",
        lambda s, x, y: x / s.sqrt(1 + y**2),
        "{a} / ({b} * {b} + 1).sqrt()",
        ODD,
    ),
    Primitive(
        "max",
        2,
        torch.maximum,
        (PartialDerivative("gab", maximum_a), PartialDerivative("gba", maximum_a)),
        r"\max\left(#1, #2\right)",
        lambda s, x, y: s.Max(x, y),
        "torch.maximum({a}, {b})",
    ),
    Primitive(
        "min",
        2,
        torch.minimum,
        (PartialDerivative("gba", maximum_a), PartialDerivative("gab", maximum_a)),
        r"\min\left(#1, #2\right)",
        lambda s, x, y: s.Min(x, y),
        "torch.minimum({a}, {b})",
    ),
    Primitive(
        "clip",
        3,
        clip,
        (
            PartialDerivative("gabc", clip_a),
            PartialDerivative("gab", clip_b),
            PartialDerivative("gabc", clip_c),
        ),
        r"\operatorname{clip}\left(#1, #2, #3\right)",
        lambda s, x, y, z: s.Min(s.Max(x, y), z),
        "torch.where({a} < {b}, {b}, torch.where({a} > {c}, {c}, {a}))",
    ),
)

INVERSE = Primitive(
    "inverse",
    1,
    inverse,
    (PartialDerivative("go", lambda g, o: g * o * o, -1),),
    r"\frac{1}{#1 + \varepsilon}",
    lambda s, x: 1 / (x + EPSILON),
    "1 / ({a} + 1e-07)",
)
