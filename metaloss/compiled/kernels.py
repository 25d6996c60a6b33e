"""The compiled loops. All in one file: numba's cache knows a function by the file it stands in.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from metaloss.compiled import VECTOR

# Rows and vectors of a product that are held at once: as many as a processor has registers for.
ROW_TILE, PANEL = 6, 4 if get_host_cpu_features().get("avx512f") else 1
LANES = 32  # images that a loss is worked out for at once
ROWS = 96  # validation images that pass through the layers at once

# "contract" alone: a multiplication and an addition may become one instruction, and NaN stays NaN.
SETTINGS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, kept on disk between processes where that can be."""
    try:
        return njit(cache=True, **SETTINGS)(function)
    except RuntimeError:  # no folder to keep it in
        return njit(**SETTINGS)(function)


def tile(rows: int, panel: int) -> Callable[..., None]:
    """A product's innermost part: `rows` × `panel` registers of the result, held while all k pass by.

    c[i : i + rows, j : j + panel · VECTOR] += Σ_k a.flat[start + r · row + k · step] b[k, j : ...]
    """

    @intrinsic
    def product(typing, c, i, j, a, start, row, step, b, k):
        def generate(context, builder, signature, arguments):
            c, i, j, a, start, row, step, b, count = arguments
            c, a, b = (context.make_array(signature.args[n])(context, builder, x) for n, x in ((0, c), (3, a), (7, b)))
            number, word = context.get_value_type(signature.args[0].dtype), ir.IntType(64)
            vector, lanes = ir.VectorType(number, VECTOR), ir.VectorType(ir.IntType(32), VECTOR)
            size = context.get_abi_sizeof(number)

            def at(base, *offsets):
                place = offsets[0]
                for x in offsets[1:]:
                    place = builder.add(place, x)
                return builder.gep(base, [place])

            def load(pointer):
                found = builder.load(builder.bitcast(pointer, vector.as_pointer()))
                found.align = size
                return found

            def times(x, n):
                return builder.mul(x, word(n) if isinstance(n, int) else n)

            width, depth = cgutils.unpack_tuple(builder, c.shape)[1], cgutils.unpack_tuple(builder, b.shape)[1]
            grid = [(r, v) for r in range(rows) for v in range(panel)]
            places = {(r, v): at(c.data, times(builder.add(i, word(r)), width), j, word(v * VECTOR)) for r, v in grid}
            first = {x: load(place) for x, place in places.items()}
            entry, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.cbranch(builder.icmp_signed("<", word(0), count), loop, after)

            builder.position_at_end(loop)
            k = builder.phi(word)
            held = {x: builder.phi(vector) for x in grid}
            line = builder.add(times(k, depth), j)
            right = [load(at(b.data, line, word(v * VECTOR))) for v in range(panel)]
            fresh = {}
            for r in range(rows):
                left = builder.load(at(a.data, start, times(row, r), times(step, k)))
                left = builder.insert_element(ir.Constant(vector, ir.Undefined), left, ir.IntType(32)(0))
                left = builder.shuffle_vector(left, left, ir.Constant(lanes, [0] * VECTOR))
                for v in range(panel):
                    both = builder.fmul(left, right[v], flags=("contract",))
                    fresh[r, v] = builder.fadd(both, held[r, v], flags=("contract",))
            following = builder.add(k, word(1))
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)

            builder.position_at_end(after)
            ends = {x: builder.phi(vector) for x in grid}
            k.add_incoming(word(0), entry)
            k.add_incoming(following, loop)
            for x in grid:
                for phi in (held[x], ends[x]):
                    phi.add_incoming(first[x], entry)
                    phi.add_incoming(fresh[x], loop)
                builder.store(ends[x], builder.bitcast(places[x], vector.as_pointer())).align = size
            return context.get_dummy_value()

        n = types.intp
        return types.void(c, n, n, a, n, n, n, b, n), generate

    return product


wide, wide_rest, thin, thin_rest = tile(ROW_TILE, PANEL), tile(1, PANEL), tile(ROW_TILE, 1), tile(1, 1)


@compiled
def _add_product(c, a, row, step, b, k):
    rows, columns = c.shape
    even, j = rows // ROW_TILE * ROW_TILE, 0
    while j + PANEL * VECTOR <= columns:
        for i in range(0, even, ROW_TILE):
            wide(c, i, j, a, i * row, row, step, b, k)
        for i in range(even, rows):
            wide_rest(c, i, j, a, i * row, row, step, b, k)
        j += PANEL * VECTOR
    while j < columns:
        for i in range(0, even, ROW_TILE):
            thin(c, i, j, a, i * row, row, step, b, k)
        for i in range(even, rows):
            thin_rest(c, i, j, a, i * row, row, step, b, k)
        j += VECTOR


