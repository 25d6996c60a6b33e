"""Exponentials, logarithms and powers."""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.functions.exponential import ONE, whole_exp
from metaloss.kernels.functions.exponential import expm1 as exp_less_one
from metaloss.kernels.functions.logarithm import INFINITE
from metaloss.kernels.functions.logarithm import log as log_of
from metaloss.kernels.functions.power import power_of
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.primitives.arithmetic import EPSILON
from metaloss.kernels.losses.primitives.magnitudes import sign_of
from metaloss.kernels.losses.primitives.selections import ZERO

LN10 = np.float32(math.log(10))
LOG10_E = np.float32(1 / math.log(10))
LARGE = np.float32(80)  # from here on e^x - 1 is e^x

OPERATIONS = range(48, 61)
(
    EXP,
    EXPM1,
    EXPM1_A,
    LOG,
    PROTECTED_LOG,
    PROTECTED_LOG_A,
    PROTECTED_LOG10,
    PROTECTED_LOG10_A,
    HELD_LOG,
    HELD_LOG_A,
    POWER,
    POWER_A,
    POWER_B,
) = OPERATIONS


@compiled
def exp(rows, a, result):
    """Fills e^a."""
    for i in range(rows.shape[1]):
        rows[result, i] = whole_exp(rows[a, i])


@compiled
def expm1(rows, a, result):
    """Fills e^a - 1."""
    for i in range(rows.shape[1]):
        large = whole_exp(rows[a, i])
        near = exp_less_one(rows[a, i])
        rows[result, i] = large if rows[a, i] > LARGE else near


@compiled
def expm1_a(rows, g, o, result):
    """Fills the gradient of e^a - 1."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * (rows[o, i] + ONE)


@compiled
def log(rows, a, result):
    """Fills ln a."""
    for i in range(rows.shape[1]):
        rows[result, i] = log_of(rows[a, i])


@compiled
def protected_log(rows, a, result):
    """Fills ln(|a| + ε)."""
    for i in range(rows.shape[1]):
        rows[result, i] = log_of(abs(rows[a, i]) + EPSILON)


@compiled
def protected_log_a(rows, g, a, result):
    """Fills the gradient of `protected_log`."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * sign_of(rows[a, i]) / (abs(rows[a, i]) + EPSILON)


@compiled
def protected_log10(rows, a, result):
    """Fills the common logarithm of |a| + ε."""
    for i in range(rows.shape[1]):
        rows[result, i] = log_of(abs(rows[a, i]) + EPSILON) * LOG10_E


@compiled
def protected_log10_a(rows, g, a, result):
    """Fills the gradient of `protected_log10`."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * sign_of(rows[a, i]) / ((abs(rows[a, i]) + EPSILON) * LN10)


@compiled
def held_log(rows, a, result):
    """Fills ln max(|a|, ε)."""
    for i in range(rows.shape[1]):
        x = abs(rows[a, i])
        rows[result, i] = log_of(EPSILON if x < EPSILON else x)


@compiled
def held_log_a(rows, g, a, result):
    """Fills the gradient of `held_log`; 0 where it is held."""
    for i in range(rows.shape[1]):
        value = rows[g, i] / rows[a, i]
        rows[result, i] = ZERO if abs(rows[a, i]) <= EPSILON else value


@compiled
def _lowered_power(rows, a, b, less, result):
    """Fills a^(b - less)."""
    usual = True
    for i in range(rows.shape[1]):
        usual &= (rows[a, i] > ZERO) & (rows[a, i] < INFINITE) & (abs(rows[b, i]) < INFINITE)
    if usual:
        for i in range(rows.shape[1]):
            rows[result, i] = power_of(rows[a, i], rows[b, i] - less)
    else:
        for i in range(rows.shape[1]):
            rows[result, i] = rows[a, i] ** (rows[b, i] - less)


@compiled
def power(rows, a, b, result):
    """Fills a^b."""
    _lowered_power(rows, a, b, ZERO, result)


@compiled
def power_a(rows, g, a, b, result):
    """Fills the gradient of a^b at a; 0 where a is 0 and the slope infinite."""
    _lowered_power(rows, a, b, ONE, result)
    for i in range(rows.shape[1]):
        value = rows[g, i] * rows[b, i] * rows[result, i]
        value = ZERO if rows[a, i] == ZERO and rows[b, i] < ONE else value
        rows[result, i] = value


@compiled
def power_b(rows, g, o, a, result):
    """Fills the gradient of a^b at b; 0 where a is."""
    for i in range(rows.shape[1]):
        value = rows[g, i] * rows[o, i] * log_of(rows[a, i])
        rows[result, i] = ZERO if rows[a, i] == ZERO else value


@compiled
def run(rows, operation, a, b, c, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == EXP:
        exp(rows, a, result)
    elif operation == EXPM1:
        expm1(rows, a, result)
    elif operation == EXPM1_A:
        expm1_a(rows, a, b, result)
    elif operation == LOG:
        log(rows, a, result)
    elif operation == PROTECTED_LOG:
        protected_log(rows, a, result)
    elif operation == PROTECTED_LOG_A:
        protected_log_a(rows, a, b, result)
    elif operation == PROTECTED_LOG10:
        protected_log10(rows, a, result)
    elif operation == PROTECTED_LOG10_A:
        protected_log10_a(rows, a, b, result)
    elif operation == HELD_LOG:
        held_log(rows, a, result)
    elif operation == HELD_LOG_A:
        held_log_a(rows, a, b, result)
    elif operation == POWER:
        power(rows, a, b, result)
    elif operation == POWER_A:
        power_a(rows, a, b, c, result)
    elif operation == POWER_B:
        power_b(rows, a, b, c, result)
