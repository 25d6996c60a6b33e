"""The backward pass of many convolutional networks, as `classifiers/cnn.py` defines them.

A window of the pooling passes its gradient to the one number that was its maximum: of a map's
gradient at most a quarter is not zero, and where ReLU cut nothing is. So the pass is a sum over
those numbers alone.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
Sizes are a `Stages`' `table`.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.classifiers.convnet import stage_of
from metaloss.kernels.classifiers.convolution import gather
from metaloss.kernels.instructions.product import add_product, add_transposed_product
from metaloss.kernels.jit import compiled

# Indices without a sign need no test whether they count from the end.
ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO = np.uint64(2)


@compiled
def _fill_windows(s, parameters, table):
    """Fills a table of filters as they add to the gradient of what is below a pooled number.

    Below it are kernel + 1 lines. A filter stands there as it is, or one place further right; with
    a line of zeros above and below it can be read as it is, or one line further down.
    """
    at = s.weights
    for f in range(s.filters):
        for c in range(s.channels):
            for y in range(s.kernel):
                for x in range(s.kernel):
                    line = (f * 2 * (s.kernel + 2) + y + 1) * s.two
                    right = line + (s.kernel + 2) * s.two
                    table[line + x * s.channels + c] = parameters[at]
                    table[right + (x + 1) * s.channels + c] = parameters[at]
                    at += 1


@compiled
def _set_channels_last(s, x, start, step, plane, result):
    """Copies maps into padded planes with their channels side by side.

    Args:
        s: sizes of the stage that sees them.
        x: the maps.
        start: where they begin.
        step: how far apart lines are.
        plane: how far apart maps are.
        result: filled, but for the padding.
    """
    channels = np.uint64(s.channels)
    width = np.uint64(s.width)
    for c in range(s.channels):
        for y in range(s.height):
            of = np.uint64(start + c * plane + y * step)
            to = np.uint64((s.inner + y * s.line) * s.channels + c)
            for _ in range(width):
                result[to] = x[of]
                of += ONE
                to += channels


@compiled
def _collect(codes, at, step, length, corners, moves, grad, places, shift, parts):
    """Finds the active ones of some pooled numbers: how many there are.

    Args:
        codes: which number of its window each is.
        at: where the first one's is.
        step: how far apart theirs are.
        length: how many pooled numbers to look at.
        corners: places of their windows.
        moves: what each code adds to these.
        grad: the gradient at the pooled numbers.
        places: where each one's is in it.
        shift: what is added to these places.
        parts: filled with places and gradients of the active ones.
    """
    found, weights = parts
    count = ZERO
    for q in range(length):
        code = np.uint64(codes[at])
        # Written in any case, counted where it is active: no branch to be guessed wrong.
        found[count] = corners[q] + moves[code]
        weights[count] = grad[places[q] + shift]
        count += ONE - (code >> TWO)
        at += step
    return count


@compiled
def _add_weight_gradient(s, grad, where, codes, at, seen, start, total, bias, parts):
    """Adds the gradient of a stage's weights and biases on one image.

    Args:
        s: the sizes.
        grad: the gradient at the pooled maps.
        where: as `_places` gives it.
        codes: which number of its window each pooled number is.
        at: where these begin.
        seen: the maps that the stage sees, padded, with their channels side by side.
        start: where these begin.
        total: gradient of the weights, for each filter a window of lines.
        bias: gradient of the biases.
        parts: room for the active numbers' places and gradients.
    """
    found, weights = parts
    line = s.line * s.channels
    moves = np.array([0, s.channels, line, line + s.channels, 0])
    places, maps, corners, _ = where
    area = np.uint64(s.rows * s.columns)
    for f in range(s.filters):
        first = np.uint64(at + f * s.rows * s.columns)
        count = _collect(codes, first, ONE, area, corners, moves, grad, places, maps[f], parts)
        for k in range(count):
            bias[f] += weights[k]
        at_total = f * s.kernel * s.one
        gather(total, at_total, s.kernel, s.one, s.one, seen, start, line, found, weights, count)


@compiled
def _fill_input_gradient(s, grad, where, codes, at, windows, below, parts):
    """Fills the gradient at the padded maps that a stage sees, of one image.

    Args:
        s: the sizes.
        grad: as for `_add_weight_gradient`.
        where: likewise.
        codes: likewise.
        at: likewise.
        windows: as `_fill_windows` fills them.
        below: filled with the gradient, channels side by side.
        parts: as for `_add_weight_gradient`.
    """
    found, weights = parts
    below[:] = 0
    lines = s.kernel + 2
    # Down: the filter's window is read from one line further up.
    moves = np.array([s.two, (lines + 1) * s.two, 0, lines * s.two, 0])
    places, maps, corners, begins = where
    line = s.line * s.channels
    area = np.uint64(s.rows * s.columns)
    for q in range(area):
        first = np.uint64(at) + q
        count = _collect(codes, first, area, s.filters, begins, moves, grad, maps, places[q], parts)
        gather(
            below, corners[q], s.kernel + 1, s.two, line, windows, 0, s.two, found, weights, count
        )


@compiled
def _places(s, start, line, pixel, apart):
    """Where things are that belong to a stage's pooled numbers.

    Args:
        s: the sizes.
        start: where the first map's gradient begins.
        line: how far apart its lines are.
        pixel: how far apart its numbers are.
        apart: how far apart maps are.

    Returns:
        Places of one map's gradient, [rows · columns]; what to add to them, and where the filter
        begins among the windows, for each map; corners of the windows of one map's numbers.
    """
    places = np.empty(s.rows * s.columns, np.uint64)
    corners = np.empty(s.rows * s.columns, np.int64)
    for i in range(s.rows):
        for j in range(s.columns):
            places[i * s.columns + j] = start + i * line + j * pixel
            corners[i * s.columns + j] = 2 * (i * s.line + j) * s.channels
    maps = np.empty(s.filters, np.uint64)
    begins = np.empty(s.filters, np.int64)
    for f in range(s.filters):
        maps[f] = f * apart
        begins[f] = f * 2 * (s.kernel + 2) * s.two
    return places, maps, corners, begins


@compiled
def _unpack(s, total, bias, gradient):
    """Fills a stage's part of the parameters' gradient from lines, channels side by side."""
    at = s.weights
    for f in range(s.filters):
        for c in range(s.channels):
            for y in range(s.kernel):
                for x in range(s.kernel):
                    gradient[at] = total[(f * s.kernel + y) * s.one + x * s.channels + c]
                    at += 1
        gradient[s.biases + f] = bias[f]


@compiled
def _fill_head_gradient(delta, last, head, of_head, of_bias, at_last):
    """Fills the gradients of one linear layer and at the last maps.

    Args:
        delta: the gradient at the logits, [C B].
        last: the last maps, in whole vectors, [B numbers].
        head: the weights, [C inputs].
        of_head: filled with the gradient of the weights, [C inputs].
        of_bias: filled with that of the bias, [C].
        at_last: filled with that at the last maps, in whole vectors, [B numbers].
    """
    inputs = head.shape[1]
    filled = np.zeros((len(head), last.shape[1]), head.dtype)
    filled[:, :inputs] = head
    at_last[:] = 0
    add_transposed_product(at_last, delta, filled)
    filled[:] = 0
    add_product(filled, delta, last)
    of_head[:] = filled[:, :inputs]
    for c in range(len(delta)):
        of_bias[c] = delta[c].sum()


# One function: its buffers are allocated once, for all images.
@compiled
def backward(x, table, delta, parameters, head, maps, last, codes, gradient, of_head, of_bias):
    """Fills the gradients of all parameters.

    Args:
        x: as for `forward`.
        table: as for `forward`.
        delta: the gradient at the logits, [N C B].
        parameters: as for `forward`.
        head: as for `forward`.
        maps: as `forward` filled them, every image's.
        last: likewise.
        codes: likewise.
        gradient: filled with that of the stages' parameters, [N numbers].
        of_head: filled with that of the linear layer's weights, [N C inputs].
        of_bias: filled with that of its bias, [N C].
    """
    stages = [stage_of(row) for row in table]
    final = stages[-1]
    inputs = head.shape[2]
    size = -(-inputs // VECTOR) * VECTOR
    all_codes = final.codes + inputs
    images = x.shape[1]
    flat = x.reshape(-1)
    # --- buffers, of each stage ---
    most = 0
    for s in stages:
        most = max(most, s.rows * s.columns, s.filters)
    parts = (np.empty(most + 1, np.int64), np.empty(most + 1, x.dtype))
    room = [s.channels * s.plane + (s.kernel + 1) * s.two for s in stages]
    seen = [np.zeros(k, x.dtype) for k in room]
    below = [np.zeros(k, x.dtype) for k in room]
    windows = [np.zeros(s.filters * 2 * (s.kernel + 2) * s.two, x.dtype) for s in stages]
    biases = [np.zeros(s.filters, x.dtype) for s in stages]
    totals = [np.zeros(s.filters * s.kernel * s.one, x.dtype) for s in stages]
    # The gradient at the last pooled maps is flat, that at earlier ones is `below` the next stage.
    where = [_places(s, 0, s.columns, 1, s.rows * s.columns) for s in stages]
    for i in range(len(stages) - 1):
        s = stages[i + 1]
        of = s.channels
        where[i] = _places(stages[i], s.inner * of, s.line * of, of, 1)
    at_last = np.zeros((images, size), x.dtype)  # the gradient at the last maps
    for n in range(len(head)):
        # --- the linear layer ---
        begin = n * images * size
        maps_of_last = last[begin : begin + images * size].reshape(images, size)
        _fill_head_gradient(delta[n], maps_of_last, head[n], of_head[n], of_bias[n], at_last)
        # --- the stages, image by image ---
        for i in range(len(stages)):
            totals[i][:] = 0
            biases[i][:] = 0
            if i > 0:
                _fill_windows(stages[i], parameters[n], windows[i])
        for b in range(images):
            kept = n * images + b
            grad = at_last[b]
            for i in range(len(stages) - 1, -1, -1):
                s = stages[i]
                image = ((n % len(x)) * images + b) * x.shape[2]
                look = seen[i]
                start = 0
                if i > 0:
                    before = kept * final.maps + stages[i - 1].maps
                    _set_channels_last(s, maps, before, s.width, s.height * s.width, look)
                elif s.channels > 1:
                    _set_channels_last(s, flat, image + s.inner, s.line, s.plane, look)
                else:
                    look = flat
                    start = image
                at = kept * all_codes + s.codes
                _add_weight_gradient(
                    s, grad, where[i], codes, at, look, start, totals[i], biases[i], parts
                )
                if i > 0:
                    _fill_input_gradient(s, grad, where[i], codes, at, windows[i], below[i], parts)
                    grad = below[i]
        for i in range(len(stages)):
            _unpack(stages[i], totals[i], biases[i], gradient[n])
