"""The answers of many classifiers in one pass over their logits, and how many are right."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled


@compiled
def find_answers(logits, answer, nan):
    """Fills in each image's answer: the class with the highest logit, the first of equal ones.

    Args:
        logits: of one classifier, [C B].
        answer: filled with the classes, [B].
        nan: filled with 0, or NaN where a logit is not finite, [B].
    """
    best = logits[0].copy()  # highest logit so far, [B]
    answer[:] = 0
    nan[:] = 0
    for c in range(logits.shape[0]):
        row = logits[c]
        for i in range(len(row)):
            x = row[i]
            nan[i] += x * 0
            better = x > best[i]
            best[i] = x if better else best[i]
            answer[i] = c if better else answer[i]


@compiled
def count_right(logits, label, right):
    """Fills `right` [N]: how many images of each classifier get the class of their label.

    NaN where any logit is not finite: a classifier that diverged is never right.

    Args:
        logits: [N C B].
        label: [T B].
        right: filled with the counts, [N].
    """
    predicted = np.zeros(logits.shape[2], np.int64)
    nan = np.zeros(logits.shape[2], logits.dtype)
    for n in range(len(logits)):
        t = n % len(label)
        total = 0.0
        find_answers(logits[n], predicted, nan)
        for i in range(len(predicted)):
            total += (predicted[i] == label[t, i]) + nan[i]
        right[n] = total
