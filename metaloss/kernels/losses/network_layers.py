"""The layers of an equivariant Meta-Loss Network, one operation at a time, for its adjoint.

`network.py` computes the gradient alone, and does so in fewer passes. Arrays are [rows C·lanes]:
column c · lanes + b is class c of image b.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels.classifiers.perceptron import relu
from metaloss.kernels.functions.exponential import ONE, exp
from metaloss.kernels.jit import compiled


class Weights(NamedTuple):
    """The weights of P networks with K channels, F features and H hidden units.

    Attributes:
        w_pred: of the ŷ channel's features, [P F K].
        w_mix: of the integration, from the features of each class, [P H F].
        w_mean: of the integration, from the sum over the classes, divided by their number, [P H F].
        w_true: of the integration, from the label's class, [P H F].
        w_out: of the sum at the end, [P 1 H].
        label_absent: what the label's channel adds where the label is 0, [P H 1].
        label_present: what it adds to that where the label is 1, [P H 1].
        w_pred_transposed: [P K F].
        w_mix_transposed: [P F H].
        w_mean_transposed: [P F H].
        w_true_transposed: [P F H].
    """

    w_pred: Any
    w_mix: Any
    w_mean: Any
    w_true: Any
    w_out: Any
    label_absent: Any
    label_present: Any
    w_pred_transposed: Any
    w_mix_transposed: Any
    w_mean_transposed: Any
    w_true_transposed: Any


@compiled
def activate(z, logistic):
    """σ or ReLU of z [rows columns], in place."""
    if not logistic:
        relu(z)
        return
    for i in range(len(z)):
        for b in range(z.shape[1]):
            z[i, b] = ONE / (ONE + exp(-z[i, b]))


@compiled
def read(x, logp, p, channels, lanes):
    """Fills x [K C·lanes], the inputs of the ŷ channel, from logp and p [C lanes]."""
    middle = np.zeros(lanes, np.float32)
    for c in range(len(logp)):
        for b in range(lanes):
            middle[b] += logp[c, b] / np.float32(len(logp))
    for k in range(len(channels)):
        of_p, of_logp, of_logit, more = channels[k]
        for c in range(len(logp)):
            for b in range(lanes):
                rest = of_logit * (logp[c, b] - middle[b]) + more
                x[k, c * lanes + b] = of_p * p[c, b] + of_logp * logp[c, b] + rest


@compiled
def gather(total, true, z, y, lanes):
    """Fills the sums of z [rows C·lanes] over all classes, and over the label's class alone."""
    total[:] = 0
    true[:] = 0
    for i in range(len(z)):
        for c in range(len(y)):
            for b in range(lanes):
                total[i, b] += z[i, c * lanes + b]
                true[i, b] += z[i, c * lanes + b] * y[c, b]


@compiled
def spread(z, everywhere, true, y, lanes):
    """Fills z [rows C·lanes]: one part for every class, and another one for the label's class."""
    for i in range(len(z)):
        for c in range(len(y)):
            for b in range(lanes):
                z[i, c * lanes + b] = everywhere[i, b] + true[i, b] * y[c, b]
