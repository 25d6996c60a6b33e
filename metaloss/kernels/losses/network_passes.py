"""Images and their change through an equivariant Meta-Loss Network, forward and backward.

Blocks of images pass; column c·lanes + b is class c of image b.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels.functions.exponential import ONE
from metaloss.kernels.instructions.product import add_product
from metaloss.kernels.instructions.row_products import add_row_products
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.network_layers import activate, gather, spread


class Layer(NamedTuple):
    """What one layer holds of a block of images, or of every image once.

    Attributes:
        value: of the layer.
        before: its change before the function that follows, or all of it where none does.
        change: of the layer.
        of_value: the adjoint of the value.
        of_change: that of the change.
    """

    value: Any
    before: Any
    change: Any
    of_value: Any
    of_change: Any


@compiled
def room_for_layer(rows, columns):
    """Room for a layer."""
    room = np.zeros((5, rows, columns), np.float32)
    return Layer(room[0], room[1], room[2], room[3], room[4])


@compiled
def read_change(x, move, p, channels):
    """Fills x [K C·lanes], the change of the inputs of the ŷ channel, from that of log p."""
    classes, lanes = p.shape
    middle = np.zeros(lanes, np.float32)
    for c in range(classes):
        for b in range(lanes):
            middle[b] += move[c, b] / np.float32(classes)
    for k in range(len(channels)):
        of_p, of_logp, of_logit, _ = channels[k]
        for c in range(classes):
            for b in range(lanes):
                rest = of_logit * (move[c, b] - middle[b])
                x[k, c * lanes + b] = (of_p * p[c, b] + of_logp) * move[c, b] + rest


@compiled
def _activate_change(z, before, out, logistic):
    """Fills z with the change at the output of σ or ReLU, from that before it [rows columns]."""
    for i in range(len(out)):
        for b in range(out.shape[1]):
            if logistic:
                # σ' = σ - σ²
                z[i, b] = before[i, b] * (out[i, b] - out[i, b] * out[i, b])
            else:
                z[i, b] = np.float32(0) if out[i, b] <= 0 else before[i, b]


@compiled
def _deactivate_both(of_value, of_change, before, out, logistic):
    """The adjoints at the output of σ or ReLU become those at its input, in place.

    Args:
        of_value: the adjoint of the output, [rows columns].
        of_change: that of the output's change.
        before: the change before the function.
        out: the output.
        logistic: whether it is σ.
    """
    for i in range(len(out)):
        for b in range(out.shape[1]):
            if logistic:
                slope = out[i, b] - out[i, b] * out[i, b]
                # σ'' = σ' (1 - 2σ)
                bend = of_change[i, b] * before[i, b] * (ONE - out[i, b] - out[i, b])
                of_value[i, b] = (of_value[i, b] + bend) * slope
                of_change[i, b] *= slope
            elif out[i, b] <= 0:
                of_value[i, b] = 0
                of_change[i, b] = 0


@compiled
def read_back(of_value, of_change, by_x, by_move, move, v, p, channels):
    """Fills the adjoints of log p and of the change of the logits [C lanes].

    Args:
        of_value: filled with that of log p.
        of_change: filled with that of their change: the gradient.
        by_x: the adjoint of the inputs, [K C·lanes].
        by_move: that of their change.
        move: the change of log p.
        v: the change of the logits.
        p: probabilities.
        channels: as for `logit_gradient_adjoint`.
    """
    classes, lanes = p.shape
    sums = np.zeros((3, lanes), np.float32)
    middle_value = sums[0]
    middle_change = sums[1]
    total = sums[2]
    of_value[:] = 0
    of_change[:] = 0
    for k in range(len(channels)):
        of_p, of_logp, of_logit, _ = channels[k]
        for c in range(classes):
            for b in range(lanes):
                x = by_x[k, c * lanes + b]
                m = by_move[k, c * lanes + b]
                slope = of_p * p[c, b] + of_logp + of_logit
                of_value[c, b] += x * slope + m * of_p * p[c, b] * move[c, b]
                of_change[c, b] += m * slope
                middle_value[b] += x * of_logit / np.float32(classes)
                middle_change[b] += m * of_logit / np.float32(classes)
    # Back through the centring, then through the log-softmax, g - p Σ g, whose p moves as well.
    for c in range(classes):
        for b in range(lanes):
            of_value[c, b] -= middle_value[b]
            of_change[c, b] -= middle_change[b]
            total[b] += of_change[c, b]
    for c in range(classes):
        for b in range(lanes):
            of_value[c, b] -= total[b] * p[c, b] * v[c, b]
            of_change[c, b] -= p[c, b] * total[b]


@compiled
def _add_rows(total, z):
    """Adds to total [rows 1 lanes] the sums of z [rows columns] over every lanes-th column."""
    lanes = total.shape[2]
    for i in range(len(z)):
        for k in range(0, z.shape[1], lanes):
            for b in range(lanes):
                total[i, 0, b] += z[i, k + b]


@compiled
def _pool(total, true, layer, y):
    """Fills the sums over the classes of a layer and of its change."""
    lanes = y.shape[1]
    gather(total.value, true.value, layer.value, y, lanes)
    gather(total.change, true.change, layer.change, y, lanes)


@compiled
def pass_forward(x, h, u, total, true, context, more, weights, i, bias, y, logistic):
    """Fills features and integration of a block of images, and their change."""
    lanes = y.shape[1]
    # --- features ---
    for f in range(len(bias)):
        for c in range(len(y)):
            h.value[f, c * lanes : (c + 1) * lanes] = bias[f, c]
    add_product(h.value, weights.w_pred[i], x.value)
    activate(h.value, logistic)
    h.before[:] = 0
    add_product(h.before, weights.w_pred[i], x.change)
    _activate_change(h.change, h.before, h.value, logistic)
    _pool(total, true, h, y)
    # --- what every class is given ---
    for j in range(len(context.value)):
        context.value[j] = weights.label_absent[i, j, 0]
        more.value[j] = weights.label_present[i, j, 0]
    context.change[:] = 0
    more.change[:] = 0
    add_product(context.value, weights.w_mean[i], total.value)
    add_product(context.value, weights.w_true[i], true.value)
    add_product(context.change, weights.w_mean[i], total.change)
    add_product(context.change, weights.w_true[i], true.change)
    # --- integration ---
    spread(u.value, context.value, more.value, y, lanes)
    add_product(u.value, weights.w_mix[i], h.value)
    activate(u.value, logistic)
    spread(u.before, context.change, more.change, y, lanes)
    add_product(u.before, weights.w_mix[i], h.change)
    _activate_change(u.change, u.before, u.value, logistic)


@compiled
def pass_backward(x, h, u, total, true, context, more, weights, i, y, logistic, numbers):
    """Fills the adjoints of the inputs, and adds up those of the numbers."""
    lanes = y.shape[1]
    # --- integration: its change is what the value's change sums up ---
    _add_rows(numbers.w_out, u.change)
    for j in range(len(u.value)):
        u.of_change[j] = weights.w_out[i, 0, j]
    u.of_value[:] = 0
    _deactivate_both(u.of_value, u.of_change, u.before, u.value, logistic)
    add_row_products(numbers.w_mix, u.of_value, h.value)
    add_row_products(numbers.w_mix, u.of_change, h.change)
    # --- what every class is given ---
    gather(context.of_value, more.of_value, u.of_value, y, lanes)
    gather(context.of_change, more.of_change, u.of_change, y, lanes)
    _add_rows(numbers.label_absent, context.of_value)
    _add_rows(numbers.label_present, more.of_value)
    for sums, by_sum in ((total, numbers.w_mean), (true, numbers.w_true)):
        add_row_products(by_sum, context.of_value, sums.value)
        add_row_products(by_sum, context.of_change, sums.change)
    for sums, w in ((total, weights.w_mean_transposed), (true, weights.w_true_transposed)):
        sums.of_value[:] = 0
        sums.of_change[:] = 0
        add_product(sums.of_value, w[i], context.of_value)
        add_product(sums.of_change, w[i], context.of_change)
    # --- features ---
    spread(h.of_value, total.of_value, true.of_value, y, lanes)
    spread(h.of_change, total.of_change, true.of_change, y, lanes)
    add_product(h.of_value, weights.w_mix_transposed[i], u.of_value)
    add_product(h.of_change, weights.w_mix_transposed[i], u.of_change)
    _deactivate_both(h.of_value, h.of_change, h.before, h.value, logistic)
    _add_rows(numbers.bias, h.of_value)
    add_row_products(numbers.w_pred, h.of_value, x.value)
    add_row_products(numbers.w_pred, h.of_change, x.change)
    # --- inputs ---
    x.of_value[:] = 0
    x.of_change[:] = 0
    add_product(x.of_value, weights.w_pred_transposed[i], h.of_value)
    add_product(x.of_change, weights.w_pred_transposed[i], h.of_change)
