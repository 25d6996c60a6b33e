"""Trigonometric and hyperbolic functions."""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.functions.exponential import ONE, whole_exp
from metaloss.kernels.functions.exponential import expm1 as exp_less_one
from metaloss.kernels.functions.interpolation import coefficients
from metaloss.kernels.functions.logarithm import INFINITE, log1p
from metaloss.kernels.functions.sine import LARGEST, cos_of, sin_of
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.primitives.selections import HALF, ZERO

LN2 = np.float32(math.log(2))
QUARTER = np.float32(math.pi / 2)  # of a turn
LARGE = np.float32(80)  # from here on e^-x is nothing beside e^x
HUGE = np.float32(1e9)  # from here on √(x² + 1) is x

OPERATIONS = range(96, 106)
(
    SIN,
    SIN_A,
    COS,
    COS_A,
    SINH,
    SINH_A,
    ASINH,
    ASINH_A,
    ATAN,
    ATAN_A,
) = OPERATIONS


def _arctangent(square):
    """arctan(√z) / √z of z."""
    x = np.sqrt(np.maximum(square, 1e-30))
    return np.arctan(x) / x


ARCTANGENT = coefficients(_arctangent, 0, 1, 10)


@compiled
def _within_turns(rows, a):
    """Whether all of a are of a size for which vector instructions find the angle."""
    within = True
    for i in range(rows.shape[1]):
        within &= abs(rows[a, i]) < LARGEST
    return within


@compiled
def sin(rows, a, result):
    """Fills sin a."""
    if _within_turns(rows, a):
        for i in range(rows.shape[1]):
            rows[result, i] = sin_of(rows[a, i])
    else:
        for i in range(rows.shape[1]):
            rows[result, i] = math.sin(rows[a, i])


@compiled
def cos(rows, a, result):
    """Fills cos a."""
    if _within_turns(rows, a):
        for i in range(rows.shape[1]):
            rows[result, i] = cos_of(rows[a, i])
    else:
        for i in range(rows.shape[1]):
            rows[result, i] = math.cos(rows[a, i])


@compiled
def times(rows, g, result):
    """Multiplies by g."""
    for i in range(rows.shape[1]):
        rows[result, i] *= rows[g, i]


@compiled
def sin_a(rows, g, a, result):
    """Fills the gradient of sin a."""
    cos(rows, a, result)
    times(rows, g, result)


@compiled
def cos_a(rows, g, a, result):
    """Fills the gradient of cos a, without its sign."""
    sin(rows, a, result)
    times(rows, g, result)


@compiled
def sinh(rows, a, result):
    """Fills sinh a."""
    for i in range(rows.shape[1]):
        size = abs(rows[a, i])
        e = exp_less_one(size)
        near = HALF * (e + e / (e + ONE))
        root = whole_exp(HALF * size)
        # In this order it becomes infinite where sinh does.
        value = HALF * root * root if size > LARGE else near
        rows[result, i] = -value if rows[a, i] < ZERO else value


@compiled
def sinh_a(rows, g, a, result):
    """Fills the gradient of sinh a."""
    for i in range(rows.shape[1]):
        # In this order it becomes infinite where cosh does.
        root = whole_exp(HALF * abs(rows[a, i]))
        rows[result, i] = rows[g, i] * (HALF * root * root + HALF / root / root)


@compiled
def asinh(rows, a, result):
    """Fills arsinh a."""
    for i in range(rows.shape[1]):
        size = abs(rows[a, i])
        square = size * size
        huge = size > HUGE
        value = log1p(size if huge else size + square / (ONE + np.sqrt(square + ONE)))
        value = value + LN2 if huge else value
        value = size if size == INFINITE else value
        rows[result, i] = -value if rows[a, i] < ZERO else value


@compiled
def asinh_a(rows, g, a, result):
    """Fills the gradient of arsinh a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] / np.sqrt(rows[a, i] * rows[a, i] + ONE)


@compiled
def atan(rows, a, result):
    """Fills arctan a."""
    for i in range(rows.shape[1]):
        size = abs(rows[a, i])
        far = size > ONE
        x = ONE / size if far else size
        square = x * x
        y = ARCTANGENT[0]
        for c in ARCTANGENT[1:]:
            y = y * square + c
        value = QUARTER - x * y if far else x * y
        rows[result, i] = -value if rows[a, i] < ZERO else value


@compiled
def atan_a(rows, g, a, result):
    """Fills the gradient of arctan a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] / (rows[a, i] * rows[a, i] + ONE)


@compiled
def run(rows, operation, a, b, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == SIN:
        sin(rows, a, result)
    elif operation == SIN_A:
        sin_a(rows, a, b, result)
    elif operation == COS:
        cos(rows, a, result)
    elif operation == COS_A:
        cos_a(rows, a, b, result)
    elif operation == SINH:
        sinh(rows, a, result)
    elif operation == SINH_A:
        sinh_a(rows, a, b, result)
    elif operation == ASINH:
        asinh(rows, a, result)
    elif operation == ASINH_A:
        asinh_a(rows, a, b, result)
    elif operation == ATAN:
        atan(rows, a, result)
    elif operation == ATAN_A:
        atan_a(rows, a, b, result)
