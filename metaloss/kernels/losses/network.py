"""The gradient of an equivariant Meta-Loss Network, as `genomes/_equivariant.py` defines it.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.network_tiles import (
    TILE,
    activate_features,
    features_back,
    fill_context,
    fill_feature_gradients,
    fill_mean_gradients,
    fill_true_gradients,
    input_back,
    integrate,
)


@compiled
def _read(x, logp, p, channels, lanes):
    """Fills x [CK lanes], the inputs of the ŷ channel, from logp and p [C lanes]."""
    middle = np.zeros(lanes, np.float32)
    for c in range(len(logp)):
        for b in range(lanes):
            middle[b] += logp[c, b] / np.float32(len(logp))
    for k in range(len(channels)):
        of_p, of_logp, of_logit, more = channels[k]
        for c in range(len(logp)):
            line = x[c * len(channels) + k]
            for b in range(lanes):
                rest = of_logit * (logp[c, b] - middle[b]) + more
                line[b] = of_p * p[c, b] + of_logp * logp[c, b] + rest


@compiled
def _read_back(grad, dx, p, channels, lanes):
    """Fills the gradient at the logits [C lanes] from that at the inputs, dx [CK lanes]."""
    classes = np.float32(len(p))
    middle = np.zeros(lanes, np.float32)
    total = np.zeros(lanes, np.float32)
    grad[:] = 0
    for k in range(len(channels)):
        of_p, of_logp, of_logit, _ = channels[k]
        for c in range(len(p)):
            line = dx[c * len(channels) + k]
            for b in range(lanes):
                grad[c, b] += line[b] * (of_p * p[c, b] + of_logp + of_logit)
                middle[b] += line[b] * of_logit / classes
    # First the gradient of the centring, then that of the log-softmax: g - p Σ g.
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= middle[b]
            total[b] += grad[c, b]
    for c in range(len(p)):
        for b in range(lanes):
            grad[c, b] -= p[c, b] * total[b]


class Places(NamedTuple):
    """Where the weights of a network with K channels, F features and H hidden units begin.

    A network's weights are one row of numbers, matrix after matrix; of a matrix, UNITS rows after
    UNITS rows, each of these column by column, but for `pred_transposed`, which is row by row. F
    and H are multiples of UNITS; weights of what fills them up are 0.

    Attributes:
        pred: of the ŷ channel's features, [F K].
        mix: of the integration, from the features of each class, [H F].
        mean: of the integration, from the sum over the classes, divided by their number, [H F].
        true: of the integration, from the label's class, [H F].
        out: of the sum at the end, [H].
        absent: what the label's channel adds where the label is 0, [H].
        present: what it adds to that where the label is 1, [H].
        pred_transposed: [K F].
        mix_transposed: [F H].
        mean_transposed: [F H].
        true_transposed: [F H].
    """

    pred: Any
    mix: Any
    mean: Any
    true: Any
    out: Any
    absent: Any
    present: Any
    pred_transposed: Any
    mix_transposed: Any
    mean_transposed: Any
    true_transposed: Any


class Buffers(NamedTuple):
    """What networks are computed in.

    The first two hold all images of a classifier, the others VECTOR of them, and what is said to be
    filled in by a pass is a gradient.

    Attributes:
        x: inputs, then their gradient, [CK lanes].
        y: labels, [C lanes].
        h: features of each class, [CF VECTOR].
        dh: their gradient, [CF VECTOR].
        mean: features summed over the classes, [F VECTOR], then a gradient.
        true: features of the label's class, [F VECTOR], then a gradient.
        u: gradient at the integration of one class, [H VECTOR].
        context: what every class is given there, [H VECTOR].
        total: gradient at the integration, summed over the classes, [H VECTOR].
    """

    x: Any
    y: Any
    h: Any
    dh: Any
    mean: Any
    true: Any
    u: Any
    context: Any
    total: Any


@compiled
def logit_gradient(logits, target, weights, bias, channels, sizes, logistic, gradient):
    """Fills the gradient of P networks' values with respect to logits.

    Args:
        logits: [N C B].
        target: labels as ones and zeros, [T C B].
        weights: of each network, as `Places` says, [P S].
        bias: of the ŷ channel's features, with what they read of the class alone, [N F C].
        channels: what p, log p and the logit's distance from the mean count in each input, and
            what is added, [K 4].
        sizes: F and H.
        logistic: whether σ is between the layers; else ReLU.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    rows, buffers = room(classes, images, len(channels), sizes)
    before = flush_tiny_numbers()
    for n in range(count):
        i = n // len(target)
        y = target[n % len(target)]
        # fmt: off
        gradient_one(logits[n], y, weights, i, bias, n, channels, sizes, logistic, rows, buffers,
                     gradient[n])
        # fmt: on
    restore_modes(before)


