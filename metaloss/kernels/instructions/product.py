"""Products of small matrices, as vector instructions.

The result is cut into tiles that fit into the registers of a processor. What a sum starts from and
what becomes of it at its end are part of the product, so that no further pass reads it.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import intrinsic

from metaloss.kernels import VECTOR
from metaloss.kernels.instructions.vectors import WIDE, WORD, Vectors
from metaloss.kernels.jit import compiled

# Rows, and vectors of each row, of a tile: as many as a processor has registers for.
ROW_TILE = 6
PANEL = 4 if WIDE else 1
THIN_TILE = 8 if WIDE else 6
DEPTH = 128  # rows of b that stay in a processor's first cache while all rows of a pass by

# What becomes of a sum: it is stored, stored after ReLU, stored as a gradient through the ReLU that
# gave the array `mask`, or that gradient is added to what is there.
STORE, RELU, MASK, ADD_MASKED = range(4)


def tile(rows: int, panel: int) -> Callable[..., None]:
    """The function that computes one tile of `rows` × `panel` vectors of a product.

    The sum over k of a.flat[start + r · row + k · step] · b[k, column : column + panel · VECTOR]
    is added to factor · base.flat[base_start + r · base_row + j : ... + panel · VECTOR], and goes
    to c[i + r, j : j + panel · VECTOR] as `finish` says. The tile stays in registers during the
    whole sum.
    """

    @intrinsic
    def product(
        typing,
        c,
        i,
        j,
        a,
        start,
        row,
        step,
        b,
        column,
        k,
        base,
        base_start,
        base_row,
        factor,
        finish,
        mask,
    ):
        def generate(context, builder, signature, arguments):
            c, i, j, a, start, row, step, b, column, count = arguments[:10]
            base, base_start, base_row, factor, finish, mask = arguments[10:]
            code = Vectors(context, builder, signature.args[0])
            c, a, b, base, mask = (
                code.array(signature.args[n], x)
                for n, x in ((0, c), (3, a), (7, b), (10, base), (15, mask))
            )
            width = code.columns(c)
            depth = code.columns(b)
            grid = [(r, v) for r in range(rows) for v in range(panel)]
            offsets = [(code.times(code.plus(i, r), width), j, WORD(v * VECTOR)) for r, v in grid]
            places = [code.at(c.data, *offset) for offset in offsets]
            scale = code.spread(factor)

            def begin(r, v):
                place = code.at(base.data, base_start, code.times(base_row, r), j, v * VECTOR)
                return code.builder.fmul(scale, code.load(place))

            def add_outer_product(k, held):
                # One number of each row of a, times `panel` vectors of b.
                line = code.plus(code.times(k, depth), column)
                right = [code.load(code.at(b.data, line, v * VECTOR)) for v in range(panel)]
                fresh = []
                for r in range(rows):
                    place = code.at(a.data, start, code.times(row, r), code.times(step, k))
                    left = code.spread(builder.load(place))
                    tile_row = held[r * panel : (r + 1) * panel]
                    fresh += [
                        code.multiply_add(left, *x) for x in zip(right, tile_row, strict=True)
                    ]
                return fresh

            sums = code.loop(count, [begin(r, v) for r, v in grid], add_outer_product)

            def through(n):
                return code.positive(code.load(code.at(mask.data, *offsets[n])), sums[n])

            endings = {
                RELU: lambda n: code.positive(sums[n], sums[n]),
                MASK: through,
                ADD_MASKED: lambda n: builder.fadd(code.load(places[n]), through(n)),
            }
            done = builder.append_basic_block()
            plain = builder.append_basic_block()
            switch = builder.switch(finish, plain)
            for number, ending in endings.items():
                block = builder.append_basic_block()
                switch.add_case(WORD(number), block)
                builder.position_at_end(block)
                for n, place in enumerate(places):
                    code.store(ending(n), place)
                builder.branch(done)
            builder.position_at_end(plain)
            for total, place in zip(sums, places, strict=True):
                code.store(total, place)
            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        n = types.intp
        number = c.dtype
        return (
            types.void(c, n, n, a, n, n, n, b, n, n, base, n, n, number, n, mask),
            generate,
        )

    return product


@intrinsic
def copy_panel(typing, packed, at, b, k, j):
    """Fills packed[at] with b[k, j : j + PANEL · VECTOR]."""

    def generate(context, builder, signature, arguments):
        packed, at, b, k, j = arguments
        code = Vectors(context, builder, signature.args[0])
        packed, b = (code.array(signature.args[n], x) for n, x in ((0, packed), (2, b)))
        line = code.times(k, code.columns(b))
        for v in range(PANEL):
            vector = code.load(code.at(b.data, line, j, v * VECTOR))
            code.store(vector, code.at(packed.data, code.times(at, PANEL * VECTOR), v * VECTOR))
        return context.get_dummy_value()

    n = types.intp
    return types.void(packed, n, b, n, n), generate


# Tiles of full width and of one vector, for many rows, and for the few that are left over.
wide = tile(ROW_TILE, PANEL)
wide_pair = tile(2, PANEL)
wide_rest = tile(1, PANEL)
thin = tile(THIN_TILE, 1)
thin_rest = tile(1, 1)


@compiled
def _multiply(c, a, row, step, b, k, base, base_row, factor, finish, mask):
    """c = factor · base + a b, finished; a[r, k] is a.flat[r · row + k · step]."""
    rows, columns = c.shape
    before = (base, base_row, factor)
    j = 0
    # --- full tiles; rows of a wide b lie so far apart that few of them share a cache ---
    packs = k > DEPTH and rows >= 4 * ROW_TILE and columns > PANEL * VECTOR
    if packs and finish != ADD_MASKED:
        j = columns // (PANEL * VECTOR) * PANEL * VECTOR
        _fill_packed(c, j, a, row, step, b, k, before, finish, mask)
    while j + PANEL * VECTOR <= columns:
        _fill_panel(c, j, a, row, step, 0, b, j, k, before, finish, mask)
        j += PANEL * VECTOR
    # --- columns that are left, one vector at a time ---
    while j < columns:
        _fill_column(c, j, a, row, step, b, k, before, finish, mask)
        j += VECTOR


@compiled
def _fill_packed(c, columns, a, row, step, b, k, before, finish, mask):
    """The first columns, DEPTH rows of b at a time, each panel of which is copied together."""
    blocks = -(-k // DEPTH)
    packed = np.empty((DEPTH, PANEL * VECTOR), c.dtype)
    one = c.dtype.type(1)
    for j in range(0, columns, PANEL * VECTOR):
        for block in range(blocks):
            low = k * block // blocks
            depth = k * (block + 1) // blocks - low
            for d in range(depth):
                copy_panel(packed, d, b, low + d, j)
            # Sums of the blocks before wait in c.
            if block == 0:
                ending = STORE if blocks > 1 else finish
                _fill_panel(c, j, a, row, step, low, packed, 0, depth, before, ending, mask)
            else:
                ending = STORE if block < blocks - 1 else finish
                held = (c, c.shape[1], one)
                _fill_panel(c, j, a, row, step, low, packed, 0, depth, held, ending, mask)


@compiled
def _fill_panel(c, j, a, row, step, low, b, column, depth, before, finish, mask):
    """The columns of one panel from j on: columns of a from `low` on, `depth` rows of b."""
    rows = len(c)
    even = rows // ROW_TILE * ROW_TILE
    paired = even + (rows - even) // 2 * 2
    base, base_row, factor = before
    # fmt: off
    for i in range(0, even, ROW_TILE):
        wide(c, i, j, a, i * row + low * step, row, step, b, column, depth,
             base, i * base_row, base_row, factor, finish, mask)
    for i in range(even, paired, 2):
        wide_pair(c, i, j, a, i * row + low * step, row, step, b, column, depth,
                  base, i * base_row, base_row, factor, finish, mask)
    for i in range(paired, rows):
        wide_rest(c, i, j, a, i * row + low * step, row, step, b, column, depth,
                  base, i * base_row, base_row, factor, finish, mask)
    # fmt: on


@compiled
def _fill_column(c, j, a, row, step, b, k, before, finish, mask):
    """The columns of one vector from column j on."""
    rows = len(c)
    even = rows // THIN_TILE * THIN_TILE
    base, base_row, factor = before
    # fmt: off
    for i in range(0, even, THIN_TILE):
        thin(c, i, j, a, i * row, row, step, b, j, k,
             base, i * base_row, base_row, factor, finish, mask)
    for i in range(even, rows):
        thin_rest(c, i, j, a, i * row, row, step, b, j, k,
                  base, i * base_row, base_row, factor, finish, mask)
    # fmt: on


@compiled
def add_product(c, a, b):
    """c += a b; c and b have a multiple of VECTOR columns."""
    one = c.dtype.type(1)
    _multiply(c, a, a.shape[1], 1, b, a.shape[1], c, c.shape[1], one, STORE, c)


@compiled
def add_transposed_product(c, a, b):
    """c += aᵀ b; c and b have a multiple of VECTOR columns."""
    one = c.dtype.type(1)
    _multiply(c, a, 1, a.shape[1], b, len(a), c, c.shape[1], one, STORE, c)


@compiled
def fill_product(c, a, b, base, factor, finish, mask):
    """c = factor · base + a b, finished; c and b have a multiple of VECTOR columns.

    Args:
        c: [R J]; not read, unless `finish` is ADD_MASKED.
        a: [R K].
        b: [K J].
        base: [R J], or a row [1 J] for all.
        factor: of the base.
        finish: STORE, RELU, MASK or ADD_MASKED.
        mask: [R J] where the last two need it, else any array of this type.
    """
    base_row = c.shape[1] if len(base) > 1 else 0
    _multiply(c, a, a.shape[1], 1, b, a.shape[1], base, base_row, factor, finish, mask)


@compiled
def fill_transposed_product(c, a, b, base, factor, finish, mask):
    """c = factor · base + aᵀ b, finished, with a [K R]; all else as for `fill_product`."""
    base_row = c.shape[1] if len(base) > 1 else 0
    _multiply(c, a, 1, a.shape[1], b, len(a), base, base_row, factor, finish, mask)


@compiled
def transpose(a, b):
    """Fills b = aᵀ; further columns of b become 0."""
    zero = a.dtype.type(0)
    for j in range(a.shape[1]):
        for i in range(len(a)):
            b[j, i] = a[i, j]
        for i in range(len(a), b.shape[1]):
            b[j, i] = zero
