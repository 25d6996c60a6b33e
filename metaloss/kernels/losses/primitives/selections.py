"""The greater, the lesser, and what is held between two ends.

Where a comparison selects, NaN goes the way that it goes in the table of primitives.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled

HALF = np.float32(0.5)
ZERO = np.float32(0)
JUST_BELOW = np.float32(-1e-37)  # stands for 0, where 0 itself is to lie above it

OPERATIONS = range(16, 23)
(
    MAXIMUM,
    MINIMUM,
    MAXIMUM_A,
    CLIP,
    CLIP_A,
    CLIP_B,
    CLIP_C,
) = OPERATIONS


@compiled
def maximum(rows, a, b, result):
    """Fills the greater of a and b; NaN where one of them is."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        y = rows[b, i]
        # NaN is greater than nothing, so a second one is kept as it is.
        x = x if np.isnan(x) or x > y else y
        rows[result, i] = x


@compiled
def minimum(rows, a, b, result):
    """Fills the lesser of a and b; NaN where one of them is."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        y = rows[b, i]
        x = x if np.isnan(x) or x < y else y
        rows[result, i] = x


@compiled
def maximum_a(rows, g, a, b, result):
    """Fills the gradient of the greater at a, half of it where a is b; and of the lesser at b."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        more = rows[a, i] - rows[b, i]
        above = ZERO if more <= ZERO else x
        not_below = ZERO if more <= JUST_BELOW else x
        rows[result, i] = (above + not_below) * HALF


@compiled
def clip(rows, a, b, c, result):
    """Fills a, but at least b and at most c."""
    for i in range(rows.shape[1]):
        x = rows[a, i]
        low = rows[b, i]
        high = rows[c, i]
        held = high if x > high else x
        rows[result, i] = low if x < low else held


@compiled
def clip_a(rows, g, a, b, c, result):
    """Fills the gradient of `clip` at a."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        x = ZERO if rows[a, i] < rows[b, i] else x
        rows[result, i] = ZERO if rows[a, i] > rows[c, i] else x


@compiled
def clip_b(rows, g, a, b, result):
    """Fills the gradient of `clip` at its lower end."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        rows[result, i] = x if rows[a, i] < rows[b, i] else ZERO


@compiled
def clip_c(rows, g, a, b, c, result):
    """Fills the gradient of `clip` at its upper end, where the lower one does not hold it."""
    for i in range(rows.shape[1]):
        x = rows[g, i]
        x = x if rows[a, i] > rows[c, i] else ZERO
        rows[result, i] = ZERO if rows[a, i] < rows[b, i] else x


@compiled
def run(rows, operation, a, b, c, d, result):
    """Fills what one of the operations gives for its arguments."""
    if operation == MAXIMUM:
        maximum(rows, a, b, result)
    elif operation == MINIMUM:
        minimum(rows, a, b, result)
    elif operation == MAXIMUM_A:
        maximum_a(rows, a, b, c, result)
    elif operation == CLIP:
        clip(rows, a, b, c, result)
    elif operation == CLIP_A:
        clip_a(rows, a, b, c, d, result)
    elif operation == CLIP_B:
        clip_b(rows, a, b, c, result)
    elif operation == CLIP_C:
        clip_c(rows, a, b, c, d, result)