@compiled
def add_product(c, a, b):
    """c += a b; c and b have a multiple of VECTOR columns."""
    _add_product(c, a, a.shape[1], 1, b, a.shape[1])


@compiled
def add_turned_product(c, a, b):
    """c += aᵀ b; c and b have a multiple of VECTOR columns."""
    _add_product(c, a, 1, a.shape[1], b, len(a))


@compiled
def turn(a, b):
    """b = aᵀ, with zeros in what columns b has beyond."""
    zero = a.dtype.type(0)
    for j in range(a.shape[1]):
        for i in range(len(a)):
            b[j, i] = a[i, j]
        for i in range(len(a), b.shape[1]):
            b[j, i] = zero


# --- A perceptron whose first layer lies in the span of the training images: `metaloss.classifiers.shared`. -----------


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
        t, layers = n % len(start), [z[n] for z in hidden]
        _through(start[t], kernel[t], share[n], a[n], _turned(weights, n), biases, n, layers, logits[n], 0)


@compiled
def classify(start, kernel, share, a, weights, biases, logits):
    """The logits alone, of any number of images; `forward`'s arguments."""
    layers = [np.empty((ROWS, w.shape[2]), a.dtype) for w in weights]
    for n in range(len(a)):
        t, turned = n % len(start), _turned(weights, n)
        for i in range(0, start.shape[1], ROWS):
            some = slice(i, min(i + ROWS, start.shape[1]))
            _through(start[t, some], kernel[t, some], share[n], a[n], turned, biases, n, layers, logits[n], i)


