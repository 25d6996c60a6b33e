"""Log-probabilities and probabilities of some images at once."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.functions.exponential import ONE, whole_exp
from metaloss.kernels.functions.logarithm import log
from metaloss.kernels.jit import compiled


@compiled
def softmax(logp, p, lanes):
    """Logits [C lanes] become log-probabilities in place; fills p [C lanes] with probabilities."""
    top = np.empty(lanes, np.float32)
    total = np.zeros(lanes, np.float32)
    top[:] = logp[0]
    for c in range(1, len(logp)):
        for b in range(lanes):
            top[b] = logp[c, b] if logp[c, b] > top[b] else top[b]
    # The highest logit is subtracted first, so that exp cannot overflow.
    for c in range(len(logp)):
        for b in range(lanes):
            logp[c, b] -= top[b]
            p[c, b] = whole_exp(logp[c, b])
            total[b] += p[c, b]
    # From here on: the logarithm of the sum, and one over the sum.
    for b in range(lanes):
        top[b] = log(total[b])
        total[b] = ONE / total[b]
    for c in range(len(logp)):
        for b in range(lanes):
            logp[c, b] -= top[b]
            p[c, b] *= total[b]
