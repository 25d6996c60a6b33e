"""The forward pass of many convolutional networks, as `classifiers/cnn.py` defines them.

It goes image by image and stage by stage, so that a classifier's maps stay in a core's own cache.

Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the classifier's task.
Sizes are a `Stages`' `table`.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels import VECTOR
from metaloss.kernels.classifiers.convolution import convolve, pool_row
from metaloss.kernels.classifiers.stages import SPAN, Stage
from metaloss.kernels.instructions.product import add_product, transpose
from metaloss.kernels.jit import compiled

IMAGES = 12  # whose logits are computed at once


@compiled
def stage_of(row):
    """A stage's sizes by their names."""
    return Stage(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        row[15],
        row[16],
    )


@compiled
def _taps(s):
    """How much further each number of the window is in the padded maps, [channels · kernel²]."""
    taps = np.empty(s.channels * s.kernel**2, np.int64)
    i = 0
    for c in range(s.channels):
        for y in range(s.kernel):
            for x in range(s.kernel):
                taps[i] = c * s.plane + y * s.line + x
                i += 1
    return taps


@compiled
def _fill_by_tap(s, parameters, by_tap):
    """Fills a filter's weights tap by tap: flat, [channels · kernel² · filters]."""
    taps = s.channels * s.kernel**2
    for f in range(s.filters):
        for i in range(taps):
            by_tap[i * s.filters + f] = parameters[s.weights + f * taps + i]


@compiled
def _pool(s, z, maps, at_maps, padded, inner, plane, line, codes, at_codes):
    """Pools a stage's maps.

    Args:
        s: its sizes.
        z: the maps.
        maps: filled with the pooled ones, one after another.
        at_maps: where these begin.
        padded: filled with them as the next stage sees them.
        inner: where the first map begins there.
        plane: how far apart maps are there.
        line: how far apart lines are there.
        codes: filled with which number of its window each is.
        at_codes: where these begin.
    """
    zero = z.dtype.type(0)
    span = s.height * s.line
    for f in range(s.filters):
        # Windows at the end of an odd number of rows or columns lack numbers: a zero below ReLU
        # changes nothing.
        if s.height % 2:
            z[f * s.room + span : f * s.room + span + s.line] = zero
        if s.width % 2:
            for y in range(s.height):
                z[f * s.room + y * s.line + s.width] = zero
        for i in range(s.rows):
            for j in range(0, s.columns, VECTOR):
                place = f * s.room + 2 * i * s.line + 2 * j
                to = (f * s.rows + i) * s.columns + j
                below = inner + f * plane + i * line + j
                pool_row(
                    z,
                    place,
                    s.line,
                    s.columns - j,
                    maps,
                    at_maps + to,
                    padded,
                    below,
                    codes,
                    at_codes + to,
                )


@compiled
def _fill_logits(maps, transposed, bias, logits):
    """Fills the logits [C b] of images with these last maps [b inputs]."""
    scores = np.zeros((len(maps), transposed.shape[1]), maps.dtype)
    add_product(scores, maps, transposed)
    for c in range(len(logits)):
        for b in range(len(maps)):
            logits[c, b] = scores[b, c] + bias[c]


# One function: its buffers are allocated once, for all images.
@compiled
def forward(x, table, parameters, head, head_bias, keep, maps, last, codes, logits):
    """Fills the logits, and what `backward` needs.

    Args:
        x: padded images, [T B numbers].
        table: the sizes, [stages fields].
        parameters: weights and biases of all stages, [N numbers].
        head: weights of the linear layer, [N C inputs].
        head_bias: its bias, [N C].
        keep: whether every image's maps are kept; else each takes the place of an earlier one's.
        maps: filled with the pooled maps of all stages but the last, flat: [N B numbers], or of one
            image where they are not kept; and VECTOR more.
        last: filled with those of the last stage, likewise, or of IMAGES images.
        codes: filled with which number of its window each pooled one is, as `maps` is; INACTIVE
            where that is not above 0.
        logits: filled with the logits, [N C B].
    """
    stages = [stage_of(row) for row in table]
    final = stages[-1]
    inputs = head.shape[2]
    size = -(-inputs // VECTOR) * VECTOR  # of the last maps
    all_codes = final.codes + inputs
    # --- buffers, of each stage ---
    taps = [_taps(s) for s in stages]
    by_tap = [np.empty(len(taps[i]) * stages[i].filters, x.dtype) for i in range(len(stages))]
    rooms = [np.zeros(s.filters * s.room + SPAN, x.dtype) for s in stages]
    padded = [np.zeros(s.channels * s.plane + s.line + 2 * SPAN, x.dtype) for s in stages]
    transposed = np.zeros((size, -(-head.shape[1] // VECTOR) * VECTOR), x.dtype)  # the head
    flat = x.reshape(-1)
    images = x.shape[1]
    for n in range(len(head)):
        for i in range(len(stages)):
            _fill_by_tap(stages[i], parameters[n], by_tap[i])
        transpose(head[n], transposed[:inputs])
        for b in range(images):
            # --- stages ---
            kept = n * images + b if keep else 0
            at_last = (n * images + b if keep else b % IMAGES) * size
            for i in range(len(stages)):
                s = stages[i]
                bias = parameters[n, s.biases : s.biases + s.filters]
                seen = flat if i == 0 else padded[i]
                start = ((n % len(x)) * images + b) * x.shape[2] if i == 0 else 0
                columns = -(-s.height * s.line // SPAN) * SPAN
                convolve(rooms[i], s.room, columns, seen, start, taps[i], by_tap[i], bias)
                at_codes = kept * all_codes + s.codes
                if i + 1 < len(stages):
                    after = stages[i + 1]
                    at = kept * final.maps + s.maps
                    _pool(
                        s,
                        rooms[i],
                        maps,
                        at,
                        padded[i + 1],
                        after.inner,
                        after.plane,
                        after.line,
                        codes,
                        at_codes,
                    )
                else:
                    area = s.rows * s.columns
                    _pool(
                        s, rooms[i], last, at_last, last, at_last, area, s.columns, codes, at_codes
                    )
            # The next image's first numbers may have been written with this one's last.
            last[at_last + inputs : at_last + size] = 0
            # --- logits, of all images since the last ones ---
            if (b + 1) % IMAGES == 0 or b + 1 == images:
                some = b % IMAGES + 1
                begin = at_last - (some - 1) * size
                block = last[begin : begin + some * size].reshape(some, size)
                _fill_logits(block, transposed, head_bias[n], logits[n, :, b + 1 - some : b + 1])
