"""Sigmoids, their derivatives and the integral of one."""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.functions.error_function import erf_of, erfc_of
from metaloss.kernels.functions.exponential import ONE, whole_exp
from metaloss.kernels.functions.exponential import expm1 as exp_less_one
from metaloss.kernels.functions.logarithm import TWO, log1p
from metaloss.kernels.jit import compiled, inlined
from metaloss.kernels.losses.primitives.magnitudes import sign_of
from metaloss.kernels.losses.primitives.selections import HALF, ZERO

ERF_SLOPE = np.float32(2 / math.sqrt(math.pi))  # at 0

OPERATIONS = range(64, 81)
(
    SIGMOID,
    SIGMOID_A,
    SIGMOID_SLOPE,
    SIGMOID_SLOPE_A,
    SOFTPLUS,
    SOFTPLUS_A,
    SOFTSIGN,
    SOFTSIGN_A,
    SOFT_SLOPE,
    SOFT_SLOPE_A,
    TANH,
    TANH_A,
    TANH_SLOPE,
    TANH_SLOPE_A,
    ERF,
    ERFC,
    ERF_A,
) = OPERATIONS


@inlined
def sigmoid_of(x):
    """1 / (1 + e^-x)."""
    return ONE / (ONE + whole_exp(-x))


@inlined
def tanh_of(x):
    """tanh x."""
    e = exp_less_one(-TWO * abs(x))
    value = -e / (TWO + e)
    return -value if x < ZERO else value


@compiled
def sigmoid(rows, a, result):
    """Fills σ(a)."""
    for i in range(rows.shape[1]):
        rows[result, i] = sigmoid_of(rows[a, i])


@compiled
def sigmoid_a(rows, g, o, result):
    """Fills the gradient of σ(a)."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (ONE - rows[o, i]) * rows[o, i]


@compiled
def sigmoid_slope(rows, a, result):
    """Fills σ(a) (1 - σ(a))."""
    for i in range(rows.shape[1]):
        e = whole_exp(-abs(rows[a, i]))
        rows[result, i] = e / ((ONE + e) * (ONE + e))


@compiled
def sigmoid_slope_a(rows, g, o, a, result):
    """Fills the gradient of `sigmoid_slope`, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] * tanh_of(rows[a, i] * HALF)


@compiled
def softplus(rows, a, result):
    """Fills ln(1 + e^a)."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        rows[result, i] = (ZERO if x < ZERO else x) + log1p(whole_exp(-abs(x)))


@compiled
def softplus_a(rows, g, a, result):
    """Fills the gradient of `softplus`."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * sigmoid_of(rows[a, i])


@compiled
def softsign(rows, a, result):
    """Fills a / (1 + |a|)."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] / (ONE + abs(rows[a, i]))


@compiled
def softsign_a(rows, g, a, result):
    """Fills the gradient of `softsign`."""
    for i in range(rows.shape[1]):
        more = abs(rows[a, i]) + ONE
        rows[result, i] = rows[g, i] / (more * more)


@compiled
def soft_slope(rows, a, result):
    """Fills 1 / (1 + |a|)."""
    for i in range(rows.shape[1]):
        rows[result, i] = ONE / (ONE + abs(rows[a, i]))


@compiled
def soft_slope_a(rows, g, o, a, result):
    """Fills the gradient of `soft_slope`, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * sign_of(rows[a, i]) * rows[o, i] * rows[o, i]


@compiled
def tanh(rows, a, result):
    """Fills tanh a."""
    for i in range(rows.shape[1]):
        rows[result, i] = tanh_of(rows[a, i])


@compiled
def tanh_a(rows, g, o, result):
    """Fills the gradient of tanh a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (ONE - rows[o, i] * rows[o, i])


@compiled
def tanh_slope(rows, a, result):
    """Fills 1 - tanh² a."""
    for i in range(rows.shape[1]):
        e = whole_exp(-TWO * abs(rows[a, i]))
        rows[result, i] = TWO * TWO * e / ((ONE + e) * (ONE + e))


@compiled
def tanh_slope_a(rows, g, o, a, result):
    """Fills the gradient of `tanh_slope`, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] * tanh_of(rows[a, i]) * TWO


@compiled
def erf(rows, a, result):
    """Fills erf a."""
    for i in range(rows.shape[1]):
        rows[result, i] = erf_of(rows[a, i])


@compiled
def erfc(rows, a, result):
    """Fills 1 - erf a."""
    for i in range(rows.shape[1]):
        rows[result, i] = erfc_of(rows[a, i])


@compiled
def erf_a(rows, g, a, result):
    """Fills the gradient of erf a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * whole_exp(-rows[a, i] * rows[a, i]) * ERF_SLOPE


@compiled
def run(rows, operation, a, b, c, result):
    """Fills what one of the operations gives for its arguments."""
    if operation <= SIGMOID_SLOPE_A:
        _run_sigmoid(rows, operation, a, b, c, result)
    elif operation == SOFTPLUS:
        softplus(rows, a, result)
    elif operation == SOFTPLUS_A:
        softplus_a(rows, a, b, result)
    elif operation == SOFTSIGN:
        softsign(rows, a, result)
    elif operation == SOFTSIGN_A:
        softsign_a(rows, a, b, result)
    elif operation == SOFT_SLOPE:
        soft_slope(rows, a, result)
    elif operation == SOFT_SLOPE_A:
        soft_slope_a(rows, a, b, c, result)
    elif operation == TANH:
        tanh(rows, a, result)
    elif operation == TANH_A:
        tanh_a(rows, a, b, result)
    elif operation == TANH_SLOPE:
        tanh_slope(rows, a, result)
    elif operation == TANH_SLOPE_A:
        tanh_slope_a(rows, a, b, c, result)
    elif operation == ERF:
        erf(rows, a, result)
    elif operation == ERFC:
        erfc(rows, a, result)
    elif operation == ERF_A:
        erf_a(rows, a, b, result)


@compiled
def _run_sigmoid(rows, operation, a, b, c, result):
    if operation == SIGMOID:
        sigmoid(rows, a, result)
    elif operation == SIGMOID_A:
        sigmoid_a(rows, a, b, result)
    elif operation == SIGMOID_SLOPE:
        sigmoid_slope(rows, a, result)
    elif operation == SIGMOID_SLOPE_A:
        sigmoid_slope_a(rows, a, b, c, result)
