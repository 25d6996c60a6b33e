"""Functions that torch computes number by number, or in several passes, of float32: modified Bessel
functions, hyperbolic ones, softplus, and derivatives of sigmoids.

Of the Bessel functions I0 and I1, times e^-x, Chebyshev series are summed (Clenshaw 1955): in x up
to 8, and in 1/x of √x times the function beyond it, as the library Cephes divides them (Moshier
1989). The coefficients are computed here, from the functions' integrals.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from numpy.polynomial.chebyshev import chebinterpolate

from metaloss.kernels.exponential import ONE, exp, expm1
from metaloss.kernels.jit import compiled
from metaloss.kernels.logarithm import TWO, log1p

HALF = np.float32(0.5)
ZERO = np.float32(0)
LN2 = np.float32(math.log(2))
SPLIT = np.float32(8)  # where one series gives way to the other
LARGE = np.float32(80)  # from here on e^-x is nothing beside e^x, and e^x is near its largest
HUGE = np.float32(1e9)  # from here on √(x² + 1) is x
BLOCK = 512  # numbers whose series are summed at once
BOUND = np.float32(80)  # beyond it I0 and I1 are held, as in the table of primitives


def scaled_bessel(order, x):
    """I_n(x) e^-x, by the trapezoidal rule on (1/π) ∫ e^(x (cos θ - 1)) cos(n θ) dθ over [0, π]."""
    angle = np.linspace(0, math.pi, 4001)
    value = np.exp(np.multiply.outer(x, np.cos(angle) - 1)) * np.cos(order * angle)
    return (value.sum(-1) - (value[..., 0] + value[..., -1]) / 2) / 4000


def series(order, divisor, terms):
    """Coefficients of both series, the highest first.

    Args:
        order: of the function.
        divisor: the power of x that the function is divided by up to SPLIT.
        terms: how many of each.
    """

    def near(t):
        x = (t + 1) * 4
        return scaled_bessel(order, x) / x**divisor

    def far(t):
        x = 16 / (t + 1)
        return scaled_bessel(order, x) * np.sqrt(x)

    return tuple(chebinterpolate(f, terms - 1)[::-1].astype(np.float32) for f in (near, far))


I0_NEAR, I0_FAR = series(0, 0, 18)
I1_NEAR, I1_FAR = series(1, 1, 18)


@compiled
def _add_up(coefficients, t, total, before):
    """Fills `total` with a Chebyshev series at each t [numbers]; `before` is room."""
    total[:] = 0
    before[:] = 0
    for c in coefficients:
        for i in range(len(t)):
            old = total[i]
            total[i] = TWO * t[i] * old - before[i] + c
            before[i] = old
    for i in range(len(t)):
        total[i] -= t[i] * before[i]


@compiled
def _fill_scaled(x, near, far, odd, result):
    """Fills I0(x) e^-|x| from its series, or I1's, which is odd."""
    buffers = np.empty((4, BLOCK), np.float32)
    for at in range(0, len(x), BLOCK):
        y = x[at : at + BLOCK]
        value = result[at : at + BLOCK]
        # --- buffers: t, the two sums, room ---
        t = buffers[0, : len(y)]
        low = buffers[1, : len(y)]
        high = buffers[2, : len(y)]
        room = buffers[3, : len(y)]
        for i in range(len(y)):
            t[i] = abs(y[i]) * np.float32(0.25) - ONE
        _add_up(near, t, low, room)
        for i in range(len(y)):
            t[i] = np.float32(16) / abs(y[i]) - ONE
        _add_up(far, t, high, room)
        for i in range(len(y)):
            size = abs(y[i])
            factor = size if odd else ONE
            # NaN fails the comparison, and stays in the second one.
            z = low[i] * factor if size <= SPLIT else high[i] / np.sqrt(size)
            value[i] = -z if odd and y[i] < ZERO else z


@compiled
def _fill_held(x, near, far, odd, result):
    """Fills I0(x), or I1(x), held beyond ±BOUND."""
    held = np.empty_like(x)
    for i in range(len(x)):
        held[i] = -BOUND if x[i] < -BOUND else BOUND if x[i] > BOUND else x[i]
    _fill_scaled(held, near, far, odd, result)
    for i in range(len(x)):
        result[i] *= exp(abs(held[i]))


@compiled
def fill_i0e(x, result):
    """Fills I0(x) e^-|x|."""
    _fill_scaled(x, I0_NEAR, I0_FAR, False, result)


@compiled
def fill_i1e(x, result):
    """Fills I1(x) e^-|x|."""
    _fill_scaled(x, I1_NEAR, I1_FAR, True, result)


@compiled
def fill_i0(x, result):
    """Fills I0(x), held beyond ±BOUND."""
    _fill_held(x, I0_NEAR, I0_FAR, False, result)


@compiled
def fill_i1(x, result):
    """Fills I1(x), held beyond ±BOUND."""
    _fill_held(x, I1_NEAR, I1_FAR, True, result)


@compiled
def fill_softplus(x, result):
    """Fills ln(1 + eˣ)."""
    for i in range(len(x)):
        y = x[i]
        value = (ZERO if y < ZERO else y) + log1p(exp(-abs(y)))
        # exp stops short of 0.
        result[i] = ZERO if y < -LARGE else value


@compiled
def fill_sinh(x, result):
    """Fills sinh x."""
    for i in range(len(x)):
        size = abs(x[i])
        e = expm1(size)
        near = HALF * (e + e / (e + ONE))
        root = exp(HALF * size)
        # In this order it becomes infinite where sinh x does.
        value = HALF * root * root if size > LARGE else near
        result[i] = -value if x[i] < ZERO else value


@compiled
def fill_cosh(x, result):
    """Fills cosh x."""
    for i in range(len(x)):
        size = abs(x[i])
        e = exp(size)
        root = exp(HALF * size)
        result[i] = HALF * root * root if size > LARGE else HALF * (e + ONE / e)


@compiled
def fill_asinh(x, result):
    """Fills arsinh x."""
    for i in range(len(x)):
        size = abs(x[i])
        square = size * size
        huge = size > HUGE
        value = log1p(size if huge else size + square / (ONE + np.sqrt(square + ONE)))
        value = value + LN2 if huge else value
        value = size if size == np.float32(np.inf) else value
        result[i] = -value if x[i] < ZERO else value


@compiled
def fill_tanh(x, result):
    """Fills tanh x."""
    for i in range(len(x)):
        e = expm1(-TWO * abs(x[i]))
        value = -e / (TWO + e)
        result[i] = -value if x[i] < ZERO else value


@compiled
def fill_dtanh(x, result):
    """Fills 1 - tanh² x."""
    for i in range(len(x)):
        e = exp(-TWO * abs(x[i]))
        value = TWO * TWO * e / ((ONE + e) * (ONE + e))
        # exp stops short of 0.
        result[i] = ZERO if abs(x[i]) > HALF * LARGE else value


@compiled
def fill_dsigmoid(x, result):
    """Fills σ(x) (1 - σ(x))."""
    for i in range(len(x)):
        e = exp(-abs(x[i]))
        value = e / ((ONE + e) * (ONE + e))
        result[i] = ZERO if abs(x[i]) > LARGE else value
