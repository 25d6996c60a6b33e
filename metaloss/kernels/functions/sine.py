"""sin and cos of a float32, written so that LLVM makes vector instructions of them in a loop.

The angle is x - n π/2, n the whole number nearest to x / (π/2). It is at most an eighth of a turn,
where Taylor polynomials serve; n says which of them, and the sign.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels.functions.exponential import ONE
from metaloss.kernels.jit import inlined

LARGEST = np.float32(1e6)  # of an angle; of larger ones too few bits are left
SHIFT = 1.5 * 2.0**52  # adding it rounds: a whole number is then in the last bits
QUARTERS = 2 / math.pi
# π/2 in two parts: the first has few bits, so that n times it is exact.
FIRST = float(np.float32(math.pi / 2))
SECOND = math.pi / 2 - FIRST
# The coefficients of both Taylor polynomials in x², highest power first, but for the 1.
SIN = tuple(np.float32((-1) ** n / math.factorial(2 * n + 1)) for n in range(5, 0, -1))
COS = tuple(np.float32((-1) ** n / math.factorial(2 * n)) for n in range(5, 0, -1))


@intrinsic
def _last_bits(typing, shifted):
    """n, of which the last bits alone count, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(64))
        return builder.trunc(bits, ir.IntType(32))

    return types.int32(types.float64), generate


@inlined
def _wave(x, more):
    """sin of x, and of so many quarters of a turn more."""
    shifted = np.float64(x) * QUARTERS + SHIFT
    n = shifted - SHIFT
    angle = np.float32((np.float64(x) - n * FIRST) - n * SECOND)
    square = angle * angle
    sine = SIN[0]
    for c in SIN[1:]:
        sine = sine * square + c
    cosine = COS[0]
    for c in COS[1:]:
        cosine = cosine * square + c
    quarter = _last_bits(shifted) + more
    value = ONE + cosine * square if quarter & 1 else angle + sine * square * angle
    return -value if quarter & 2 else value


@inlined
def sin_of(x):
    """sin x of a float32 of at most `LARGEST`."""
    return _wave(x, np.int32(0))


@inlined
def cos_of(x):
    """cos x of a float32 of at most `LARGEST`."""
    return _wave(x, np.int32(1))
