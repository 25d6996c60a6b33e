"""Products of small matrices, as vector instructions.

The result is cut into tiles that fit into the registers of a processor.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from metaloss.kernels import VECTOR
from metaloss.kernels.jit import compiled
from metaloss.kernels.vectors import WIDE, Vectors

# Rows, and vectors of each row, of a tile: as many as a processor has registers for.
ROW_TILE = 6
PANEL = 4 if WIDE else 1


def tile(rows: int, panel: int) -> Callable[..., None]:
    """The function that adds a product to one tile of `rows` × `panel` vectors.

    It adds to c[i + r, j : j + panel · VECTOR] the sum over k of
    a.flat[start + r · row + k · step] · b[k, j : j + panel · VECTOR]; the tile stays in registers
    during the whole sum.
    """

    @intrinsic
    def product(typing, c, i, j, a, start, row, step, b, k):
        def generate(context, builder, signature, arguments):
            c, i, j, a, start, row, step, b, count = arguments
            code = Vectors(context, builder, signature.args[0])
            c, a, b = (code.array(signature.args[n], x) for n, x in ((0, c), (3, a), (7, b)))
            width = code.columns(c)
            depth = code.columns(b)
            grid = [(r, v) for r in range(rows) for v in range(panel)]
            places = [
                code.at(c.data, code.times(code.plus(i, r), width), j, v * VECTOR) for r, v in grid
            ]

            def add_outer_product(k, held):
                # One number of each row of a, times `panel` vectors of b.
                line = code.plus(code.times(k, depth), j)
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

            sums = code.loop(count, [code.load(place) for place in places], add_outer_product)
            for place, total in zip(places, sums, strict=True):
                code.store(total, place)
            return context.get_dummy_value()

        n = types.intp
        return types.void(c, n, n, a, n, n, n, b, n), generate

    return product


# Tiles of full width and of one vector, each for ROW_TILE rows and for the single rows left over.
wide = tile(ROW_TILE, PANEL)
wide_rest = tile(1, PANEL)
thin = tile(ROW_TILE, 1)
thin_rest = tile(1, 1)


@compiled
def _add_product(c, a, row, step, b, k):
    """c += a b, where a[r, k] is a.flat[r · row + k · step]."""
    rows, columns = c.shape
    even = rows // ROW_TILE * ROW_TILE
    j = 0
    # --- full tiles ---
    while j + PANEL * VECTOR <= columns:
        for i in range(0, even, ROW_TILE):
            wide(c, i, j, a, i * row, row, step, b, k)
        for i in range(even, rows):
            wide_rest(c, i, j, a, i * row, row, step, b, k)
        j += PANEL * VECTOR
    # --- columns that are left, one vector at a time ---
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
def add_transposed_product(c, a, b):
    """c += aᵀ b; c and b have a multiple of VECTOR columns."""
    _add_product(c, a, 1, a.shape[1], b, len(a))


@compiled
def transpose(a, b):
    """Fills b = aᵀ; further columns of b become 0."""
    zero = a.dtype.type(0)
    for j in range(a.shape[1]):
        for i in range(len(a)):
            b[j, i] = a[i, j]
        for i in range(len(a), b.shape[1]):
            b[j, i] = zero
