"""The adjoint of the gradient of polynomials in target and prediction, from
`polynomials.py`.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.images import away, load, load_change, store
from metaloss.kernels.losses.polynomials import times_plus, times_plus_each


@compiled
def _fill_slopes(slope, bend, of_y, y, p, slopes):
    """Fills the derivative by p and its own derivative by p, all [columns], by Horner's scheme.

    Args:
        slope: filled with the first.
        bend: filled with the second.
        of_y: room.
        y: targets.
        p: probabilities.
        slopes: the coefficients of y^i p^j in the first, [K K].
    """
    order = len(slopes)
    slope[:] = 0
    bend[:] = 0
    for j in range(order - 1, -1, -1):
        of_y[:] = slopes[order - 1 - j, j]
        for i in range(order - 2 - j, -1, -1):
            times_plus(of_y, y, slopes[i, j])
        times_plus_each(bend, p, slope)
        times_plus_each(slope, p, of_y)


@compiled
def _add_up_powers(totals, part, adjoint, y, p):
    """Adds to totals [K K lanes] the adjoint times y^i p^j, at i, j with i + j < K.

    Args:
        totals: the sums over every lanes-th column.
        part: room for two rows of all columns, [2 columns].
        adjoint: of the derivative by p, [columns].
        y: targets, [columns].
        p: probabilities, [columns].
    """
    order, _, lanes = totals.shape
    of_p = part[0]
    both = part[1]
    of_p[:] = adjoint
    for j in range(order):
        both[:] = of_p
        for i in range(order - j):
            for at in range(0, len(y), lanes):
                for b in range(lanes):
                    totals[i, j, b] += both[at + b]
            for k in range(len(y)):
                both[k] *= y[k]
        for k in range(len(y)):
            of_p[k] *= p[k]


@compiled
def logit_gradient_adjoint(
    logits,
    target,
    slopes,
    shift,
    of_class,
    of_image,
    lanes,
    change,
    gradient,
    by_logits,
    numbers,
):
    """Fills the gradient, and the derivatives of its product with a change of the logits.

    Args:
        logits: [N C B].
        target: as for `polynomials.logit_gradient`, as the next four.
        slopes: the coefficients of the derivative by p.
        shift: added to the logits.
        of_class: what the term of each class counts.
        of_image: what each image counts.
        lanes: equals LANES.
        change: of the logits, [N C B].
        gradient: filled with the gradient at the logits, [N C B].
        by_logits: filled with the derivatives by the logits, [N C B].
        numbers: an array to which the derivatives by the slopes are added, [P K K].
    """
    before = flush_tiny_numbers()
    count, classes, images = logits.shape
    tasks = len(target)
    order = slopes.shape[1]
    # --- buffers, for `lanes` images at once ---
    buffers = np.empty((9, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next six
    p = buffers[1]
    y = buffers[2]
    v = buffers[3]  # the change of the logits, times what the images count
    slope = buffers[4]  # the derivative by p
    bend = buffers[5]  # the derivative of that
    by_slope = buffers[6]
    part = buffers[7:].reshape(2, -1)
    mean = np.empty(lanes, np.float32)  # of an image's derivatives, weighed by p
    for n in range(count):
        i = n // tasks
        t = n % tasks
        weight = of_class[n % len(of_class)]
        totals = np.zeros((order, order, lanes), np.float32)
        for at in range(0, images, lanes):
            load(logp, y, logits[n], target[t], shift[n % len(shift)], at)
            load_change(v, logp, change[n], of_image[t], at)

            # --- forward ---
            softmax(logp, p, lanes)
            _fill_slopes(
                slope.reshape(-1),
                bend.reshape(-1),
                part[0],
                y.reshape(-1),
                p.reshape(-1),
                slopes[i],
            )
            mean[:] = 0
            for c in range(classes):
                for b in range(lanes):
                    slope[c, b] *= weight[c]
                    bend[c, b] *= weight[c]
                    mean[b] += p[c, b] * slope[c, b]

            # --- backward: the product is -Σ p s (Σ p v - v) ---
            away(by_slope, v, p)
            for c in range(classes):
                for b in range(lanes):
                    by_p = slope[c, b] * by_slope[c, b] + v[c, b] * mean[b]
                    by_slope[c, b] *= -p[c, b]
                    # From here on: the derivative by log p, the derivative by a coefficient's
                    # slope, and what the gradient is before the images are weighed.
                    bend[c, b] = by_slope[c, b] * bend[c, b] * p[c, b] - p[c, b] * by_p
                    by_slope[c, b] *= weight[c]
                    slope[c, b] = p[c, b] * (slope[c, b] - mean[b])
            _add_up_powers(totals, part, by_slope.reshape(-1), y.reshape(-1), p.reshape(-1))
            store(gradient[n], by_logits[n], slope, bend, p, of_image[t], at)
        for j in range(order):
            for k in range(order):
                numbers[i, j, k] += totals[j, k].sum()
    restore_modes(before)