@compiled
def _turned(weights, n):
    """A classifier's weights laid inputs × outputs, their rows filled up to whole vectors."""
    found = [np.empty((w.shape[2], -(-w.shape[1] // VECTOR) * VECTOR), w.dtype) for w in weights]
    for i in range(len(weights)):
        turn(weights[i][n], found[i])
    return found


@compiled
def _through(start, kernel, share, a, turned, biases, n, layers, logits, at):
    rows = len(start)
    z = layers[0][:rows]
    for i in range(rows):
        for j in range(z.shape[1]):
            z[i, j] = share * start[i, j]
    add_product(z, kernel, a)
    rectify(z)
    for i in range(1, len(layers)):
        x, z = z, layers[i][:rows]
        _affine(z, x, turned[i - 1], biases[i - 1][n])
        rectify(z)
    scores = np.empty((rows, turned[-1].shape[1]), a.dtype)
    _affine(scores, z, turned[-1], biases[-1][n])
    for c in range(len(logits)):
        for i in range(rows):
            logits[c, at + i] = scores[i, c]


@compiled
def _affine(z, x, turned, bias):
    """z = x w + b; columns beyond the bias's are 0."""
    columns = bias.shape[1]
    for i in range(len(z)):
        for j in range(columns):
            z[i, j] = bias[0, j]
        for j in range(columns, z.shape[1]):
            z[i, j] = 0
    add_product(z, x, turned)


@compiled
def rectify(z):
    """ReLU in place, which NaN passes."""
    zero = z.dtype.type(0)
    for i in range(len(z)):
        for j in range(z.shape[1]):
            x = z[i, j]
            z[i, j] = zero if x <= zero else x


@compiled
def silence(grad, out):
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
            z, x = back[i][n], hidden[i][n]
            z[:] = 0
            if i == last:
                add_turned_product(z, delta[n], weights[i][n])
            else:
                add_product(z, back[i + 1][n], weights[i][n])
            silence(z, x)
            if i > 0:
                total = biases[i - 1][n, 0]
                total[:] = 0
                for r in range(len(z)):
                    for j in range(z.shape[1]):
                        total[j] += z[r, j]


@compiled
def descend(weight, left, right, rate, turned):
    """weight [N M K] -= rate · left right, for left [N M B], or [N B M] where it is turned, and right [N B K]."""
    for n in range(len(weight)):
        scaled = left[n] * -rate
        if turned:
            add_turned_product(weight[n], scaled, right[n])
        else:
            add_product(weight[n], scaled, right[n])


@compiled
def count_right(logits, label, right):
    """How many images [N C B] are given the class that their label [T B] says; NaN where any logit is not finite."""
    for n in range(len(logits)):
        t, total = n % len(label), 0.0
        best, place = logits[n, 0].copy(), np.zeros(logits.shape[2], np.int64)
        whole = np.zeros_like(best)
        for c in range(logits.shape[1]):
            row = logits[n, c]
            for i in range(len(row)):
                x = row[i]
                whole[i] += x * 0
                better = x > best[i]
                best[i] = x if better else best[i]
                place[i] = c if better else place[i]
        for i in range(len(best)):
            total += (place[i] == label[t, i]) + whole[i]
        right[n] = total


# --- An equivariant Meta-Loss Network's gradient: `metaloss.genomes._networks`. ---------------------------------------

ONE, SHIFT = np.float32(1), np.float32(1.5 * 2**23)  # a float32 beyond SHIFT counts whole numbers in its last bits
LOW, HIGH, LOG2_E = np.float32(-87.3), np.float32(88), np.float32(math.log2(math.e))
LN2 = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)  # in two parts, the first exact in few bits
TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, 1, -1))


@intrinsic
def _two_to(typing, shifted):
    """2^n, from n + SHIFT."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.add(builder.bitcast(arguments[0], word), word(127))
        return builder.bitcast(builder.shl(bits, word(23)), ir.FloatType())

    return types.float32(types.float32), generate


@compiled
def _exp(x):
    """exp of a float32 to its last bits; NaN stays."""
    x = LOW if x < LOW else HIGH if x > HIGH else x
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = (x - n * LN2[0]) - n * LN2[1]
    y = TAYLOR[0]
    for c in TAYLOR[1:]:
        y = y * r + c
    return (y * (r * r) + (r + ONE)) * _two_to(shifted)


@compiled
def _activate(z, logistic):
    """σ or ReLU, in place."""
    if not logistic:
        rectify(z)
        return
    for i in range(len(z)):
        for b in range(z.shape[1]):
            z[i, b] = ONE / (ONE + _exp(-z[i, b]))


@compiled
def _deactivate(grad, out, logistic):
    """The gradient at the output of σ or ReLU becomes that at its input."""
    if not logistic:
        silence(grad, out)
        return
    for i in range(len(out)):
        for b in range(out.shape[1]):
            grad[i, b] *= out[i, b] - out[i, b] * out[i, b]


@compiled
def _softmax(logp, p, lanes):
    """Logits become log-probabilities; fills the probabilities too."""
    top, total = np.empty(lanes, np.float32), np.zeros(lanes, np.float32)
    top[:] = logp[0]
    for c in range(1, len(logp)):
        for b in range(lanes):
            top[b] = logp[c, b] if logp[c, b] > top[b] else top[b]
    for c in range(len(logp)):
        for b in range(lanes):
            logp[c, b] -= top[b]
            p[c, b] = _exp(logp[c, b])
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
    middle, total = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
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
def pull(logits, target, weights, channels, logistic, lanes, found):
    """The gradient of P networks' values with respect to logits [N C B], for labels [T C B] of ones and zeros.

    Args:
        weights: [P F K] and [P F 1] of the ŷ channel, [P H F] of the integration, of the mean over the classes (divided
            by their number) and of the label's mean, [P 1 H] of the sum, [P H 1] what the label's channel adds for a 0
            and what more for a 1; then all but biases, sum and label again, turned.
        channels: [K 4], what p, log p and the logit's distance from the mean count in an input, and what is added.
        logistic: whether σ is between the layers; else ReLU.
        lanes: LANES; a compiler that knew it would roll loops out instead of making vectors of them.
        found: filled with the gradient.
    """
    w_pred, b_pred, w_mix, w_mean, w_true, w_out, absent, present, t_pred, t_mix, t_mean, t_true = weights
    count, classes, images = logits.shape
    tasks, features, width, columns = len(target), w_pred.shape[1], w_mix.shape[1], classes * lanes
    room = np.empty((4, classes, lanes), np.float32)
    logp, p, y, grad = room[0], room[1], room[2], room[3]
    x = np.empty((len(channels), columns), np.float32)
    h, dh = np.empty((features, columns), np.float32), np.empty((features, columns), np.float32)
    u, du = np.empty((width, columns), np.float32), np.empty((width, columns), np.float32)
    mean, true = np.empty((features, lanes), np.float32), np.empty((features, lanes), np.float32)
    context, more = np.empty((width, lanes), np.float32), np.empty((width, lanes), np.float32)
    for n in range(count):
        i, t = n // tasks, n % tasks
        for at in range(0, images, lanes):
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
                context[j], more[j], du[j] = absent[i, j, 0], present[i, j, 0], w_out[i, 0, j] / np.float32(images)
            add_product(context, w_mean[i], mean)
            add_product(context, w_true[i], true)
            _spread(u, context, more, y, lanes)
            add_product(u, w_mix[i], h)
            _activate(u, logistic)
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
                    found[n, c, at + b] = grad[c, b]
