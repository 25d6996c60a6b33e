"""The gradient of cross-entropy with soft labels.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import exp
from metaloss.kernels.jit import compiled


@compiled
def logit_gradient(logits, target, importance, gradient):
    """Fills the gradient of P values with respect to logits: (p Σ_c y_c - y), weighed.

    Args:
        logits: [N C B].
        target: labels as distributions; [N C B] or, for all candidates, [T C B].
        importance: the share of each image in the mean, 0 where it pads a task, [T B].
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    top = np.empty(images, np.float32)
    total = np.empty(images, np.float32)
    for n in range(count):
        z = logits[n]
        y = target[n % len(target)]
        p = gradient[n]
        share = importance[n % len(importance)]
        # --- the highest logit is subtracted first, so that exp cannot overflow ---
        top[:] = z[0]
        for c in range(1, classes):
            for b in range(images):
                top[b] = z[c, b] if z[c, b] > top[b] else top[b]
        total[:] = 0
        for c in range(classes):
            for b in range(images):
                p[c, b] = exp(z[c, b] - top[b])
                total[b] += p[c, b]
        # --- from here on: what probabilities are multiplied by ---
        top[:] = 0
        for c in range(classes):
            for b in range(images):
                top[b] += y[c, b]
        for b in range(images):
            total[b] = top[b] / total[b]
        for c in range(classes):
            for b in range(images):
                # Selected: what is not finite times 0 would be NaN.
                weighed = (p[c, b] * total[b] - y[c, b]) * share[b]
                p[c, b] = weighed if share[b] != 0 else 0
