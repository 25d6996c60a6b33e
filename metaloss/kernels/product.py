"""Products of small matrices, as vector instructions.

The result is cut into tiles that fit into the registers of a processor. LLVM's own vectoriser does
not find this layout, so `tile` writes the innermost loop in LLVM's language.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from metaloss.kernels import VECTOR
from metaloss.kernels.jit import compiled

# Rows, and vectors of each row, of a tile: as many as a processor has registers for.
ROW_TILE = 6
PANEL = 4 if get_host_cpu_features().get("avx512f") else 1


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
            c, a, b = (
                context.make_array(signature.args[n])(context, builder, x)
                for n, x in ((0, c), (3, a), (7, b))
            )
            # --- types ---
            number = context.get_value_type(signature.args[0].dtype)
            word = ir.IntType(64)
            vector = ir.VectorType(number, VECTOR)
            lanes = ir.VectorType(ir.IntType(32), VECTOR)
            size = context.get_abi_sizeof(number)

            def at(base, *offsets):
                place = offsets[0]
                for x in offsets[1:]:
                    place = builder.add(place, x)
                return builder.gep(base, [place])

            def load(pointer):
                loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()))
                # Rows begin at any number, so a vector has the alignment of one number alone.
                loaded.align = size
                return loaded

            def times(x, n):
                return builder.mul(x, word(n) if isinstance(n, int) else n)

            # --- load the tile of c ---
            width = cgutils.unpack_tuple(builder, c.shape)[1]
            depth = cgutils.unpack_tuple(builder, b.shape)[1]
            grid = [(r, v) for r in range(rows) for v in range(panel)]
            places = {
                (r, v): at(c.data, times(builder.add(i, word(r)), width), j, word(v * VECTOR))
                for r, v in grid
            }
            first = {x: load(place) for x, place in places.items()}
            entry = builder.block
            loop = builder.append_basic_block()
            after = builder.append_basic_block()
            builder.cbranch(builder.icmp_signed("<", word(0), count), loop, after)

            # --- loop over k: one number of each row of a, times `panel` vectors of b ---
            builder.position_at_end(loop)
            k = builder.phi(word)
            held = {x: builder.phi(vector) for x in grid}
            line = builder.add(times(k, depth), j)
            right = [load(at(b.data, line, word(v * VECTOR))) for v in range(panel)]
            fresh = {}
            for r in range(rows):
                left = builder.load(at(a.data, start, times(row, r), times(step, k)))
                left = builder.insert_element(
                    ir.Constant(vector, ir.Undefined), left, ir.IntType(32)(0)
                )
                left = builder.shuffle_vector(left, left, ir.Constant(lanes, [0] * VECTOR))
                for v in range(panel):
                    both = builder.fmul(left, right[v], flags=("contract",))
                    fresh[r, v] = builder.fadd(both, held[r, v], flags=("contract",))
            following = builder.add(k, word(1))
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)

            # --- store the tile ---
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
