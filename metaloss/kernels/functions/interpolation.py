"""Polynomials in place of smooth functions."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial


def coefficients(function, low, high, terms):
    """Coefficients, the highest power first, as float32.

    They interpolate at Chebyshev's points.

    Args:
        function: of an array.
        low: where the range begins.
        high: where it ends.
        terms: how many coefficients.
    """
    series = Chebyshev.interpolate(function, terms - 1, domain=[low, high])
    return tuple(series.convert(kind=Polynomial).coef[::-1].astype(np.float32))
