"""The accuracy of many classifiers in one pass over their logits."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled


@compiled
def count_right(logits, label, right):
    """Fills `right` [N]: how many images of each classifier get the class of their label.

    NaN where any logit is not finite: a classifier that diverged is never right.

    Args:
        logits: [N C B].
        label: [T B].
        right: filled with the counts, [N].
    """
    for n in range(len(logits)):
        t = n % len(label)
        total = 0.0
        best = logits[n, 0].copy()  # highest logit so far, [B]
        predicted = np.zeros(logits.shape[2], np.int64)  # its class, [B]
        nan = np.zeros_like(best)  # 0, or NaN where a logit is not finite, [B]
        for c in range(logits.shape[1]):
            row = logits[n, c]
            for i in range(len(row)):
                x = row[i]
                nan[i] += x * 0
                better = x > best[i]
                best[i] = x if better else best[i]
                predicted[i] = c if better else predicted[i]
        for i in range(len(best)):
            total += (predicted[i] == label[t, i]) + nan[i]
        right[n] = total
