"""Roots, the square, the absolute value, the sign and both relus."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import ONE
from metaloss.kernels.jit import compiled, inlined
from metaloss.kernels.losses.primitives.arithmetic import EPSILON
from metaloss.kernels.losses.primitives.selections import ZERO

TINY = np.float32(1e-30)  # keeps a divisor from being 0, as in the table of primitives

OPERATIONS = range(32, 45)
(
    ROOT,
    ROOT_A,
    HELD_ROOT,
    HELD_ROOT_A,
    SQUARE,
    SQUARE_A,
    ABSOLUTE,
    ABSOLUTE_A,
    SIGN,
    RELU,
    RELU_A,
    NEGATIVE_RELU,
    NEGATIVE_RELU_A,
) = OPERATIONS


@inlined
def sign_of(x):
    """1, -1 or 0; 0 of NaN."""
    return ONE if x > ZERO else -ONE if x < ZERO else ZERO


@compiled
def root(rows, a, result):
    """Fills √|a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = np.sqrt(abs(rows[a, i]))


@compiled
def root_a(rows, g, o, a, result):
    """Fills the gradient of `root`; 0 where a is."""
    for i in range(rows.shape[1]):
        twice = rows[o, i] + rows[o, i]
        twice = TINY if twice < TINY else twice
        rows[result, i] = rows[g, i] * sign_of(rows[a, i]) / twice


@compiled
def held_root(rows, a, result):
    """Fills √max(|a|, ε)."""
    for i in range(rows.shape[1]):
        x = abs(rows[a, i])
        rows[result, i] = np.sqrt(EPSILON if x < EPSILON else x)


@compiled
def held_root_a(rows, g, o, a, result):
    """Fills the gradient of `held_root`; 0 where it is held."""
    for i in range(rows.shape[1]):
        value = rows[g, i] * sign_of(rows[a, i]) / (rows[o, i] + rows[o, i])
        rows[result, i] = ZERO if abs(rows[a, i]) <= EPSILON else value


@compiled
def square(rows, a, result):
    """Fills a²."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] * rows[a, i]


@compiled
def square_a(rows, g, a, result):
    """Fills the gradient of a²."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (rows[a, i] + rows[a, i])


@compiled
def absolute(rows, a, result):
    """Fills |a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = abs(rows[a, i])


@compiled
def absolute_a(rows, g, a, result):
    """Fills the gradient of |a|."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * sign_of(rows[a, i])


@compiled
def sign(rows, a, result):
    """Fills the sign of a."""
    for i in range(rows.shape[1]):
        rows[result, i] = sign_of(rows[a, i])


@compiled
def relu(rows, a, result):
    """Fills max(a, 0)."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        rows[result, i] = ZERO if x < ZERO else x


@compiled
def relu_a(rows, g, a, result):
    """Fills the gradient of `relu`."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        rows[result, i] = ZERO if rows[a, i] <= ZERO else x


@compiled
def negative_relu(rows, a, result):
    """Fills min(a, 0)."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        rows[result, i] = ZERO if x > ZERO else x


@compiled
def negative_relu_a(rows, g, a, result):
    """Fills the gradient of `negative_relu`."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        rows[result, i] = ZERO if rows[a, i] >= ZERO else x


@compiled
def run(rows, operation, a, b, c, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == ROOT:
        root(rows, a, result)
    elif operation == ROOT_A:
        root_a(rows, a, b, c, result)
    elif operation == HELD_ROOT:
        held_root(rows, a, result)
    elif operation == HELD_ROOT_A:
        held_root_a(rows, a, b, c, result)
    elif operation == SQUARE:
        square(rows, a, result)
    elif operation == SQUARE_A:
        square_a(rows, a, b, result)
    elif operation == ABSOLUTE:
        absolute(rows, a, result)
    elif operation == ABSOLUTE_A:
        absolute_a(rows, a, b, result)
    elif operation == SIGN:
        sign(rows, a, result)
    elif operation == RELU:
        relu(rows, a, result)
    elif operation == RELU_A:
        relu_a(rows, a, b, result)
    elif operation == NEGATIVE_RELU:
        negative_relu(rows, a, result)
    elif operation == NEGATIVE_RELU_A:
        negative_relu_a(rows, a, b, result)
