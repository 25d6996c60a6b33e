"""The error function of a float32, and what is left of it, written so that LLVM makes vector
instructions of them in a loop.

Up to 1, erf x is x times a polynomial in x². Beyond it the rest is e^(-x²) times a polynomial in
t = 2/(2 + x), times t. The coefficients are computed here, by interpolation.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.functions.exponential import ONE, whole_exp
from metaloss.kernels.functions.interpolation import coefficients
from metaloss.kernels.functions.logarithm import TWO, ZERO
from metaloss.kernels.jit import inlined

LARGEST = 10.2  # beyond it nothing is left of the error function, in float32


def _near(square):
    """erf(√z) / √z of z."""
    x = np.sqrt(np.maximum(square, 1e-30))
    return np.vectorize(math.erf)(x) / x


def _far(t):
    """erfc(x) e^(x²) / t at t = 2/(2 + x)."""
    x = 2 / t - 2
    return np.vectorize(math.erfc)(x) * np.exp(x * x) / t


NEAR = coefficients(_near, 0, 1, 7)
FAR = coefficients(_far, 2 / (2 + LARGEST), 1, 11)
EDGE = np.float32(LARGEST)
CUT = np.float32(2**12 + 1)


@inlined
def rest_of(x):
    """1 - erf x of a float32 from 0 on; NaN stays."""
    x = EDGE if x > EDGE else x
    t = TWO / (TWO + x)
    y = FAR[0]
    for c in FAR[1:]:
        y = y * t + c
    # x² in two parts, of which the first is exact: its last bits count in the exponential.
    rough = x * CUT
    rough = rough - (rough - x)
    less = (x - rough) * (x + rough)
    return y * t * whole_exp(-rough * rough) * whole_exp(-less)


@inlined
def erf_of(x):
    """erf x of a float32; NaN stays."""
    size = abs(x)
    square = size * size
    y = NEAR[0]
    for c in NEAR[1:]:
        y = y * square + c
    far = ONE - rest_of(size)
    value = far if size > ONE else size * y
    return -value if x < ZERO else value


@inlined
def erfc_of(x):
    """1 - erf x of a float32, small where it is small; NaN stays."""
    rest = rest_of(abs(x))
    return TWO - rest if x < ZERO else rest
