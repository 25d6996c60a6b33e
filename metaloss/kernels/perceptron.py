"""Passes of a perceptron whose first layer lies in the span of the training images:
`classifiers/shared.py`.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.jit import compiled
from metaloss.kernels.product import add_product, add_transposed_product, transpose

ROWS = 96  # validation images that pass through the layers at once


@compiled
def forward(start, kernel, share, a, weights, biases, hidden, logits):
    """What every layer gives on the training images.

    Args:
        start: [T B H], images through the first layer's start.
        kernel: [T B K], their products with the K training images.
        share: [N], what is left of the start.
        a: [N K H], the first layer's coefficients.
        weights, biases: of the later layers, [N outputs inputs] and [N 1 outputs].
        hidden: filled with the hidden layers after ReLU, [N B H].
        logits: filled with [N C B].
    """
    for n in range(len(a)):
        t = n % len(start)
        layers = [z[n] for z in hidden]
        _through(
            start[t],
            kernel[t],
            share[n],
            a[n],
            _transposed(weights, n),
            biases,
            n,
            layers,
            logits[n],
            0,
        )


@compiled
def classify(start, kernel, share, a, weights, biases, logits):
    """The logits alone, of any number of images; `forward`'s arguments."""
    layers = [np.empty((ROWS, w.shape[2]), a.dtype) for w in weights]
    for n in range(len(a)):
        t = n % len(start)
        transposed = _transposed(weights, n)
        for i in range(0, start.shape[1], ROWS):
            some = slice(i, min(i + ROWS, start.shape[1]))
            _through(
                start[t, some],
                kernel[t, some],
                share[n],
                a[n],
                transposed,
                biases,
                n,
                layers,
                logits[n],
                i,
            )


@compiled
def _transposed(weights, n):
    """A classifier's weights laid inputs × outputs, their rows filled up to whole vectors."""
    found = [np.empty((w.shape[2], -(-w.shape[1] // VECTOR) * VECTOR), w.dtype) for w in weights]
    for i in range(len(weights)):
        transpose(weights[i][n], found[i])
    return found


@compiled
def _through(start, kernel, share, a, transposed, biases, n, layers, logits, at):
    rows = len(start)
    z = layers[0][:rows]
    for i in range(rows):
        for j in range(z.shape[1]):
            z[i, j] = share * start[i, j]
    add_product(z, kernel, a)
    relu(z)
    for i in range(1, len(layers)):
        x = z
        z = layers[i][:rows]
        _affine(z, x, transposed[i - 1], biases[i - 1][n])
        relu(z)
    scores = np.empty((rows, transposed[-1].shape[1]), a.dtype)
    _affine(scores, z, transposed[-1], biases[-1][n])
    for c in range(len(logits)):
        for i in range(rows):
            logits[c, at + i] = scores[i, c]


@compiled
def _affine(z, x, transposed, bias):
    """z = x w + b; columns beyond the bias's are 0."""
    columns = bias.shape[1]
    for i in range(len(z)):
        for j in range(columns):
            z[i, j] = bias[0, j]
        for j in range(columns, z.shape[1]):
            z[i, j] = 0
    add_product(z, x, transposed)


@compiled
def relu(z):
    """ReLU in place, which NaN passes."""
    zero = z.dtype.type(0)
    for i in range(len(z)):
        for j in range(z.shape[1]):
            x = z[i, j]
            z[i, j] = zero if x <= zero else x


@compiled
def relu_gradient(grad, out):
    """The gradient at ReLU's output becomes that at its input."""
    zero = grad.dtype.type(0)
    for i in range(len(out)):
        for j in range(out.shape[1]):
            grad[i, j] = zero if out[i, j] <= zero else grad[i, j]


@compiled
def backward(delta, weights, hidden, back, biases):
    """From the gradient at the logits [N C B]: fills those at the hidden layers' inputs [N B H] and of the biases."""
    last = len(weights) - 1
    for n in range(len(delta)):
        for c in range(delta.shape[1]):
            biases[last][n, 0, c] = delta[n, c].sum()
        for i in range(last, -1, -1):
            z = back[i][n]
            x = hidden[i][n]
            z[:] = 0
            if i == last:
                add_transposed_product(z, delta[n], weights[i][n])
            else:
                add_product(z, back[i + 1][n], weights[i][n])
            relu_gradient(z, x)
            if i > 0:
                total = biases[i - 1][n, 0]
                total[:] = 0
                for r in range(len(z)):
                    for j in range(z.shape[1]):
                        total[j] += z[r, j]


@compiled
def descend(weight, left, right, rate, transposed):
    """weight [N M K] -= rate · left right, for left [N M B], or [N B M] where it is transposed, and right [N B K]."""
    for n in range(len(weight)):
        scaled = left[n] * -rate
        if transposed:
            add_transposed_product(weight[n], scaled, right[n])
        else:
            add_product(weight[n], scaled, right[n])
