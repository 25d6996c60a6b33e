"""Passes of many linear classifiers in the span of their training images, as `SharedLinear` has it.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.instructions.product import STORE, fill_product
from metaloss.kernels.jit import compiled


@compiled
def classify(base, kernel, a, logits):
    """Fills the logits, `base` plus the product of the coefficients with the images.

    Args:
        base: of each classifier's initial weights, [N C Vp]: V images in whole vectors.
        kernel: products of the training images with the images, [T B Vp].
        a: coefficients, [N C B].
        logits: filled, [N C V].
    """
    count, classes, padded = base.shape
    images = logits.shape[2]
    tasks = len(kernel)
    # Classifiers of one task are one product, whose rows are all their classes.
    at_once = count if tasks == 1 else 1
    rows = at_once * classes
    scores = np.empty((rows, padded), a.dtype)
    one = a.dtype.type(1)
    for n in range(0, count, at_once):
        some = slice(n, n + at_once)
        coefficients = a[some].reshape(rows, a.shape[2])
        before = base[some].reshape(rows, padded)
        fill_product(scores, coefficients, kernel[n % tasks], before, one, STORE, scores)
        for i in range(rows):
            line = logits[n + i // classes, i % classes]
            for b in range(images):
                line[b] = scores[i, b]


@compiled
def descend(a, gradient, rates):
    """a -= rate · gradient, both [N C B]; a learning rate for each classifier, [N]."""
    for n in range(len(a)):
        rate = rates[n]
        for c in range(a.shape[1]):
            for b in range(a.shape[2]):
                a[n, c, b] -= rate * gradient[n, c, b]
