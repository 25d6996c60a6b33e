"""Forward and backward passes of many perceptrons, as `classifiers/shared.py` defines them.

The first layer is a share of its initial weights plus a combination of the training images, with
the coefficients `a`. Its output needs the products of images with training images alone.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.instructions.product import (
    ADD_MASKED,
    MASK,
    RELU,
    STORE,
    add_product,
    add_transposed_product,
    fill_product,
    fill_transposed_product,
    transpose,
)
from metaloss.kernels.jit import compiled

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
        transposed = transposed_weights(weights, n)
        fill_layers(
            start[t], kernel[t], share[n], a[n], transposed, biases, n, layers, logits[n], 0
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
            fill_layers(
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
def fill_layers(start, kernel, share, a, transposed, biases, n, layers, logits, at):
    """Fills one classifier's layers, and its logits [C B] from image `at` on."""
    rows = len(start)
    one = a.dtype.type(1)
    # --- first layer: z [rows H] = ReLU(share · start + kernel a) ---
    z = layers[0][:rows]
    fill_product(z, kernel, a, start, share, RELU, z)
    # --- further hidden layers ---
    for i in range(1, len(layers)):
        x = z
        z = layers[i][:rows]
        fill_product(z, x, transposed[i - 1], biases[i - 1][n], one, RELU, z)
    # --- output: a transposed copy, as the columns beyond the classes are padding ---
    scores = np.empty((rows, transposed[-1].shape[1]), a.dtype)  # [rows C and padding]
    bias = np.zeros((1, scores.shape[1]), a.dtype)
    for c in range(len(logits)):
        bias[0, c] = biases[-1][n, 0, c]
    fill_product(scores, z, transposed[-1], bias, one, STORE, z)
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
def _add_rows(total, z):
    """Adds to `total` [columns] the rows of z."""
    for r in range(len(z)):
        for j in range(z.shape[1]):
            total[j] += z[r, j]


@compiled
def row_of_zeros(weights):
    """A row of zeros, as wide as the widest of the layers that these weights read."""
    widest = 0
    for w in weights:
        widest = max(widest, w.shape[2])
    return np.zeros((1, widest), weights[0].dtype)


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
    zeros = row_of_zeros(weights)
    one = delta.dtype.type(1)
    for n in range(len(delta)):
        for c in range(delta.shape[1]):
            biases[last][n, 0, c] = delta[n, c].sum()
        for i in range(last, -1, -1):
            z = back[i][n]  # [B H]
            x = hidden[i][n]  # [B H]
            if i == last:
                fill_transposed_product(z, delta[n], weights[i][n], zeros, one, MASK, x)
            else:
                fill_product(z, back[i + 1][n], weights[i][n], zeros, one, MASK, x)
            # The first layer has no bias.
            if i > 0:
                biases[i - 1][n, 0] = 0
                _add_rows(biases[i - 1][n, 0], z)


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


@compiled
def train_step(delta, weights, biases, a, hidden, rates):
    """One step of gradient descent of all layers, from the gradient at the logits.

    Args:
        delta: the gradient at the logits, [N C B].
        weights: of the later layers, each [N outputs inputs]; stepped in place.
        biases: of the later layers, each [N 1 outputs]; stepped in place.
        a: the first layer's coefficients on the B images, [N B H]; stepped in place.
        hidden: the hidden layers after ReLU, each [N B H].
        rates: learning rates, [N].
    """
    zeros = row_of_zeros(weights)
    moves = room_for_moves(hidden[0].shape[1], weights)
    for n in range(len(a)):
        layers = [z[n] for z in hidden]
        step_one(delta[n], weights, biases, a[n], n, layers, rates[n], moves, zeros)


@compiled
def room_for_moves(images, weights):
    """Room for the step of what each layer gives, by layer; the first layer's needs none."""
    return [
        np.empty((images if i > 0 else 0, weights[i].shape[2]), weights[i].dtype)
        for i in range(len(weights))
    ]


@compiled
def step_one(delta, weights, biases, a, n, layers, rate, moves, zeros):
    """The step of classifier n.

    Args:
        delta: the gradient at its logits, [C B].
        weights: as for `train_step`.
        biases: as for `train_step`.
        a: its first layer's coefficients, [B H].
        n: its number.
        layers: its hidden layers after ReLU, each [B H].
        rate: its learning rate.
        moves: what `room_for_moves` gives.
        zeros: what `row_of_zeros` gives.
    """
    last = len(weights) - 1
    one = a.dtype.type(1)
    # --- output layer: the rate is multiplied in once, and passes through all products ---
    output = delta * -rate  # [C B]
    for c in range(len(output)):
        biases[last][n, 0, c] += output[c].sum()
    # --- backward: a layer's weights are stepped when the layer below has read them ---
    for i in range(last, -1, -1):
        x = layers[i]  # [B H]
        z = a if i == 0 else moves[i]
        finish = ADD_MASKED if i == 0 else MASK
        w = weights[i][n]
        if i == last:
            fill_transposed_product(z, output, w, zeros, one, finish, x)
            add_product(w, output, x)
        else:
            fill_product(z, moves[i + 1], w, zeros, one, finish, x)
            add_transposed_product(w, moves[i + 1], x)
        if i > 0:
            _add_rows(biases[i - 1][n, 0], z)
