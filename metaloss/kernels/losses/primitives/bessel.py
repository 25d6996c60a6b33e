"""Modified Bessel functions of the first kind.

I0 and I1, times e^-x, are polynomials in x up to 8; beyond it they are polynomials in 1/x over √x,
as the library Cephes divides them (Moshier 1989). The coefficients are computed here, from the
functions' integrals.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.functions.exponential import ONE, exp
from metaloss.kernels.functions.interpolation import coefficients
from metaloss.kernels.jit import compiled, inlined
from metaloss.kernels.losses.primitives.magnitudes import TINY, sign_of
from metaloss.kernels.losses.primitives.selections import HALF, ZERO

SPLIT = np.float32(8)  # where one polynomial gives way to the other
QUARTER = np.float32(0.25)
SIXTEEN = np.float32(16)
BOUND = np.float32(80)  # beyond it I0 and I1 are held, as in the table of primitives

OPERATIONS = range(112, 120)
(
    I0,
    I0_A,
    I1,
    I1_A,
    SCALED_I0,
    SCALED_I0_A,
    SCALED_I1,
    SCALED_I1_A,
) = OPERATIONS


def _scaled(order, x):
    """I_n(x) e^-x, by the trapezoidal rule on (1/π) ∫ e^(x (cos θ - 1)) cos(n θ) dθ over [0, π]."""
    angle = np.linspace(0, math.pi, 4001)
    value = np.exp(np.multiply.outer(x, np.cos(angle) - 1)) * np.cos(order * angle)
    return (value.sum(-1) - (value[..., 0] + value[..., -1]) / 2) / 4000


def _near(order):
    """Coefficients up to 8, of x/4 - 1; of I1 over x."""
    c = coefficients(lambda t: _scaled(order, 4 * (t + 1)) / (4 * (t + 1)) ** order, -1, 1, 18)
    # Those of odd and of even powers: LLVM writes out loops as short as these alone.
    return c[::2], c[1::2]


def _far(order):
    """Coefficients beyond 8, of 16/x - 1, of √x times the function."""
    return coefficients(lambda t: _scaled(order, 16 / (t + 1)) * np.sqrt(16 / (t + 1)), -1, 1, 8)


I0_NEAR = _near(0)
I1_NEAR = _near(1)
I0_FAR = _far(0)
I1_FAR = _far(1)


@inlined
def _value(near, far, size, factor):
    """A function from its two polynomials, at |x|; the factor is that of the near one."""
    t = size * QUARTER - ONE
    square = t * t
    odd = near[0][0]
    for c in near[0][1:]:
        odd = odd * square + c
    even = near[1][0]
    for c in near[1][1:]:
        even = even * square + c
    y = odd * t + even
    u = SIXTEEN / size - ONE
    z = far[0]
    for c in far[1:]:
        z = z * u + c
    # NaN fails the comparison, and stays in the second one.
    return y * factor if size <= SPLIT else z / np.sqrt(size)


@inlined
def scaled_i0_of(x):
    """I0(x) e^-|x|."""
    return _value(I0_NEAR, I0_FAR, abs(x), ONE)


@inlined
def scaled_i1_of(x):
    """I1(x) e^-|x|."""
    size = abs(x)
    value = _value(I1_NEAR, I1_FAR, size, size)
    return -value if x < ZERO else value


@inlined
def held(x):
    """x, held between ±BOUND."""
    return -BOUND if x < -BOUND else BOUND if x > BOUND else x


@inlined
def i0_of(x):
    """I0(x), held beyond ±BOUND."""
    return scaled_i0_of(held(x)) * exp(abs(held(x)))


@inlined
def i1_of(x):
    """I1(x), held beyond ±BOUND."""
    return scaled_i1_of(held(x)) * exp(abs(held(x)))


@inlined
def ratio(o, a):
    """o/a for an odd function with slope 1/2 at 0, where this is 1/2 too."""
    return (abs(o) + TINY * HALF) / (abs(a) + TINY)


@compiled
def i0(rows, a, result):
    """Fills I0(a), held beyond ±BOUND."""
    for i in range(rows.shape[1]):
        rows[result, i] = i0_of(rows[a, i])


@compiled
def i0_a(rows, g, a, result):
    """Fills the gradient of I0(a); 0 where it is held."""
    for i in range(rows.shape[1]):
        value = rows[g, i] * i1_of(rows[a, i])
        rows[result, i] = ZERO if abs(rows[a, i]) >= BOUND else value


@compiled
def i1(rows, a, result):
    """Fills I1(a), held beyond ±BOUND."""
    for i in range(rows.shape[1]):
        rows[result, i] = i1_of(rows[a, i])


@compiled
def i1_a(rows, g, o, a, result):
    """Fills the gradient of I1(a); 0 where it is held."""
    for i in range(rows.shape[1]):
        value = rows[g, i] * (i0_of(rows[a, i]) - ratio(rows[o, i], rows[a, i]))
        rows[result, i] = ZERO if abs(rows[a, i]) >= BOUND else value


@compiled
def scaled_i0(rows, a, result):
    """Fills I0(a) e^-|a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = scaled_i0_of(rows[a, i])


@compiled
def scaled_i0_a(rows, g, o, a, result):
    """Fills the gradient of I0(a) e^-|a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (scaled_i1_of(rows[a, i]) - sign_of(rows[a, i]) * rows[o, i])


@compiled
def scaled_i1(rows, a, result):
    """Fills I1(a) e^-|a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = scaled_i1_of(rows[a, i])


@compiled
def scaled_i1_a(rows, g, o, a, result):
    """Fills the gradient of I1(a) e^-|a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (
            scaled_i0_of(rows[a, i]) - abs(rows[o, i]) - ratio(rows[o, i], rows[a, i])
        )


@compiled
def run(rows, operation, a, b, c, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == I0:
        i0(rows, a, result)
    elif operation == I0_A:
        i0_a(rows, a, b, result)
    elif operation == I1:
        i1(rows, a, result)
    elif operation == I1_A:
        i1_a(rows, a, b, c, result)
    elif operation == SCALED_I0:
        scaled_i0(rows, a, result)
    elif operation == SCALED_I0_A:
        scaled_i0_a(rows, a, b, c, result)
    elif operation == SCALED_I1:
        scaled_i1(rows, a, result)
    elif operation == SCALED_I1_A:
        scaled_i1_a(rows, a, b, c, result)
