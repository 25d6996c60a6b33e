"""Forward and backward passes of many perceptrons, as `classifiers/shared.py` defines them.

The first layer is a share of its initial weights plus a combination of the training images, with
the coefficients `a`. Its output needs the products of images with training images alone.

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
    """Fills every layer's output on the training images.

    Args:
        start: output of the first layer's initial weights on the images, [T B H].
        kernel: products of the images with the K training images, [T B K].
        share: how much of the initial weights is left, [N].
        a: the first layer's coefficients, [N K H].
        weights: of the later layers, each [N outputs inputs].
        biases: of the later layers, each [N 1 outputs].
        hidden: filled with the hidden layers after ReLU, each [N B H].
        logits: filled with the logits, [N C B].
    """
    for n in range(len(a)):
        t = n % len(start)
        layers = [z[n] for z in hidden]
        _forward_one(
            start[t],
            kernel[t],
            share[n],
            a[n],
            transposed_weights(weights, n),
            biases,
            n,
            layers,
            logits[n],
            0,
        )


@compiled
def classify(start, kernel, share, a, weights, biases, logits):
    """Fills the logits alone, of any number of images, ROWS at a time.

    Args:
        start: as for `forward`.
        kernel: as for `forward`.
        share: as for `forward`.
        a: as for `forward`.
        weights: as for `forward`.
        biases: as for `forward`.
        logits: filled with the logits, [N C B].
    """
    layers = [np.empty((ROWS, w.shape[2]), a.dtype) for w in weights]
    for n in range(len(a)):
        t = n % len(start)
        transposed = transposed_weights(weights, n)
        for i in range(0, start.shape[1], ROWS):
            rows = slice(i, min(i + ROWS, start.shape[1]))
            _forward_one(
                start[t, rows],
                kernel[t, rows],
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
def transposed_weights(weights, n):
    """A classifier's later weights, each [inputs outputs]; zeros fill its rows to whole vectors."""
    transposed = [
        np.empty((w.shape[2], -(-w.shape[1] // VECTOR) * VECTOR), w.dtype) for w in weights
    ]
    for i in range(len(weights)):
        transpose(weights[i][n], transposed[i])
    return transposed


@compiled
def _forward_one(start, kernel, share, a, transposed, biases, n, layers, logits, at):
    """Fills one classifier's layers, and its logits [C B] from image `at` on."""
    rows = len(start)
    # --- first layer: z [rows H] = share · start + kernel a ---
    z = layers[0][:rows]
    for i in range(rows):
        for j in range(z.shape[1]):
            z[i, j] = share * start[i, j]
    add_product(z, kernel, a)
    relu(z)
    # --- further hidden layers ---
    for i in range(1, len(layers)):
        x = z
        z = layers[i][:rows]
        affine(z, x, transposed[i - 1], biases[i - 1][n])
        relu(z)
    # --- output: a transposed copy, as the columns beyond the classes are padding ---
    scores = np.empty((rows, transposed[-1].shape[1]), a.dtype)  # [rows C and padding]
    affine(scores, z, transposed[-1], biases[-1][n])
    for c in range(len(logits)):
        for i in range(rows):
            logits[c, at + i] = scores[i, c]


@compiled
def affine(z, x, transposed, bias):
    """Fills z = x w + b; columns beyond those of the bias are padding, and become 0."""
    columns = bias.shape[1]
    for i in range(len(z)):
        for j in range(columns):
            z[i, j] = bias[0, j]
        for j in range(columns, z.shape[1]):
            z[i, j] = 0
    add_product(z, x, transposed)


@compiled
def relu(z):
    """ReLU in place; NaN stays NaN."""
    zero = z.dtype.type(0)
    for i in range(len(z)):
        for j in range(z.shape[1]):
            x = z[i, j]
            # NaN fails the comparison, and so stays.
            z[i, j] = zero if x <= zero else x


@compiled
def relu_gradient(grad, out):
    """The gradient at the output of ReLU becomes that at its input, in place."""
    zero = grad.dtype.type(0)
    for i in range(len(out)):
        for j in range(out.shape[1]):
            grad[i, j] = zero if out[i, j] <= zero else grad[i, j]


@compiled
def backward(delta, weights, hidden, back, biases):
    """Fills the gradients at the hidden layers' inputs and of the later layers' biases.

    Args:
        delta: the gradient at the logits, [N C B].
        weights: of the later layers, each [N outputs inputs].
        hidden: the hidden layers after ReLU, each [N B H].
        back: filled with the gradients at the hidden layers' inputs, each [N B H].
        biases: filled with the gradients of the biases, each [N 1 outputs].
    """
    last = len(weights) - 1
    for n in range(len(delta)):
        for c in range(delta.shape[1]):
            biases[last][n, 0, c] = delta[n, c].sum()
        for i in range(last, -1, -1):
            z = back[i][n]  # [B H]
            x = hidden[i][n]  # [B H]
            z[:] = 0
            if i == last:
                add_transposed_product(z, delta[n], weights[i][n])
            else:
                add_product(z, back[i + 1][n], weights[i][n])
            relu_gradient(z, x)
            # The first layer has no bias.
            if i > 0:
                total = biases[i - 1][n, 0]
                total[:] = 0
                for r in range(len(z)):
                    for j in range(z.shape[1]):
                        total[j] += z[r, j]


@compiled
def descend(weight, left, right, rate, transposed):
    """weight -= rate · left right, in place: one step of gradient descent on a layer.

    Args:
        weight: [N M K].
        left: the gradient at the layer's output, [N M B], or [N B M] where it is transposed.
        right: the layer's input, [N B K].
        rate: the learning rate.
        transposed: whether `left` is.
    """
    for n in range(len(weight)):
        scaled = left[n] * -rate
        if transposed:
            add_transposed_product(weight[n], scaled, right[n])
        else:
            add_product(weight[n], scaled, right[n])
