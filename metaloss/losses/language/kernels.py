"""What primitives compute: functions protected as their sources protect them, and reverse
derivatives.

A reverse derivative takes the gradient `g` at the output and what it needs of the output `o` and
the arguments `a`, `b`, `c`, and gives the gradient at one argument. At a kink it gives what
autograd gives.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-7  # Morgan 2024 prints none; their code has Keras's
BOUND = 80.0  # beyond it i0 and i1 are held: they overflow in float32 at 92
# Keeps a divisor from being 0.
_TINY = 1e-30
# Its first argument where its second lies above its third, 0 elsewhere.
_THRESHOLD: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.aten.threshold_backward
# torch gives these no types.
_I0: Callable[[Tensor], Tensor] = torch.special.i0
_I1: Callable[[Tensor], Tensor] = torch.special.i1
_I0E: Callable[[Tensor], Tensor] = torch.special.i0e
_I1E: Callable[[Tensor], Tensor] = torch.special.i1e
sigmoid_a = torch.ops.aten.sigmoid_backward
tanh_a = torch.ops.aten.tanh_backward


def ln(x: Tensor) -> Tensor:
    """ln(|x| + ε) (Morgan 2024)."""
    return (x.abs() + EPSILON).log()


def ln_a(g: Tensor, a: Tensor) -> Tensor:
    """Of `ln`."""
    return g * a.sign() / (a.abs() + EPSILON)


def log10(x: Tensor) -> Tensor:
    """ln(|x| + ε) / ln 10 (Morgan 2024)."""
    return (x.abs() + EPSILON).log10()


def log10_a(g: Tensor, a: Tensor) -> Tensor:
    """Of `log10`."""
    return g * a.sign() / (a.abs() + EPSILON).mul_(math.log(10))


def plain_log_clamp(x: Tensor) -> Tensor:
    """The values of `log_clamp`."""
    return x.abs().clamp_(min=EPSILON).log_()


def plain_sqrt_clamp(x: Tensor) -> Tensor:
    """The values of `sqrt_clamp`."""
    return x.abs().clamp_(min=EPSILON).sqrt_()


def log_clamp(x: Tensor) -> Tensor:
    """ln max(|x|, ε) (Raymond 2023)."""
    # A constant takes the place of a small x, so that autograd gives 0 there.
    return torch.where(x.abs() <= EPSILON, EPSILON, x).abs().log()


def log_clamp_a(g: Tensor, a: Tensor) -> Tensor:
    """Of `log_clamp`; 0 where it is flat."""
    # ln|a| has the slope 1/a on both sides of 0.
    return _THRESHOLD(g / a, a.abs(), EPSILON)


def sqrt(x: Tensor) -> Tensor:
    """√|x| (Morgan 2024).

    Its infinite slope at 0 is taken as 0, so that no gradient becomes NaN there.
    """
    # Two selections: with the outer one alone, autograd would multiply 0 by infinity.
    free = x == 0
    return torch.where(free, 0.0, torch.where(free, 1.0, x).abs().sqrt())


def sqrt_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `sqrt`."""
    return g * a.sign() / (o + o).clamp_(min=_TINY)


def plain_sqrt(x: Tensor) -> Tensor:
    """The values of `sqrt`; autograd would give NaN at 0."""
    return x.abs().sqrt()


def sqrt_clamp(x: Tensor) -> Tensor:
    """√max(|x|, ε) (Raymond 2023)."""
    return torch.where(x.abs() <= EPSILON, EPSILON, x).abs().sqrt()


def sqrt_clamp_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `sqrt_clamp`."""
    return _THRESHOLD(g * a.sign() / (o + o), a.abs(), EPSILON)


def softplus(x: Tensor) -> Tensor:
    """ln(1 + eˣ), to the last digit of float64 and without overflow."""
    # torch's own threshold of 20, beyond which it returns x, is visible in float64.
    return F.softplus(x, threshold=40.0)


def relu_a(g: Tensor, a: Tensor) -> Tensor:
    """Of max(x, 0)."""
    return _THRESHOLD(g, a, 0)


def dsigmoid(x: Tensor) -> Tensor:
    """σ(x)(1 - σ(x)), the second factor as σ(-x), which does not cancel."""
    return x.sigmoid() * (-x).sigmoid()


def dsigmoid_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `dsigmoid`, without its sign: o·(2σ(a) - 1)."""
    # 2σ(a) - 1 = tanh(a/2), which does not cancel near 0.
    return g * o * (a * 0.5).tanh()


def dtanh(x: Tensor) -> Tensor:
    """1 - tanh²x."""
    return 1 - x.tanh().square()


def dtanh_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `dtanh`, without its sign: 2 tanh a (1 - tanh²a)."""
    return g * o * a.tanh() * 2


def softsign_a(g: Tensor, a: Tensor) -> Tensor:
    """Of x/(1 + |x|)."""
    return g / (a.abs() + 1).square()


def deriv_soft(x: Tensor) -> Tensor:
    """1/(1 + |x|), which the code of Morgan 2024 calls softsign's derivative.

    That is in truth the square of it.
    """
    return 1 / (1 + x.abs())


def deriv_soft_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `deriv_soft`, without its sign."""
    return g * a.sign() * o * o


