"""The gradient of an equivariant Meta-Loss Network: `genomes/_networks.py`.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from metaloss.kernels.exponential import ONE, exp
from metaloss.kernels.jit import compiled
from metaloss.kernels.perceptron import relu, relu_gradient
from metaloss.kernels.product import add_product

LANES = 32  # images that a loss is worked out for at once


@compiled
def _activate(z, logistic):
    """σ or ReLU, in place."""
    if not logistic:
        relu(z)
        return
    for i in range(len(z)):
        for b in range(z.shape[1]):
            z[i, b] = ONE / (ONE + exp(-z[i, b]))


@compiled
def _deactivate(grad, out, logistic):
    """The gradient at the output of σ or ReLU becomes that at its input."""
    if not logistic:
        relu_gradient(grad, out)
        return
    for i in range(len(out)):
        for b in range(out.shape[1]):
            grad[i, b] *= out[i, b] - out[i, b] * out[i, b]


@compiled
def _softmax(logp, p, lanes):
    """Logits become log-probabilities; fills the probabilities too."""
    top = np.empty(lanes, np.float32)
    total = np.zeros(lanes, np.float32)
    top[:] = logp[0]
    for c in range(1, len(logp)):
        for b in range(lanes):
            top[b] = logp[c, b] if logp[c, b] > top[b] else top[b]
    for c in range(len(logp)):
        for b in range(lanes):
            logp[c, b] -= top[b]
            p[c, b] = exp(logp[c, b])
            total[b] += p[c, b]
    for b in range(lanes):
        top[b] = math.log(total[b])
        total[b] = ONE / total[b]
    for c in range(len(logp)):
        for b in range(lanes):
            logp[c, b] -= top[b]
            p[c, b] *= total[b]


@compiled
def _read(x, logp, p, channels, lanes):
    """What the ŷ channel is told: fills x [K C·lanes]."""
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
    """From the gradient at what the ŷ channel is told: fills that at the logits."""
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
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= middle[b]
            total[b] += grad[c, b]
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= p[c, b] * total[b]


@compiled
def _gather(total, true, z, y, lanes):
    """Sums over the classes, of all and of the label's alone."""
    total[:], true[:] = 0, 0
    for i in range(len(z)):
        for c in range(len(y)):
            for b in range(lanes):
                total[i, b] += z[i, c * lanes + b]
                true[i, b] += z[i, c * lanes + b] * y[c, b]


@compiled
def _spread(z, everywhere, true, y, lanes):
    """Fills every class's part, and the label's with more."""
    for i in range(len(z)):
        for c in range(len(y)):
            for b in range(lanes):
                z[i, c * lanes + b] = everywhere[i, b] + true[i, b] * y[c, b]


@compiled
def logit_gradient(logits, target, weights, channels, logistic, lanes, gradient):
    """The gradient of P networks' values with respect to logits [N C B], for labels [T C B] of ones
    and zeros.

    Args:
        logits: [N C B].
        target: [T C B].
        weights: [P F K] and [P F 1] of the ŷ channel, [P H F] of the integration, of the mean over
            the classes (divided by their number) and of the label's mean, [P 1 H] of the sum, [P H
            1] what the label's channel adds for a 0 and what more for a 1; then all but biases, sum
            and label again, transposed.
        channels: [K 4], what p, log p and the logit's distance from the mean count in an input, and
            what is added.
        logistic: whether σ is between the layers; else ReLU.
        lanes: equals LANES, but is passed at run time on purpose: as a constant, LLVM unrolls these
            loops instead of making vectors of them.
        gradient: filled with the gradient, [N C B].
    """
    w_pred, b_pred, w_mix, w_mean, w_true, w_out, absent, present, t_pred, t_mix, t_mean, t_true = (
        weights
    )
    count, classes, images = logits.shape
    tasks = len(target)
    features = w_pred.shape[1]
    width = w_mix.shape[1]
    columns = classes * lanes
    buffers = np.empty((4, classes, lanes), np.float32)
    logp = buffers[0]
    p = buffers[1]
    y = buffers[2]
    grad = buffers[3]
    x = np.empty((len(channels), columns), np.float32)  # inputs, K × (C·lanes)
    h = np.empty((features, columns), np.float32)
    dh = np.empty((features, columns), np.float32)
    u = np.empty((width, columns), np.float32)
    du = np.empty((width, columns), np.float32)
    mean = np.empty((features, lanes), np.float32)
    true = np.empty((features, lanes), np.float32)
    context = np.empty((width, lanes), np.float32)
    more = np.empty((width, lanes), np.float32)
    for n in range(count):
        i = n // tasks
        t = n % tasks
        for at in range(0, images, lanes):
            # --- Forward: the logits of `some` images, then the ŷ channel, its sums over the classes, the integration.
            some = min(lanes, images - at)
            logp[:], y[:] = 0, 0
            for c in range(classes):
                for b in range(some):
                    logp[c, b], y[c, b] = logits[n, c, at + b], target[t, c, at + b]
            _softmax(logp, p, lanes)
            _read(x, logp, p, channels, lanes)
            for f in range(features):
                h[f] = b_pred[i, f, 0]
            add_product(h, w_pred[i], x)
            _activate(h, logistic)
            _gather(mean, true, h, y, lanes)
            for j in range(width):
                context[j], more[j], du[j] = (
                    absent[i, j, 0],
                    present[i, j, 0],
                    w_out[i, 0, j] / np.float32(images),
                )
            add_product(context, w_mean[i], mean)
            add_product(context, w_true[i], true)
            _spread(u, context, more, y, lanes)
            add_product(u, w_mix[i], h)
            _activate(u, logistic)
            # --- Backward: the same way down; sums over the classes become what is spread over them, and vice versa.
            _deactivate(du, u, logistic)
            _gather(context, more, du, y, lanes)
            mean[:], true[:], x[:] = 0, 0, 0
            add_product(mean, t_mean[i], context)
            add_product(true, t_true[i], context)
            _spread(dh, mean, true, y, lanes)
            add_product(dh, t_mix[i], du)
            _deactivate(dh, h, logistic)
            add_product(x, t_pred[i], dh)
            _read_back(grad, x, p, channels, lanes)
            for c in range(classes):
                for b in range(some):
                    gradient[n, c, at + b] = grad[c, b]
