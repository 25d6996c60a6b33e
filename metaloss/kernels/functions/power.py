"""a^b of float32, as exp(b ln a) in float64, written so that LLVM makes vector instructions of it
in a loop.

The methods are those of `exponential.py` and `logarithm.py`, with longer series.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels.jit import inlined

SHIFT = 1.5 * 2.0**52  # adding it rounds: a whole number is then in the last bits
WORD = ir.IntType(64)
MANTISSA = WORD(52)  # bits of it: a float64's exponent stands above them
ROOT = int(np.float64(math.sqrt(0.5)).view(np.int64))  # the bits of √½
LN2 = math.log(2)
LOG2_E = math.log2(math.e)
# Twice the coefficients 1/15 ... 1/3 of the logarithm's series in s², highest power first.
SERIES = tuple(2 / n for n in range(15, 1, -2))
# The coefficients of the exponential's Taylor polynomial, highest power first.
TAYLOR = tuple(1 / math.factorial(n) for n in range(10, -1, -1))
# e to anything beyond these is 0 as a float32, or infinite.
NOTHING = -110.0
INFINITE = 90.0


@intrinsic
def _two_to(typing, shifted):
    """2^n, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        bits = builder.add(builder.bitcast(arguments[0], WORD), WORD(1023))  # the exponent's bias
        return builder.bitcast(builder.shl(bits, MANTISSA), ir.DoubleType())

    return types.float64(types.float64), generate


@intrinsic
def _split(typing, number):
    """n and 1 + f of a float64 above 0."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], WORD)
        n = builder.ashr(builder.sub(bits, WORD(ROOT)), MANTISSA)
        rest = builder.bitcast(builder.sub(bits, builder.shl(n, MANTISSA)), ir.DoubleType())
        exponent = builder.sitofp(n, ir.DoubleType())
        return context.make_tuple(builder, signature.return_type, [exponent, rest])

    return types.UniTuple(types.float64, 2)(types.float64), generate


@inlined
def power_of(a, b):
    """a^b of a finite float32 a above 0 and a finite float32 b."""
    n, rest = _split(np.float64(a))
    f = rest - 1.0
    s = f / (2.0 + f)
    square = s * s
    series = SERIES[0]
    for c in SERIES[1:]:
        series = series * square + c
    x = np.float64(b) * (n * LN2 + (f - s * (f - square * series)))
    x = NOTHING if x < NOTHING else INFINITE if x > INFINITE else x
    shifted = x * LOG2_E + SHIFT
    r = x - (shifted - SHIFT) * LN2
    y = TAYLOR[0]
    for c in TAYLOR[1:]:
        y = y * r + c
    return np.float32(y * _two_to(shifted))
