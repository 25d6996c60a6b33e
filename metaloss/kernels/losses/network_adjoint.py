"""The adjoint of an equivariant Meta-Loss Network's gradient, from `network.py`.

What is differentiated is the gradient times a change of the logits: the change of the network's
value. So images pass forward with their change, and the adjoints of both pass backward. That of the
change is the gradient itself.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.instructions.modes import flush_tiny_numbers, restore_modes
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.images import away, load, load_change, store
from metaloss.kernels.losses.network_layers import Weights, read
from metaloss.kernels.losses.network_passes import (
    pass_backward,
    pass_forward,
    read_back,
    read_change,
    room_for_layer,
)


class Numbers(NamedTuple):
    """The derivatives by the numbers of P networks, as `Weights` and the bias hold them.

    Attributes:
        w_pred: [P F K].
        bias: [P F 1].
        w_mix: [P H F].
        w_mean: [P H F].
        w_true: [P H F].
        w_out: [P H 1].
        label_absent: [P H 1].
        label_present: [P H 1].
    """

    w_pred: Any
    bias: Any
    w_mix: Any
    w_mean: Any
    w_true: Any
    w_out: Any
    label_absent: Any
    label_present: Any


def zeros_for(weights: Weights) -> Numbers:
    """Room for the derivatives by the numbers of these networks."""
    inputs = weights.w_pred
    mix = weights.w_mix
    of_features = np.zeros((*inputs.shape[:2], 1), np.float32)
    of_width = np.zeros((*mix.shape[:2], 1), np.float32)
    return Numbers(
        np.zeros_like(inputs),
        of_features,
        *(np.zeros_like(mix) for _ in range(3)),
        *(of_width.copy() for _ in range(3)),
    )


@compiled
def _add_up(numbers, totals):
    """Adds to the numbers [I J] the sums of what different places hold, [I J places]."""
    for i in range(len(totals)):
        for j in range(totals.shape[1]):
            numbers[i, j] += totals[i, j].sum()


@compiled
def _totals(features, width, inputs, lanes):
    """Room for the sums that lead to `Numbers`, some places apart."""
    return Numbers(
        np.zeros((features, inputs, VECTOR), np.float32),
        np.zeros((features, 1, lanes), np.float32),
        np.zeros((width, features, VECTOR), np.float32),
        np.zeros((width, features, VECTOR), np.float32),
        np.zeros((width, features, VECTOR), np.float32),
        np.zeros((width, 1, lanes), np.float32),
        np.zeros((width, 1, lanes), np.float32),
        np.zeros((width, 1, lanes), np.float32),
    )


@compiled
def _store(numbers, i, totals):
    """Adds what was summed up to the numbers of network i."""
    _add_up(numbers.w_pred[i], totals.w_pred)
    _add_up(numbers.bias[i], totals.bias)
    _add_up(numbers.w_mix[i], totals.w_mix)
    _add_up(numbers.w_mean[i], totals.w_mean)
    _add_up(numbers.w_true[i], totals.w_true)
    _add_up(numbers.w_out[i], totals.w_out)
    _add_up(numbers.label_absent[i], totals.label_absent)
    _add_up(numbers.label_present[i], totals.label_present)


@compiled
def logit_gradient_adjoint(
    logits,
    target,
    weights,
    bias,
    channels,
    logistic,
    share,
    lanes,
    change,
    gradient,
    by_logits,
    numbers,
):
    """Fills the gradient, and the derivatives of its product with a change of the logits.

    Args:
        logits: [N C B].
        target: as for `network.logit_gradient`, as the next five.
        weights: a `Weights`.
        bias: of the features.
        channels: what the inputs are made of.
        logistic: whether σ is between the layers; else ReLU.
        share: of each image in the mean over images, 0 where it pads a task; [T B].
        lanes: equals LANES.
        change: of the logits, [N C B].
        gradient: filled with the gradient at the logits, [N C B].
        by_logits: filled with the derivatives by the logits, [N C B].
        numbers: `Numbers`, to which the derivatives by the networks' numbers are added.
    """
    before = flush_tiny_numbers()
    count, classes, images = logits.shape
    tasks = len(target)
    columns = classes * lanes
    # --- buffers, for `lanes` images at once; column c·lanes + b is class c of image b ---
    buffers = np.empty((7, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next six
    p = buffers[1]
    y = buffers[2]
    v = buffers[3]  # the change of the logits, times the images' shares
    move = buffers[4]  # the change of log p
    of_value = buffers[5]
    of_change = buffers[6]
    x = room_for_layer(len(channels), columns)  # inputs
    h = room_for_layer(weights.w_pred.shape[1], columns)  # features
    u = room_for_layer(weights.w_mix.shape[1], columns)  # integration
    total = room_for_layer(len(h.value), lanes)  # features summed over the classes
    true = room_for_layer(len(h.value), lanes)  # features of the label's class
    context = room_for_layer(len(u.value), lanes)  # what every class is given
    more = room_for_layer(len(u.value), lanes)  # what the label's class is given too
    no_shift = np.zeros(classes, np.float32)
    for n in range(count):
        i = n // tasks
        t = n % tasks
        totals = _totals(len(h.value), len(u.value), len(channels), lanes)
        for at in range(0, images, lanes):
            load(logp, y, logits[n], target[t], no_shift, at)
            load_change(v, logp, change[n], share[t], at)
            softmax(logp, p, lanes)
            away(move, v, p)
            for c in range(classes):
                for b in range(lanes):
                    move[c, b] = -move[c, b]
            read(x.value, logp, p, channels, lanes)
            read_change(x.change, move, p, channels)
            pass_forward(x, h, u, total, true, context, more, weights, i, bias[n], y, logistic)
            pass_backward(x, h, u, total, true, context, more, weights, i, y, logistic, totals)
            read_back(of_value, of_change, x.of_value, x.of_change, move, v, p, channels)
            store(gradient[n], by_logits[n], of_change, of_value, p, share[t], at)
        _store(numbers, i, totals)
    restore_modes(before)
