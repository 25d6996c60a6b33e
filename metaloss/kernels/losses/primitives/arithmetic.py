"""Sums, products and quotients."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import ONE
from metaloss.kernels.jit import compiled

EPSILON = np.float32(1e-7)  # as in the table of primitives

OPERATIONS = range(0, 14)
(
    NEGATE,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    DIVIDE_B,
    ADD_PRODUCT,
    SUBTRACT_PRODUCT,
    QUOTIENT,
    QUOTIENT_B,
    INVERSE,
    INVERSE_A,
    ANALYTIC_QUOTIENT,
    ANALYTIC_QUOTIENT_B,
) = OPERATIONS


@compiled
def negate(rows, a, result):
    """Fills -a."""
    for i in range(rows.shape[1]):
        rows[result, i] = -rows[a, i]


@compiled
def add(rows, a, b, result):
    """Fills a + b."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] + rows[b, i]


@compiled
def subtract(rows, a, b, result):
    """Fills a - b."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] - rows[b, i]


@compiled
def multiply(rows, a, b, result):
    """Fills a b."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] * rows[b, i]


@compiled
def divide(rows, a, b, result):
    """Fills a / b."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] / rows[b, i]


@compiled
def divide_b(rows, g, o, b, result):
    """Fills the gradient of a / b at b, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] / rows[b, i]


@compiled
def add_product(rows, a, b, c, result):
    """Fills a + b c."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] + rows[b, i] * rows[c, i]


@compiled
def subtract_product(rows, a, b, c, result):
    """Fills a - b c."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] - rows[b, i] * rows[c, i]


@compiled
def quotient(rows, a, b, result):
    """Fills a / (b + ε); from g in place of a, the gradient at a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] / (rows[b, i] + EPSILON)


@compiled
def quotient_b(rows, g, o, b, result):
    """Fills the gradient of `quotient` at b, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] / (rows[b, i] + EPSILON)


@compiled
def inverse(rows, a, result):
    """Fills 1 / (a + ε)."""
    for i in range(rows.shape[1]):
        rows[result, i] = ONE / (rows[a, i] + EPSILON)


@compiled
def inverse_a(rows, g, o, result):
    """Fills the gradient of `inverse`, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] * rows[o, i]


@compiled
def analytic_quotient(rows, a, b, result):
    """Fills a / √(1 + b²); from g in place of a, the gradient at a."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[a, i] / np.sqrt(rows[b, i] * rows[b, i] + ONE)


@compiled
def analytic_quotient_b(rows, g, o, b, result):
    """Fills the gradient of `analytic_quotient` at b, without its sign."""
    for i in range(rows.shape[1]):
        rows[result, i] = rows[g, i] * rows[o, i] * rows[b, i] / (rows[b, i] * rows[b, i] + ONE)


@compiled
def run(rows, operation, a, b, c, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == NEGATE:
        negate(rows, a, result)
    elif operation == ADD:
        add(rows, a, b, result)
    elif operation == SUBTRACT:
        subtract(rows, a, b, result)
    elif operation == MULTIPLY:
        multiply(rows, a, b, result)
    elif operation == DIVIDE:
        divide(rows, a, b, result)
    elif operation == DIVIDE_B:
        divide_b(rows, a, b, c, result)
    elif operation == ADD_PRODUCT:
        add_product(rows, a, b, c, result)
    elif operation == SUBTRACT_PRODUCT:
        subtract_product(rows, a, b, c, result)
    elif operation == QUOTIENT:
        quotient(rows, a, b, result)
    elif operation == QUOTIENT_B:
        quotient_b(rows, a, b, c, result)
    elif operation == INVERSE:
        inverse(rows, a, result)
    elif operation == INVERSE_A:
        inverse_a(rows, a, b, result)
    elif operation == ANALYTIC_QUOTIENT:
        analytic_quotient(rows, a, b, result)
    elif operation == ANALYTIC_QUOTIENT_B:
        analytic_quotient_b(rows, a, b, c, result)
