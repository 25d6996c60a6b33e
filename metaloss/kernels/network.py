"""The gradient of an equivariant Meta-Loss Network, as `genomes/_equivariant.py` defines it.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels.exponential import ONE, exp
from metaloss.kernels.jit import compiled
from metaloss.kernels.perceptron import relu, relu_gradient
from metaloss.kernels.product import add_product
from metaloss.kernels.softmax import softmax


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
def deactivate(grad, out, logistic):
    """The gradient at the output of σ or ReLU becomes that at its input, in place."""
    if not logistic:
        relu_gradient(grad, out)
        return
    for i in range(len(out)):
        for b in range(out.shape[1]):
            # σ' = σ - σ²
            grad[i, b] *= out[i, b] - out[i, b] * out[i, b]


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
def _read_back(grad, dx, p, channels, lanes):
    """Fills the gradient at the logits [C lanes] from that at the inputs, dx [K C·lanes]."""
    classes = np.float32(len(p))
    middle = np.zeros(lanes, np.float32)
    total = np.zeros(lanes, np.float32)
    grad[:] = 0
    for k in range(len(channels)):
        of_p, of_logp, of_logit, _ = channels[k]
        for c in range(len(p)):
            for b in range(lanes):
                grad[c, b] += dx[k, c * lanes + b] * (of_p * p[c, b] + of_logp + of_logit)
                middle[b] += dx[k, c * lanes + b] * of_logit / classes
    # First the gradient of the centring, then that of the log-softmax: g - p Σ g.
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= middle[b]
            total[b] += grad[c, b]
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= p[c, b] * total[b]


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


# One function: its buffers are allocated once, and every phase reads those of the phase before.
@compiled
def logit_gradient(  # noqa: PLR0915
    logits, target, weights, bias, channels, logistic, lanes, gradient
):
    """Fills the gradient of P networks' values with respect to logits.

    Args:
        logits: [N C B].
        target: labels as ones and zeros, [T C B].
        weights: a `Weights`.
        bias: of the ŷ channel's features, with what they read of the class alone, [N F C].
        channels: what p, log p and the logit's distance from the mean count in each input, and
            what is added, [K 4].
        logistic: whether σ is between the layers; else ReLU.
        lanes: equals LANES, but is passed at run time on purpose: as a constant, LLVM unrolls these
            loops instead of vectorising them.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    tasks = len(target)
    features = weights.w_pred.shape[1]
    width = weights.w_mix.shape[1]
    columns = classes * lanes
    # --- buffers, for `lanes` images at once; column c·lanes + b is class c of image b ---
    buffers = np.empty((4, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next three
    p = buffers[1]
    y = buffers[2]
    grad = buffers[3]
    x = np.empty((len(channels), columns), np.float32)  # inputs, then their gradient, [K C·lanes]
    h = np.empty((features, columns), np.float32)  # features, [F C·lanes]
    dh = np.empty((features, columns), np.float32)  # [F C·lanes]
    u = np.empty((width, columns), np.float32)  # integration, [H C·lanes]
    du = np.empty((width, columns), np.float32)  # [H C·lanes]
    mean = np.empty((features, lanes), np.float32)  # features summed over the classes, [F lanes]
    true = np.empty((features, lanes), np.float32)  # features of the label's class, [F lanes]
    context = np.empty((width, lanes), np.float32)  # what every class is given, [H lanes]
    more = np.empty((width, lanes), np.float32)  # what the label's class is given too, [H lanes]
    for n in range(count):
        i = n // tasks
        t = n % tasks
        for at in range(0, images, lanes):
            # --- load: the last block may hold fewer images than lanes; the rest stays zero ---
            block = min(lanes, images - at)
            logp[:] = 0
            y[:] = 0
            for c in range(classes):
                for b in range(block):
                    logp[c, b] = logits[n, c, at + b]
                    y[c, b] = target[t, c, at + b]

            # --- forward: probabilities, features of the ŷ channel, sums over classes, integration
            softmax(logp, p, lanes)
            read(x, logp, p, channels, lanes)
            for f in range(features):
                for c in range(classes):
                    h[f, c * lanes : (c + 1) * lanes] = bias[n, f, c]
            add_product(h, weights.w_pred[i], x)
            activate(h, logistic)
            gather(mean, true, h, y, lanes)
            for j in range(width):
                context[j] = weights.label_absent[i, j, 0]
                more[j] = weights.label_present[i, j, 0]
                # The gradient at the integration's output is the same for all classes and images.
                du[j] = weights.w_out[i, 0, j] / np.float32(images)
            add_product(context, weights.w_mean[i], mean)
            add_product(context, weights.w_true[i], true)
            spread(u, context, more, y, lanes)
            add_product(u, weights.w_mix[i], h)
            activate(u, logistic)

            # --- backward: the same layers in reverse; a sum over classes becomes a gradient that
            # is spread over them, and what was spread is summed
            deactivate(du, u, logistic)
            gather(context, more, du, y, lanes)
            mean[:] = 0
            true[:] = 0
            x[:] = 0
            add_product(mean, weights.w_mean_transposed[i], context)
            add_product(true, weights.w_true_transposed[i], context)
            spread(dh, mean, true, y, lanes)
            add_product(dh, weights.w_mix_transposed[i], du)
            deactivate(dh, h, logistic)
            add_product(x, weights.w_pred_transposed[i], dh)
            _read_back(grad, x, p, channels, lanes)

            # --- store ---
            for c in range(classes):
                for b in range(block):
                    gradient[n, c, at + b] = grad[c, b]