def erf_a(g: Tensor, a: Tensor) -> Tensor:
    """Of erf."""
    return g * (a * -a).exp() * (2 / math.sqrt(math.pi))


def asinh_a(g: Tensor, a: Tensor) -> Tensor:
    """Of asinh."""
    return g / (a * a + 1).sqrt()


def atan_a(g: Tensor, a: Tensor) -> Tensor:
    """Of atan."""
    return g / (a * a + 1)


def i0(x: Tensor) -> Tensor:
    """The modified Bessel function I0, held beyond ±80."""
    return _I0(x.clamp(-BOUND, BOUND))


def i0_a(g: Tensor, a: Tensor) -> Tensor:
    """Of `i0`."""
    # -|a| > -80 is |a| < 80: beyond it the value is held, and its slope is 0.
    return _THRESHOLD(g * _I1(a), -a.abs(), -BOUND)


def i1(x: Tensor) -> Tensor:
    """The modified Bessel function I1, held beyond ±80."""
    return _I1(x.clamp(-BOUND, BOUND))


def _ratio(o: Tensor, a: Tensor) -> Tensor:
    """o/a for an odd function with slope 1/2 at 0, where this is 1/2 too."""
    return (o.abs() + _TINY / 2) / (a.abs() + _TINY)


def i1_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `i1`: I0 - I1/x, at 0 a half."""
    return _THRESHOLD(g * (_I0(a) - _ratio(o, a)), -a.abs(), -BOUND)


def i0e_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of I0(x) e^(-|x|)."""
    return g * (_I1E(a) - a.sign() * o)


def i1e_a(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of I1(x) e^(-|x|); at 0 a half."""
    return g * (_I0E(a) - o.abs() - _ratio(o, a))


def inverse(x: Tensor) -> Tensor:
    """1/(x + ε) (Morgan 2024); its pole is at -ε."""
    return 1 / (x + EPSILON)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """a/(b + ε) (Morgan 2024)."""
    return a / (b + EPSILON)


def quotient_a(g: Tensor, b: Tensor) -> Tensor:
    """Of `quotient`."""
    return g / (b + EPSILON)


def quotient_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """Of `quotient`, without its sign."""
    return g * o / (b + EPSILON)


def divide_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """Of a/b, without its sign."""
    return g * o / b


def aq(a: Tensor, b: Tensor) -> Tensor:
    """The analytic quotient a/√(1 + b²)."""
    return a / (b * b + 1).sqrt()


def aq_b(g: Tensor, o: Tensor, b: Tensor) -> Tensor:
    """Of `aq`, without its sign."""
    return g * o * b / (b * b + 1)


def maximum_a(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The gradient of max at its first argument; equal arguments share it.

    It selects rather than multiplies: 0·NaN must not reach the argument that was not the greater.
    """
    # d > 0 and, but for a tiny number, d >= 0: each counts half, so that equals share.
    d = a - b
    return (_THRESHOLD(g, d, 0) + _THRESHOLD(g, d, -1e-37)) * 0.5


def power(a: Tensor, b: Tensor) -> Tensor:
    """aᵇ; where a is 0 and its slope infinite (b < 1), the slope is taken as 0."""
    # As in `sqrt`, the slope that is not wanted must not be computed at all.
    free = (a == 0) & (b < 1)
    return torch.where(free, a.detach() ** b.detach(), torch.where(free, 1.0, a) ** b)


def power_a(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Of `power`, by the base."""
    return torch.where((a == 0) & (b < 1), 0.0, g * b * a ** (b - 1))


def power_b(g: Tensor, o: Tensor, a: Tensor) -> Tensor:
    """Of `power`, by the exponent."""
    # ln 0 is infinite, and its product with 0 would be NaN.
    return torch.where(a == 0, 0.0, g * o * a.log())


def nrelu(x: Tensor) -> Tensor:
    """min(x, 0)."""
    return -(-x).relu()


def nrelu_a(g: Tensor, a: Tensor) -> Tensor:
    """Of `nrelu`."""
    return _THRESHOLD(g, -a, 0)


def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x, but at least `low` and at most `high`; at either, the slope is x's."""
    return torch.where(x < low, low, torch.where(x > high, high, x))


def clip_a(g: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Of `clip`, by what is clipped."""
    return torch.where((a < b) | (a > c), 0.0, g)


def clip_b(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Of `clip`, by the lower end."""
    return torch.where(a < b, g, 0.0)


def clip_c(g: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Of `clip`, by the upper end."""
    return torch.where((a < b) | ~(a > c), 0.0, g)


def subcmul(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a - b·c."""
    return torch.addcmul(a, b, c, value=-1)
