"""Intervals of shares."""

import math

NORMAL = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


def wilson(share: float, n: int | float) -> tuple[float, float]:
    """The 95 % score interval of a share of n independent images (Wilson 1927).

    Args:
        share: that was found; a mean over trainings may lie between whole numbers of images.
        n: images; as many as count as independent need be no whole number.

    >>> tuple(round(x, 3) for x in wilson(0.5, 4))
    (0.15, 0.85)
    """
    if not n or math.isnan(share):
        return math.nan, math.nan
    z2 = NORMAL**2 / n
    middle = share + z2 / 2
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    # Of 0 and 1 rounding must not leave the interval's end beyond them.
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))
