"""Steps of perceptrons under Meta-Loss Networks, one classifier after another.

A classifier's layers are read again by its backward pass while they are still in a core's own
cache. Arrays are those of `perceptron.py` and `network.py`.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.classifiers.perceptron import (
    fill_layers,
    room_for_moves,
    row_of_zeros,
    step_one,
    transposed_weights,
)
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.network import gradient_one, room


@compiled
def train_step(perceptrons, rates, target, networks, bias, channels, sizes, logistic):
    """One step of gradient descent of all layers of N perceptrons.

    Args:
        perceptrons: what `perceptron.forward` takes first: start, kernel, share, a, weights and
            biases; the last three are stepped in place.
        rates: learning rates, [N].
        target: labels as ones and zeros, [T C B].
        networks: of each network the weights, as `Places` says, [P S].
        bias: as for `network.logit_gradient`, as the next three.
        channels: see there.
        sizes: see there.
        logistic: see there.
    """
    start, kernel, share, a, weights, biases = perceptrons
    tasks, classes, images = target.shape
    layers = [np.empty((images, w.shape[2]), np.float32) for w in weights]
    logits = np.empty((classes, images), np.float32)
    gradient = np.empty((classes, images), np.float32)
    rows, buffers = room(classes, images, len(channels), sizes)
    zeros = row_of_zeros(weights)
    moves = room_for_moves(images, weights)
    before = flush_tiny_numbers()
    for n in range(len(a)):
        t = n % tasks
        # fmt: off
        fill_layers(start[t], kernel[t], share[n], a[n], transposed_weights(weights, n), biases,
                    n, layers, logits, 0)
        gradient_one(logits, target[t], networks, n // tasks, bias, n, channels, sizes, logistic,
                     rows, buffers, gradient)
        # fmt: on
        step_one(gradient, weights, biases, a[n], n, layers, rates[n], moves, zeros)
    restore_modes(before)
