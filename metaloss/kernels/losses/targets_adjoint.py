"""The adjoint of the gradient of learned targets, from `targets.py`.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import ONE, exp
from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.images import away, load, load_change, store
from metaloss.kernels.losses.targets import fill, fill_targets, read


@compiled
def _along_back(by_u, totals, part, adjoint, u, knots, curve):
    """Adds the derivatives of a curve's values at u, from the adjoint of these, both [columns].

    Args:
        by_u: those by u are added to it.
        totals: to its first row [lanes] the adjoint is added, to the row of each segment the
            adjoint times how much of the segment was passed.
        part: room, [columns].
        adjoint: of the values.
        u: logarithms of probabilities.
        knots: of the curve.
        curve: at the knots.
    """
    zero = u.dtype.type(0)
    lanes = totals.shape[1]
    for at in range(0, len(u), lanes):
        for b in range(lanes):
            totals[0, b] += adjoint[at + b]
    for k in range(len(knots) - 1):
        left = knots[k]
        scale = ONE / (knots[k + 1] - left)
        slope = (curve[k + 1] - curve[k]) * scale
        for i in range(len(u)):
            passed = (u[i] - left) * scale
            # NaN fails both comparisons, and so stays.
            held = zero if passed < zero else ONE if passed > ONE else passed
            part[i] = adjoint[i] * held
            by_u[i] += adjoint[i] * slope if passed == held else zero
        for at in range(0, len(u), lanes):
            for b in range(lanes):
                totals[k + 1, b] += part[at + b]


@compiled
def _store_curve(by_curve, totals):
    """Adds to the derivatives by a curve's values at its knots [K] what was summed up [K lanes]."""
    for k in range(len(by_curve)):
        # A knot's share is what the segment before it has passed, and the one behind it has not.
        by_curve[k] += totals[k].sum()
        if k + 1 < len(by_curve):
            by_curve[k] -= totals[k + 1].sum()


@compiled
def _read_back(by_u, logp, u, guess, scale):
    """The derivatives by what the curves read become those by log p, in place, [columns]."""
    for i in range(len(u)):
        surer = scale * exp(logp[i] - u[i])
        by_u[i] *= surer if logp[i] > guess else ONE


@compiled
def _back_through_targets(by_u, totals, room, of_q, true, u, y, factor, knots, curve):
    """Fills the derivatives by u [C lanes], from the adjoint of the targets, which is overwritten.

    Args:
        by_u: filled.
        totals: what `_along_back` adds up for each curve, [3 K lanes].
        room: two rows for each image and one for each class of it, [C + 3 lanes].
        of_q: the adjoint of the targets, [C lanes].
        true: u of the label's class, [lanes].
        u: as for `fill_targets`, as the next four.
        y: the labels.
        factor: of the targets of other classes.
        knots: of the curves.
        curve: at the knots.
    """
    classes, lanes = u.shape
    room[:3] = 0
    of_true = room[0]  # the adjoint of what curve 0 gives
    of_other = room[1]  # that of what curve 2 gives
    by_true = room[2]  # the derivative by u of the label's class
    part = room[3:].reshape(-1)
    for c in range(classes):
        for b in range(lanes):
            of_true[b] += of_q[c, b] * y[c, b]
            of_q[c, b] *= (ONE - y[c, b]) * factor[c, b] / np.float32(classes)
            of_other[b] += of_q[c, b]
    by_u[:] = 0
    of_own = of_q.reshape(-1)  # the adjoint of what curve 1 gives
    _along_back(by_u.reshape(-1), totals[1], part, of_own, u.reshape(-1), knots, curve[1])
    _along_back(by_true, totals[0], part, of_true, true, knots, curve[0])
    _along_back(by_true, totals[2], part, of_other, true, knots, curve[2])
    for c in range(classes):
        for b in range(lanes):
            by_u[c, b] += by_true[b] * y[c, b]


@compiled
def logit_gradient_adjoint(
    logits,
    target,
    curves,
    knots,
    reference,
    shift,
    importance,
    factors,
    lanes,
    change,
    gradient,
    by_logits,
    numbers,
):
    """Fills the gradient, and the derivatives of its product with a change of the logits.

    Args:
        logits: [N C B].
        target: as for `targets.logit_gradient`, as the next six.
        curves: at the knots.
        knots: logarithms of probabilities.
        reference: how log p is read.
        shift: added to the logits.
        importance: what each image counts.
        factors: of the targets of other classes than the label's.
        lanes: equals LANES.
        change: of the logits, [N C B].
        gradient: filled with the gradient at the logits, [N C B].
        by_logits: filled with the derivatives by the logits, [N C B].
        numbers: an array to which the derivatives by the curves are added, [P 3 K].
    """
    before = flush_tiny_numbers()
    count, classes, images = logits.shape
    tasks = len(target)
    guess, offset, scale = reference
    # --- buffers, for `lanes` images at once ---
    buffers = np.empty((9, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next eight
    p = buffers[1]
    y = buffers[2]
    v = buffers[3]  # the change of the logits, times what the images count
    u = buffers[4]  # log p as the curves read it
    q = buffers[5]  # targets
    factor = buffers[6]  # of the targets of other classes
    of_q = buffers[7]  # their adjoint
    by_u = buffers[8]
    factor[:] = 1
    total = np.empty(lanes, np.float32)  # of all targets
    at_true = np.empty((3, lanes), np.float32)  # u of the label's class, and curves there
    room = np.empty((classes + 3, lanes), np.float32)
    for n in range(count):
        i = n // tasks
        t = n % tasks
        counts = importance[n % len(importance)]
        totals = np.zeros((3, len(knots), lanes), np.float32)
        for at in range(0, images, lanes):
            load(logp, y, logits[n], target[t], shift[n % len(shift)], at)
            load_change(v, logp, change[n], counts, at)
            fill(factor, factors[n % len(factors)], at, min(lanes, images - at))

            # --- forward: probabilities, what the curves read, targets ---
            softmax(logp, p, lanes)
            if scale == ONE:
                u[:] = logp
            else:
                read(u.reshape(-1), logp.reshape(-1), guess, offset, scale)
            fill_targets(q, total, at_true, u, y, factor, knots, curves[i])

            # --- backward: the product is Σ q (Σ p v - v), through the targets, then log p ---
            away(of_q, v, p)
            _back_through_targets(
                by_u, totals, room, of_q, at_true[0], u, y, factor, knots, curves[i]
            )
            if scale != ONE:
                _read_back(by_u.reshape(-1), logp.reshape(-1), u.reshape(-1), guess, scale)
            for c in range(classes):
                for b in range(lanes):
                    by_u[c, b] += total[b] * v[c, b] * p[c, b]
                    # From here on: what the gradient is before the images are weighed.
                    q[c, b] = p[c, b] * total[b] - q[c, b]
            store(gradient[n], by_logits[n], q, by_u, p, counts, at)
        for row in range(3):
            _store_curve(numbers[i, row], totals[row])
    restore_modes(before)
