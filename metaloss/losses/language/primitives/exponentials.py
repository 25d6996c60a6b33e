"""Exponentials and logarithms."""

import math

import torch
from torch import Tensor

from metaloss.losses.language.primitives.base import (
    EPSILON,
    EVEN,
    PartialDerivative,
    Primitive,
    where_above,
)


def ln(x: Tensor) -> Tensor:
    """ln(|x| + ε) (Morgan 2024)."""
    return (x.abs() + EPSILON).log()


def ln_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of `ln` at its argument."""
    return g * a.sign() / (a.abs() + EPSILON)


def log10(x: Tensor) -> Tensor:
    """ln(|x| + ε) / ln 10 (Morgan 2024)."""
    return (x.abs() + EPSILON).log10()


def log10_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of `log10` at its argument."""
    return g * a.sign() / (a.abs() + EPSILON).mul_(math.log(10))


def log_clamp(x: Tensor) -> Tensor:
    """ln max(|x|, ε) (Raymond 2023)."""
    # A constant takes the place of a small x, so that autograd gives 0 there.
    return torch.where(x.abs() <= EPSILON, EPSILON, x).abs().log()


def plain_log_clamp(x: Tensor) -> Tensor:
    """The values of `log_clamp`."""
    return x.abs().clamp_(min=EPSILON).log_()


def log_clamp_a(g: Tensor, a: Tensor) -> Tensor:
    """The gradient of `log_clamp` at its argument; 0 where it is flat."""
    # ln|a| has the slope 1/a on both sides of 0.
    return where_above(g / a, a.abs(), EPSILON)


EXPONENTIALS = (
    Primitive(
        "exp",
        1,
        torch.exp,
        (PartialDerivative("go", torch.mul),),
        "e^{#1}",
        lambda s, x: s.exp(x),
        "{a}.exp()",
    ),
    Primitive(
        "expm1",
        1,
        torch.expm1,
        (PartialDerivative("go", lambda g, o: g * (o + 1)),),
        r"\left(e^{#1} - 1\right)",
        lambda s, x: s.exp(x) - 1,
        "{a}.expm1()",
    ),
    Primitive(
        "exact_log",
        1,
        torch.log,
        (PartialDerivative("ga", torch.div),),
        r"\ln\left(#1\right)",
        lambda s, x: s.log(x),
        "{a}.log()",
    ),
    Primitive(
        "ln",
        1,
        ln,
        (PartialDerivative("ga", ln_a),),
        r"\ln\left(\left|#1\right| + \varepsilon\right)",
        lambda s, x: s.log(s.Abs(x) + EPSILON),
        "({a}.abs() + 1e-07).log()",
        EVEN,
    ),
    Primitive(
        "log10",
        1,
        log10,
        (PartialDerivative("ga", log10_a),),
        r"\log_{10}\left(\left|#1\right| + \varepsilon\right)",
        lambda s, x: s.log(s.Abs(x) + EPSILON) / s.log(10),
        "({a}.abs() + 1e-07).log10()",
        EVEN,
    ),
    Primitive(
        "log_clamp",
        1,
        log_clamp,
        (PartialDerivative("ga", log_clamp_a),),
        r"\ln\max\left(\left|#1\right|, \varepsilon\right)",
        lambda s, x: s.log(s.Max(s.Abs(x), EPSILON)),
        "torch.where({a}.abs() <= 1e-07, 1e-07, {a}).abs().log()",
        EVEN,
        plain=plain_log_clamp,
    ),
)
