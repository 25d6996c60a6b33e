"""The gradient of learned targets, as `genomes/_targets.py` defines it.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import ONE, expm1
from metaloss.kernels.functions.logarithm import log1p
from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.images import load


@compiled
def _add_along(total, u, knots, curve):
    """Adds to `total` a curve at logarithms of probabilities u, both [columns]."""
    zero = total.dtype.type(0)
    for i in range(len(u)):
        total[i] += curve[0]
    # Each segment adds its part to the value at the first knot.
    for k in range(len(knots) - 1):
        left = knots[k]
        scale = ONE / (knots[k + 1] - left)
        rise = curve[k + 1] - curve[k]
        for i in range(len(u)):
            passed = (u[i] - left) * scale
            # NaN fails both comparisons, and so stays.
            total[i] += rise * (zero if passed < zero else ONE if passed > ONE else passed)


@compiled
def read(u, logp, guess, offset, scale):
    """Fills u [columns] with log p as it would be among the reference number of classes."""
    for i in range(len(u)):
        x = logp[i]
        # Above a uniform guess 1 - p is scaled, below it p.
        surer = log1p(scale * expm1(guess if x < guess else x))
        u[i] = surer if x > guess else x + offset


@compiled
def fill(part, whole, at, block):
    """Fills the first columns of `part` with those of `whole` from `at` on."""
    for c in range(len(part)):
        for b in range(block):
            part[c, b] = whole[c, at + b]


@compiled
def fill_targets(q, total, curves, u, y, factor, knots, curve):
    """Fills every class's target [C lanes], and the sum of all of them [lanes].

    Args:
        q: filled with the targets.
        total: filled with their sum.
        curves: filled with u of the label's class and what curves 0 and 2 give there, [3 lanes].
        u: log p as the curves read it, [C lanes].
        y: the labels.
        factor: of the targets of other classes.
        knots: of the curves.
        curve: at the knots, [3 K].
    """
    q[:] = 0
    total[:] = 0
    curves[:] = 0
    true = curves[0]
    of_true = curves[1]
    of_other = curves[2]
    for c in range(len(q)):
        for b in range(len(total)):
            true[b] += u[c, b] * y[c, b]
    _add_along(q.reshape(-1), u.reshape(-1), knots, curve[1])
    _add_along(of_true, true, knots, curve[0])
    _add_along(of_other, true, knots, curve[2])
    for c in range(len(q)):
        for b in range(len(total)):
            other = (q[c, b] + of_other[b]) / np.float32(len(q)) * factor[c, b]
            q[c, b] = other + y[c, b] * (of_true[b] - other)
            total[b] += q[c, b]


@compiled
def logit_gradient(
    logits, target, curves, knots, reference, shift, importance, factors, lanes, gradient
):
    """Fills the gradient of P losses' values with respect to logits.

    Args:
        logits: [N C B].
        target: labels as distributions, [T C B].
        curves: at the knots, [P 3 K].
        knots: logarithms of probabilities, [K].
        reference: how log p is read: that of a uniform guess, what is added below it, and what
            1 - p is multiplied by above it; the last is 1 where log p is read as it is.
        shift: added to the logits; [T C] or [N C], each with its classifier modulo its length.
        importance: what each image counts, 0 where it pads a task; [T B] or [N B].
        factors: of the targets of other classes than the label's; [N C B], or [1 C B] for all.
        lanes: equals LANES, but is passed at run time on purpose: as a constant, LLVM unrolls these
            loops instead of vectorising them.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    tasks = len(target)
    guess, offset, scale = reference
    # --- buffers, for `lanes` images at once ---
    buffers = np.empty((6, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next five
    p = buffers[1]
    y = buffers[2]
    u = buffers[3]  # log p as the curves read it
    q = buffers[4]  # targets
    factor = buffers[5]  # of the targets of other classes
    factor[:] = 1
    total = np.empty(lanes, np.float32)  # of all targets
    at_true = np.empty((3, lanes), np.float32)  # u of the label's class, and curves there
    for n in range(count):
        curve = curves[n // tasks]
        t = n % tasks
        moved = shift[n % len(shift)]
        counts = importance[n % len(importance)]
        for at in range(0, images, lanes):
            # --- load: the last block may hold fewer images than lanes; the rest stays zero ---
            block = min(lanes, images - at)
            load(logp, y, logits[n], target[t], moved, at)
            fill(factor, factors[n % len(factors)], at, block)

            # --- probabilities, and their logarithms as the curves read them ---
            softmax(logp, p, lanes)
            if scale == ONE:
                u[:] = logp
            else:
                read(u.reshape(-1), logp.reshape(-1), guess, offset, scale)
            fill_targets(q, total, at_true, u, y, factor, knots, curve)

            # --- store p Σ q - q, weighed ---
            for c in range(classes):
                for b in range(block):
                    # Selected: what is not finite times 0 would be NaN.
                    weighed = (p[c, b] * total[b] - q[c, b]) * counts[at + b]
                    gradient[n, c, at + b] = weighed if counts[at + b] != 0 else 0