@compiled
def room(classes, images, inputs, sizes):
    """What the gradient of one classifier is computed in: three arrays [C lanes], and a `Buffers`.

    Images fill whole vectors; the rest stays zero.
    """
    lanes = -(-images // VECTOR) * VECTOR
    rows = np.zeros((3, classes, lanes), np.float32)
    return rows, _buffers(classes, inputs, sizes, lanes)


@compiled
def gradient_one(
    logits, target, weights, i, bias, n, channels, sizes, logistic, rows, buffers, gradient
):
    """Fills the gradient of classifier n's value, [C B].

    Args:
        logits: its own, [C B].
        target: labels of its task, [C B].
        weights: as for `logit_gradient`.
        i: the number of its network.
        bias: as for `logit_gradient`.
        n: its number.
        channels: as for `logit_gradient`.
        sizes: as for `logit_gradient`.
        logistic: as for `logit_gradient`.
        rows: what `room` gives first.
        buffers: what it gives then.
        gradient: filled, [C B].
    """
    classes, images = logits.shape
    logp = rows[0]  # [C lanes], as the next two
    p = rows[1]
    grad = rows[2]
    lanes = logp.shape[1]
    for c in range(classes):
        for b in range(images):
            logp[c, b] = logits[c, b]
            buffers.y[c, b] = target[c, b]
        logp[c, images:] = 0
    softmax(logp, p, lanes)
    _read(buffers.x, logp, p, channels, lanes)
    places = _places(i * weights.shape[1], len(channels), sizes)
    share = np.float32(1 / images)
    for at in range(0, lanes, VECTOR):
        _forward(buffers, weights, bias, n, places, share, at, logistic)
        _backward(buffers, weights, places, at, logistic)
    _read_back(grad, buffers.x, p, channels, lanes)
    for c in range(classes):
        for b in range(images):
            gradient[c, b] = grad[c, b]


@compiled
def _places(start, inputs, sizes):
    """The places of a network's weights, the first of which stands at `start`."""
    features, width = sizes
    pred = features * inputs
    mix = features * width
    return Places(
        pred=start,
        mix=start + pred,
        mean=start + pred + mix,
        true=start + pred + 2 * mix,
        out=start + pred + 3 * mix,
        absent=start + pred + 3 * mix + width,
        present=start + pred + 3 * mix + 2 * width,
        pred_transposed=start + pred + 3 * mix + 3 * width,
        mix_transposed=start + 2 * pred + 3 * mix + 3 * width,
        mean_transposed=start + 2 * pred + 4 * mix + 3 * width,
        true_transposed=start + 2 * pred + 5 * mix + 3 * width,
    )


@compiled
def _buffers(classes, inputs, sizes, lanes):
    """Room for networks of one size, labels of 0."""
    features, width = sizes
    return Buffers(
        np.empty((classes * inputs, lanes), np.float32),
        np.zeros((classes, lanes), np.float32),
        np.empty((classes * features, VECTOR), np.float32),
        np.empty((classes * features, VECTOR), np.float32),
        np.empty((features, VECTOR), np.float32),
        np.empty((features, VECTOR), np.float32),
        np.empty((width, VECTOR), np.float32),
        np.empty((width, VECTOR), np.float32),
        np.empty((width, VECTOR), np.float32),
    )


@compiled
def _forward(buffers, w, bias, n, places, share, at, logistic):
    """The layers on VECTOR images from `at` on, and back from the output to the features.

    Fills `h`, `total`, and `dh` but for what comes through the sums over the classes.

    Args:
        buffers: a `Buffers` with inputs and labels.
        w: as for `logit_gradient`.
        bias: as for `logit_gradient`.
        n: the number of the classifier.
        places: of its network's weights.
        share: of an image in the mean over images.
        at: the first image.
        logistic: as for `logit_gradient`.
    """
    classes = len(buffers.y)
    features = len(buffers.mean)
    width = len(buffers.u)
    inputs = len(buffers.x) // classes
    # fmt: off
    # --- features of the ŷ channel, and their sums over the classes ---
    buffers.mean[:] = 0
    buffers.true[:] = 0
    for c in range(classes):
        for f in range(0, features, TILE):
            activate_features(buffers, w, places.pred + f * inputs, inputs, bias,
                              (n * features + f) * classes + c, classes, c, f, features, at,
                              logistic)

    # --- what the integration is given of all classes ---
    for j in range(0, width, TILE):
        fill_context(buffers, w, places.absent + j, places.mean + j * features,
                     places.true + j * features, features, j)

    # --- integration, class by class, forward and at once backward ---
    buffers.total[:] = 0
    for c in range(classes):
        for j in range(0, width, TILE):
            integrate(buffers, w, places.mix + j * features, features, places.present + j,
                      places.out + j, share, c, j, at, logistic)
        for f in range(0, features, TILE):
            fill_feature_gradients(buffers, w, places.mix_transposed + f * width, width,
                                   c * features + f)
    # fmt: on


@compiled
def _backward(buffers, w, places, at, logistic):
    """The gradient at the inputs takes their place; arguments as for `_forward`."""
    classes = len(buffers.y)
    features = len(buffers.mean)
    width = len(buffers.u)
    inputs = len(buffers.x) // classes
    # A sum over classes becomes a gradient that is spread over them.
    for f in range(0, features, TILE):
        fill_mean_gradients(buffers, w, places.mean_transposed + f * width, width, f)
        fill_true_gradients(buffers, w, places.true_transposed + f * width, width, f)
    for c in range(classes):
        for f in range(0, features, TILE):
            features_back(buffers, w, c, f, features, at, logistic)
        for k in range(inputs):
            start = places.pred_transposed + k * features
            input_back(buffers, w, start, features, c, c * inputs + k, at)
