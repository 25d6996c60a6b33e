"""exp of a float32, which loops make vectors of."""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels.jit import compiled

# A float32 beyond SHIFT counts whole numbers in its last bits.
ONE = np.float32(1)
SHIFT = np.float32(1.5 * 2**23)
LOW = np.float32(-87.3)
HIGH = np.float32(88)
LOG2_E = np.float32(math.log2(math.e))
# In two parts, the first exact in few bits.
LN2 = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, 1, -1))


@intrinsic
def _two_to(typing, shifted):
    """2^n, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.add(builder.bitcast(arguments[0], word), word(127))
        return builder.bitcast(builder.shl(bits, word(23)), ir.FloatType())

    return types.float32(types.float32), generate


@compiled
def exp(x):
    """exp of a float32 to its last bits; NaN stays."""
    x = LOW if x < LOW else HIGH if x > HIGH else x
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = (x - n * LN2[0]) - n * LN2[1]
    y = TAYLOR[0]
    for c in TAYLOR[1:]:
        y = y * r + c
    return (y * (r * r) + (r + ONE)) * _two_to(shifted)
