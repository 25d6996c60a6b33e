"""ln x and ln(1 + x) of a float32, written so that LLVM makes vector instructions of it in a loop.

1 + x = 2^n · (1 + f), where 1 + f lies between √½ and √2. With s = f / (2 + f), ln(1 + f) is the
series 2 (s + s³/3 + s⁵/5 + ...), of which the first term is f - s f.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels.functions.exponential import LN2, ONE
from metaloss.kernels.jit import inlined

ZERO = np.float32(0)
TWO = np.float32(2)
INFINITE = np.float32(np.inf)
NOT_A_NUMBER = np.float32(np.nan)
# Below it float32 lose bits, and their exponent is not in its place: they are made larger first.
SMALLEST = np.finfo(np.float32).tiny
LARGER = np.float32(2**24)
LARGER_LOG2 = np.float32(24)
ROOT = int(np.float32(math.sqrt(0.5)).view(np.int32))  # the bits of √½
# Twice the coefficients 1/9 ... 1/3 of the series in s², highest power first.
SERIES = tuple(np.float32(2 / n) for n in (9, 7, 5, 3))


def _exponent_bits(builder, number):
    """The bits of a float32, and its n as a whole number."""
    word = ir.IntType(32)
    bits = builder.bitcast(number, word)
    # A float32's exponent begins at bit 23.
    return bits, builder.ashr(builder.sub(bits, word(ROOT)), word(23))


@intrinsic
def _exponent(typing, number):
    """n of a float32 above 0."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(_exponent_bits(builder, arguments[0])[1], ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def _mantissa(typing, number):
    """1 + f of a float32 above 0."""

    def generate(context, builder, signature, arguments):
        bits, n = _exponent_bits(builder, arguments[0])
        return builder.bitcast(
            builder.sub(bits, builder.shl(n, ir.IntType(32)(23))), ir.FloatType()
        )

    return types.float32(types.float32), generate


@inlined
def log1p(x):
    """ln(1 + x) of a finite float32 above -1, to its last bits; NaN stays."""
    y = ONE + x
    n = _exponent(y)
    # Where n is 0, x itself has all its bits.
    f = x if n == ZERO else _mantissa(y) - ONE
    # The bits of NaN would give a number.
    return _sum(n, f, x * ZERO)


@inlined
def log(x):
    """ln x of any float32, to its last bits: -∞ of 0, NaN of NaN and of what lies below 0."""
    small = x < SMALLEST
    y = x * LARGER if small else x
    n = _exponent(y) - (LARGER_LOG2 if small else ZERO)
    value = _sum(n, _mantissa(y) - ONE, ZERO)
    value = value if x < INFINITE else x  # infinite, or NaN
    return value if x > ZERO else NOT_A_NUMBER if x != ZERO else -INFINITE


@inlined
def _sum(n, f, more):
    """n ln 2 + ln(1 + f), and something more."""
    s = f / (TWO + f)
    square = s * s
    series = SERIES[0]
    for c in SERIES[1:]:
        series = series * square + c
    return (n * LN2[1] + more + (f - s * (f - square * series))) + n * LN2[0]
