"""exp and exp - 1 of a float32, written so that LLVM makes vector instructions of them in a loop.

exp(x) = 2^n · exp(r), where n is the whole number nearest to x / ln 2 and r = x - n ln 2. The
second factor is a Taylor polynomial, the first one is put into the exponent's bits.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels.jit import inlined

# The last bits of a float32 near SHIFT are a whole number: adding SHIFT rounds.
ONE = np.float32(1)
SHIFT = np.float32(1.5 * 2**23)
# exp of anything beyond these would leave the range of a float32.
LOW = np.float32(-87.3)
HIGH = np.float32(88)
# exp of anything beyond these is 0, or infinite.
NOTHING = np.float32(-104)
INFINITE = np.float32(89)
LOG2_E = np.float32(math.log2(math.e))
# ln 2 in two parts: the first has few bits, so that n times it is exact.
LN2 = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
# The coefficients 1/7! ... 1/2! of the Taylor polynomial, highest power first.
TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, 1, -1))


@intrinsic
def _two_to(typing, shifted):
    """2^n as a float32, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        # 127: the bias of a float32's exponent, which begins at bit 23.
        bits = builder.add(builder.bitcast(arguments[0], word), word(127))
        return builder.bitcast(builder.shl(bits, word(23)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def _two_to_halves(typing, shifted):
    """2^m and 2^(n - m) as float32, with m half of n, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        n = builder.sub(bits, word(int(SHIFT.view(np.int32))))
        half = builder.ashr(n, word(1))
        powers = [
            builder.bitcast(builder.shl(builder.add(x, word(127)), word(23)), ir.FloatType())
            for x in (half, builder.sub(n, half))
        ]
        return context.make_tuple(builder, signature.return_type, powers)

    return types.UniTuple(types.float32, 2)(types.float32), generate


@inlined
def _reduced(x):
    """r, the polynomial's part from r² on over r², and n + SHIFT, of a float32."""
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = (x - n * LN2[0]) - n * LN2[1]
    # Horner's scheme for the powers from r² on.
    y = TAYLOR[0]
    for c in TAYLOR[1:]:
        y = y * r + c
    return r, y, shifted


@inlined
def _parts(x):
    """r, the polynomial's part from r² on over r², and 2^n, of a float32."""
    # NaN fails both comparisons, and so stays.
    r, y, shifted = _reduced(LOW if x < LOW else HIGH if x > HIGH else x)
    return r, y, _two_to(shifted)


@inlined
def exp(x):
    """exp of a float32 to its last bits; NaN stays."""
    r, y, scale = _parts(x)
    return (y * (r * r) + (r + ONE)) * scale


@inlined
def whole_exp(x):
    """exp of any float32, which may become infinite or 0; NaN stays."""
    r, y, shifted = _reduced(NOTHING if x < NOTHING else INFINITE if x > INFINITE else x)
    one, other = _two_to_halves(shifted)
    return (y * (r * r) + (r + ONE)) * one * other


@inlined
def expm1(x):
    """exp(x) - 1 of a float32 to its last bits, near 0 too; NaN stays."""
    r, y, scale = _parts(x)
    # Without a 1 in the first factor nothing cancels where n is 0.
    return (y * (r * r) + r) * scale + (scale - ONE)
