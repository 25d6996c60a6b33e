"""Adjoints of the gradients of many perceptrons, as `Mlp.gradients_adjoint` defines them.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.classifiers.perceptron import affine, relu_gradient, transposed_weights
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.instructions.product import add_product, add_transposed_product
from metaloss.kernels.jit import compiled


@compiled
def change_layers(hidden, weights, moved_weights, moved_biases, changes, logits):
    """Fills every layer's change on the training images, along a direction.

    Args:
        hidden: the hidden layers after ReLU, each [N B H].
        weights: of the later layers, each [N outputs inputs].
        moved_weights: their direction, likewise.
        moved_biases: the direction of the later layers' biases, each [N 1 outputs].
        changes: of the hidden layers, each [N B H]; the first holds that of the first layer before
            ReLU, the others are filled.
        logits: filled with the change of the logits, [N C B].
    """
    for n in range(len(logits)):
        by_input = transposed_weights(weights, n)
        by_weight = transposed_weights(moved_weights, n)
        relu_gradient(changes[0][n], hidden[0][n])
        for i in range(1, len(hidden)):
            z = changes[i][n]
            affine(z, hidden[i - 1][n], by_weight[i - 1], moved_biases[i - 1][n])
            add_product(z, changes[i - 1][n], by_input[i - 1])
            relu_gradient(z, hidden[i][n])
        x = hidden[-1][n]
        # A transposed copy, as the columns beyond the classes are padding.
        scores = np.empty((len(x), by_input[-1].shape[1]), x.dtype)  # [B C and padding]
        affine(scores, x, by_weight[-1], moved_biases[-1][n])
        add_product(scores, changes[-1][n], by_input[-1])
        for c in range(logits.shape[1]):
            for b in range(len(x)):
                logits[n, c, b] = scores[b, c]


@compiled
def adjoint_of_layers(
    of_value,
    of_change,
    kernel,
    weights,
    moved_weights,
    hidden,
    changes,
    by_weights,
    by_biases,
    by_first,
):
    """Fills the adjoints of all parameters, from those of the logits and of their change.

    Args:
        of_value: the adjoint of the logits, [N C B].
        of_change: that of their change, [N C B].
        kernel: products of the images with the K training images, [T B K].
        weights: as for `change_layers`.
        moved_weights: as for `change_layers`.
        hidden: as for `change_layers`.
        changes: of the hidden layers, each [N B H].
        by_weights: filled with the adjoints of the later layers' weights, each [N outputs inputs].
        by_biases: filled with those of the later layers' biases, each [N 1 outputs].
        by_first: filled with that of the first layer's coefficients, [N K H].
    """
    before = flush_tiny_numbers()
    last = len(weights) - 1
    values = [np.empty_like(x[0]) for x in hidden]  # adjoints of layers before ReLU, each [B H]
    moves = [np.empty_like(x[0]) for x in hidden]  # and of their changes
    for n in range(len(of_value)):
        for i in range(last, -1, -1):
            x = hidden[i][n]  # [B H]
            by_weight = by_weights[i][n]  # [outputs H]
            by_weight[:] = 0
            value = values[i]
            value[:] = 0
            move = moves[i]
            move[:] = 0
            if i == last:
                add_product(by_weight, of_value[n], x)
                add_product(by_weight, of_change[n], changes[i][n])
                for c in range(of_value.shape[1]):
                    by_biases[i][n, 0, c] = of_value[n, c].sum()
                add_transposed_product(value, of_value[n], weights[i][n])
                add_transposed_product(value, of_change[n], moved_weights[i][n])
                # The first layer's change is given: it has no adjoint.
                if i > 0:
                    add_transposed_product(move, of_change[n], weights[i][n])
            else:
                add_transposed_product(by_weight, values[i + 1], x)
                add_transposed_product(by_weight, moves[i + 1], changes[i][n])
                _add_rows(by_biases[i][n, 0], values[i + 1])
                add_product(value, values[i + 1], weights[i][n])
                add_product(value, moves[i + 1], moved_weights[i][n])
                if i > 0:
                    add_product(move, moves[i + 1], weights[i][n])
            relu_gradient(value, x)
            relu_gradient(move, x)
        by_first[n] = 0
        add_transposed_product(by_first[n], kernel[n % len(kernel)], values[0])
    restore_modes(before)


@compiled
def _add_rows(total, z):
    """Fills `total` [columns] with the sum of the rows of z."""
    total[:] = 0
    for r in range(len(z)):
        for j in range(z.shape[1]):
            total[j] += z[r, j]
