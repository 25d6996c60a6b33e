"""The table of primitives: what a loss may be written in, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaloss.losses.language import kernels as k


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


def _op(name: str) -> str:
    return rf"\operatorname{{{name}}}\left(#1\right)"


# Passing a gradient on takes no step of a program.
_PASS = PartialDerivative("g", None)
_FLIP = PartialDerivative("g", None, -1)
_EVEN = 1
_ODD = -1

_ROWS = (
    # --- arithmetic ---
    Primitive("neg", 1, torch.neg, (_FLIP,), "-#1", lambda s, x: -x, "-{a}", _ODD, "-"),
    Primitive(
        "add",
        2,
        torch.add,
        (_PASS, _PASS),
        "#1 + #2",
        lambda s, x, y: x + y,
        "{a} + {b}",
        symbol="+",
    ),
    Primitive(
        "sub",
        2,
        torch.sub,
        (_PASS, _FLIP),
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
        (PartialDerivative("gb", torch.div), PartialDerivative("gob", k.divide_b, -1)),
        r"\frac{#1}{#2}",
        lambda s, x, y: x / y,
        "{a} / {b}",
        symbol="/",
    ),
    Primitive(
        "pow",
        2,
        k.power,
        (PartialDerivative("gab", k.power_a), PartialDerivative("goa", k.power_b)),
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
        k.quotient,
        (PartialDerivative("gb", k.quotient_a), PartialDerivative("gob", k.quotient_b, -1)),
        r"\frac{#1}{#2 + \varepsilon}",
        lambda s, x, y: x / (y + k.EPSILON),
        "{a} / ({b} + 1e-07)",
    ),
    Primitive(
        "aq",
        2,
        k.aq,
        # The numerator's gradient, g/√(1 + b²), is the same function of g.
        (PartialDerivative("gb", k.aq), PartialDerivative("gob", k.aq_b, -1)),
        r"\frac{#1}{\sqrt{1 + \left(#2\right)^2}}",
        lambda s, x, y: x / s.sqrt(1 + y**2),
        "{a} / ({b} * {b} + 1).sqrt()",
        _ODD,
    ),
    # --- selection ---
    Primitive(
        "max",
        2,
        torch.maximum,
        (PartialDerivative("gab", k.maximum_a), PartialDerivative("gba", k.maximum_a)),
        r"\max\left(#1, #2\right)",
        lambda s, x, y: s.Max(x, y),
        "torch.maximum({a}, {b})",
    ),
    Primitive(
        "min",
        2,
        torch.minimum,
        (PartialDerivative("gba", k.maximum_a), PartialDerivative("gab", k.maximum_a)),
        r"\min\left(#1, #2\right)",
        lambda s, x, y: s.Min(x, y),
        "torch.minimum({a}, {b})",
    ),
    Primitive(
        "clip",
        3,
        k.clip,
        (
            PartialDerivative("gabc", k.clip_a),
            PartialDerivative("gab", k.clip_b),
            PartialDerivative("gabc", k.clip_c),
        ),
        r"\operatorname{clip}\left(#1, #2, #3\right)",
        lambda s, x, y, z: s.Min(s.Max(x, y), z),
        "torch.where({a} < {b}, {b}, torch.where({a} > {c}, {c}, {a}))",
    ),
    # --- exponentials, logarithms and roots ---
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
        k.ln,
        (PartialDerivative("ga", k.ln_a),),
        r"\ln\left(\left|#1\right| + \varepsilon\right)",
        lambda s, x: s.log(s.Abs(x) + k.EPSILON),
        "({a}.abs() + 1e-07).log()",
        _EVEN,
    ),
    Primitive(
        "log10",
        1,
        k.log10,
        (PartialDerivative("ga", k.log10_a),),
        r"\log_{10}\left(\left|#1\right| + \varepsilon\right)",
        lambda s, x: s.log(s.Abs(x) + k.EPSILON) / s.log(10),
        "({a}.abs() + 1e-07).log10()",
        _EVEN,
    ),
    Primitive(
        "log_clamp",
        1,
        k.log_clamp,
        (PartialDerivative("ga", k.log_clamp_a),),
        r"\ln\max\left(\left|#1\right|, \varepsilon\right)",
        lambda s, x: s.log(s.Max(s.Abs(x), k.EPSILON)),
        "torch.where({a}.abs() <= 1e-07, 1e-07, {a}).abs().log()",
        _EVEN,
        plain=k.plain_log_clamp,
    ),
    Primitive(
        "sqrt",
        1,
        k.sqrt,
        (PartialDerivative("goa", k.sqrt_a),),
        r"\sqrt{\left|#1\right|}",
        lambda s, x: s.sqrt(s.Abs(x)),
        "torch.where({a} == 0, 0.0, torch.where({a} == 0, 1.0, {a}).abs().sqrt())",
        _EVEN,
        plain=k.plain_sqrt,
    ),
    Primitive(
        "sqrt_clamp",
        1,
        k.sqrt_clamp,
        (PartialDerivative("goa", k.sqrt_clamp_a),),
        r"\sqrt{\max\left(\left|#1\right|, \varepsilon\right)}",
        lambda s, x: s.sqrt(s.Max(s.Abs(x), k.EPSILON)),
        "torch.where({a}.abs() <= 1e-07, 1e-07, {a}).abs().sqrt()",
        _EVEN,
        plain=k.plain_sqrt_clamp,
    ),
    # --- square, absolute value, sign and both relus ---
    Primitive(
        "square",
        1,
        torch.square,
        (PartialDerivative("ga", lambda g, a: g * (a + a)),),
        r"\left(#1\right)^2",
        lambda s, x: x**2,
        "{a}.square()",
        _EVEN,
    ),
    Primitive(
        "abs",
        1,
        torch.abs,
        (PartialDerivative("ga", lambda g, a: g * a.sign()),),
        r"\left|#1\right|",
        lambda s, x: s.Abs(x),
        "{a}.abs()",
        _EVEN,
    ),
    Primitive(
        "sign", 1, torch.sign, (None,), _op("sign"), lambda s, x: s.sign(x), "{a}.sign()", _ODD
    ),
    Primitive(
        "relu",
        1,
        torch.relu,
        (PartialDerivative("ga", k.relu_a),),
        r"\max\left(#1, 0\right)",
        lambda s, x: s.Max(x, 0),
        "{a}.relu()",
    ),
    Primitive(
        "nrelu",
        1,
        k.nrelu,
        (PartialDerivative("ga", k.nrelu_a),),
        r"\min\left(#1, 0\right)",
        lambda s, x: s.Min(x, 0),
        "-(-{a}).relu()",
    ),
    # --- sigmoids, their derivatives and integral ---
    Primitive(
        "sigmoid",
        1,
        torch.sigmoid,
        (PartialDerivative("go", k.sigmoid_a),),
        r"\sigma\left(#1\right)",
        lambda s, x: 1 / (1 + s.exp(-x)),
        "{a}.sigmoid()",
    ),
    Primitive(
        "dsigmoid",
        1,
        k.dsigmoid,
        (PartialDerivative("goa", k.dsigmoid_a, -1),),
        r"\sigma'\left(#1\right)",
        lambda s, x: 1 / (2 + s.exp(x) + s.exp(-x)),
        "{a}.sigmoid() * (-{a}).sigmoid()",
        _EVEN,
    ),
    Primitive(
        "softplus",
        1,
        k.softplus,
        (PartialDerivative("ga", lambda g, a: g * a.sigmoid()),),
        r"\ln\left(1 + e^{#1}\right)",
        lambda s, x: s.log(1 + s.exp(x)),
        "torch.nn.functional.softplus({a}, threshold=40.0)",
    ),
    Primitive(
        "softsign",
        1,
        torch.nn.functional.softsign,
        (PartialDerivative("ga", k.softsign_a),),
        _op("softsign"),
        lambda s, x: x / (1 + s.Abs(x)),
        "{a} / (1 + {a}.abs())",
        _ODD,
    ),
    Primitive(
        "deriv_soft",
        1,
        k.deriv_soft,
        (PartialDerivative("goa", k.deriv_soft_a, -1),),
        r"\frac{1}{1 + \left|#1\right|}",
        lambda s, x: 1 / (1 + s.Abs(x)),
        "1 / (1 + {a}.abs())",
        _EVEN,
    ),
    Primitive(
        "tanh",
        1,
        torch.tanh,
        (PartialDerivative("go", k.tanh_a),),
        r"\tanh\left(#1\right)",
        lambda s, x: s.tanh(x),
        "{a}.tanh()",
        _ODD,
    ),
    Primitive(
        "dtanh",
        1,
        k.dtanh,
        (PartialDerivative("goa", k.dtanh_a, -1),),
        r"\left(1 - \tanh^2\left(#1\right)\right)",
        lambda s, x: 1 - s.tanh(x) ** 2,
        "1 - {a}.tanh().square()",
        _EVEN,
    ),
    Primitive(
        "erf",
        1,
        torch.erf,
        (PartialDerivative("ga", k.erf_a),),
        _op("erf"),
        lambda s, x: s.erf(x),
        "{a}.erf()",
        _ODD,
    ),
    Primitive(
        "erfc",
        1,
        torch.erfc,
        (PartialDerivative("ga", k.erf_a, -1),),
        _op("erfc"),
        lambda s, x: s.erfc(x),
        "{a}.erfc()",
    ),
    # --- trigonometric and hyperbolic functions ---
    Primitive(
        "sin",
        1,
        torch.sin,
        (PartialDerivative("ga", lambda g, a: g * a.cos()),),
        r"\sin\left(#1\right)",
        lambda s, x: s.sin(x),
        "{a}.sin()",
        _ODD,
    ),
    Primitive(
        "cos",
        1,
        torch.cos,
        (PartialDerivative("ga", lambda g, a: g * a.sin(), -1),),
        r"\cos\left(#1\right)",
        lambda s, x: s.cos(x),
        "{a}.cos()",
        _EVEN,
    ),
    Primitive(
        "sinh",
        1,
        torch.sinh,
        (PartialDerivative("ga", lambda g, a: g * a.cosh()),),
        r"\sinh\left(#1\right)",
        lambda s, x: s.sinh(x),
        "{a}.sinh()",
        _ODD,
    ),
    Primitive(
        "asinh",
        1,
        torch.asinh,
        (PartialDerivative("ga", k.asinh_a),),
        _op("arsinh"),
        lambda s, x: s.asinh(x),
        "{a}.asinh()",
        _ODD,
    ),
    Primitive(
        "atan",
        1,
        torch.atan,
        (PartialDerivative("ga", k.atan_a),),
        r"\arctan\left(#1\right)",
        lambda s, x: s.atan(x),
        "{a}.atan()",
        _ODD,
    ),
    # --- the protected inverse ---
    Primitive(
        "inverse",
        1,
        k.inverse,
        (PartialDerivative("go", lambda g, o: g * o * o, -1),),
        r"\frac{1}{#1 + \varepsilon}",
        lambda s, x: 1 / (x + k.EPSILON),
        "1 / ({a} + 1e-07)",
    ),
    # --- Bessel functions ---
    Primitive(
        "i0",
        1,
        k.i0,
        (PartialDerivative("ga", k.i0_a),),
        r"I_0\left(#1\right)",
        lambda s, x: s.besseli(0, x),
        "torch.special.i0({a}.clamp(-80.0, 80.0))",
        _EVEN,
    ),
    Primitive(
        "i0e",
        1,
        torch.special.i0e,
        (PartialDerivative("goa", k.i0e_a),),
        r"\tilde{I}_0\left(#1\right)",
        lambda s, x: s.besseli(0, x) * s.exp(-s.Abs(x)),
        "torch.special.i0e({a})",
        _EVEN,
    ),
    Primitive(
        "i1",
        1,
        k.i1,
        (PartialDerivative("goa", k.i1_a),),
        r"I_1\left(#1\right)",
        lambda s, x: s.besseli(1, x),
        "torch.special.i1({a}.clamp(-80.0, 80.0))",
        _ODD,
    ),
    Primitive(
        "i1e",
        1,
        torch.special.i1e,
        (PartialDerivative("goa", k.i1e_a),),
        r"\tilde{I}_1\left(#1\right)",
        lambda s, x: s.besseli(1, x) * s.exp(-s.Abs(x)),
        "torch.special.i1e({a})",
        _ODD,
    ),
)

PRIMITIVES = {row.name: row for row in _ROWS}

# Morgan 2024, table 2, in the order of their code; protected ("ln", "quotient", ...) as there.
MORGAN_UNARY = (
    "neg",
    "ln",
    "log10",
    "exp",
    "abs",
    "sigmoid",
    "deriv_soft",
    "softplus",
    "erf",
    "erfc",
    "sin",
    "sinh",
    "asinh",
    "tanh",
    "atan",
    "inverse",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "relu",
    "nrelu",
    "square",
    "sqrt",
    "softsign",
    "dtanh",
    "dsigmoid",
)
MORGAN_BINARY = ("add", "sub", "mul", "max", "min", "quotient", "aq")
# Raymond 2023 (EvoMAL).
EVOMAL = (
    "add",
    "sub",
    "mul",
    "aq",
    "sign",
    "square",
    "abs",
    "log_clamp",
    "sqrt_clamp",
    "tanh",
    "min",
    "max",
)
