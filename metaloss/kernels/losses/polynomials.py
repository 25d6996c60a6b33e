"""The gradient of polynomials in target and prediction, as `genomes/_polynomials.py` defines it.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.jit import compiled


@compiled
def times_plus(total, x, summand):
    """Multiplies `total` by x and adds a number, all [columns]."""
    for i in range(len(total)):
        total[i] = total[i] * x[i] + summand


@compiled
def times_plus_each(total, x, summand):
    """Multiplies `total` by x and adds `summand`, all [columns]."""
    for i in range(len(total)):
        total[i] = total[i] * x[i] + summand[i]


@compiled
def logit_gradient(logits, target, slopes, shift, of_class, of_image, lanes, gradient):
    """Fills the gradient of P losses' values with respect to logits.

    Args:
        logits: [N C B].
        target: labels as distributions, [T C B].
        slopes: the coefficients of y^i p^j in each loss's derivative by p, [P K K]; 0 for
            i + j >= K.
        shift: added to the logits; [T C] or [N C], each with its classifier modulo its length.
        of_class: what the term of each class counts, likewise.
        of_image: what each image counts, 0 where it pads a task; [T B].
        lanes: equals LANES, but is passed at run time on purpose: as a constant, LLVM unrolls these
            loops instead of vectorising them.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    tasks = len(target)
    order = slopes.shape[1]
    # --- buffers, for `lanes` images at once ---
    buffers = np.empty((5, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next four
    p = buffers[1]
    y = buffers[2]
    of_y = buffers[3]  # the coefficient of one power of p
    slope = buffers[4]  # the derivative by p
    mean = np.empty(lanes, np.float32)  # of an image's derivatives, weighed by p
    for n in range(count):
        slopes_of_loss = slopes[n // tasks]
        t = n % tasks
        moved = shift[n % len(shift)]
        weight = of_class[n % len(of_class)]
        counts = of_image[t]
        for at in range(0, images, lanes):
            # --- load: the last block may hold fewer images than lanes; the rest stays zero ---
            block = min(lanes, images - at)
            logp[:] = 0
            y[:] = 0
            for c in range(classes):
                for b in range(block):
                    logp[c, b] = logits[n, c, at + b] + moved[c]
                    y[c, b] = target[t, c, at + b]
            softmax(logp, p, lanes)

            # --- derivative: Horner's scheme over powers of p, and for each over those of y ---
            slope[:] = 0
            for j in range(order - 1, -1, -1):
                of_y[:] = slopes_of_loss[order - 1 - j, j]
                for i in range(order - 2 - j, -1, -1):
                    times_plus(of_y.reshape(-1), y.reshape(-1), slopes_of_loss[i, j])
                times_plus_each(slope.reshape(-1), p.reshape(-1), of_y.reshape(-1))

            # --- store p (slope - Σ p slope), weighed ---
            mean[:] = 0
            for c in range(classes):
                for b in range(lanes):
                    slope[c, b] *= weight[c]
                    mean[b] += p[c, b] * slope[c, b]
            for c in range(classes):
                for b in range(block):
                    # Selected: what is not finite times 0 would be NaN.
                    weighed = p[c, b] * (slope[c, b] - mean[b]) * counts[at + b]
                    gradient[n, c, at + b] = weighed if counts[at + b] != 0 else 0
