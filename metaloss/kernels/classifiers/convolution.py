"""What convolutions and their pooling consist of, as vector instructions.

Arrays are flat here, and places in them are counted in numbers. A map is a plane of lines, one for
each of its rows, with room for the window at their ends; so a convolution is one long sum over
taps, each of which reads the plane from another place on: neighbouring numbers of the result need
neighbouring numbers of the plane.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels import VECTOR
from metaloss.kernels.classifiers.stages import SPAN
from metaloss.kernels.instructions.vectors import WIDE, Vectors
from metaloss.kernels.jit import compiled

# The most filters of a tile: their sums, SPAN numbers each, have to fit into the registers.
TALL = 8 if WIDE else 2
INACTIVE = 4  # stands for a window whose maximum is not above 0


def tap_tile(filters: int) -> Callable[..., None]:
    """The function that computes SPAN numbers of each of some filters' maps.

    Filter r's are bias[first + r] plus the sum over the taps k of
    w[k · row + first + r] · x[start + taps[k] + 0 ... SPAN - 1]. They are written to
    z[place + r · plane] and what follows.
    """

    @intrinsic
    def tile(typing, z, place, plane, x, start, taps, w, row, first, bias):
        def generate(context, builder, signature, arguments):
            z, place, plane, x, start, taps, w, row, first, bias = arguments
            code = Vectors(context, builder, signature.args[0])
            z, x, taps, w, bias = (
                code.array(signature.args[n], value)
                for n, value in ((0, z), (3, x), (5, taps), (6, w), (9, bias))
            )
            count = taps.nitems
            panel = range(0, SPAN, VECTOR)
            biases = [
                code.spread(builder.load(code.at(bias.data, first, r))) for r in range(filters)
            ]

            def add_tap(k, sums):
                tap = builder.load(code.at(taps.data, k))
                seen = [code.load(code.at(x.data, start, tap, v)) for v in panel]
                left = code.at(w.data, code.times(row, k), first)
                fresh = []
                for r in range(filters):
                    weight = code.spread(builder.load(code.at(left, r)))
                    for v in range(len(panel)):
                        total = sums[r * len(panel) + v]
                        fresh.append(code.multiply_add(weight, seen[v], total))
                return fresh

            sums = code.loop(count, [b for b in biases for _ in panel], add_tap)
            for r in range(filters):
                for v in range(len(panel)):
                    at = code.at(z.data, place, code.times(plane, r), panel[v])
                    code.store(sums[r * len(panel) + v], at)
            return context.get_dummy_value()

        n = types.intp
        return types.void(z, n, n, x, n, taps, w, n, n, bias), generate

    return tile


def gather_tile(lines: int, panel: int) -> Callable[..., None]:
    """The function that adds a weighed sum of parts of an array to some lines of another.

    To total[place + l · step + 0 ... panel · VECTOR - 1] it adds the sum over i < count of
    weight[i] · x[start + place_of[i] + l · line + 0 ... panel · VECTOR - 1].
    """

    @intrinsic
    def tile(typing, total, place, step, x, start, line, place_of, weight, count):
        def generate(context, builder, signature, arguments):
            total, place, step, x, start, line, place_of, weight, count = arguments
            code = Vectors(context, builder, signature.args[0])
            total, x, place_of, weight = (
                code.array(signature.args[n], value)
                for n, value in ((0, total), (3, x), (6, place_of), (7, weight))
            )
            grid = [(r, v * VECTOR) for r in range(lines) for v in range(panel)]
            ends = [code.at(total.data, place, code.times(step, r), v) for r, v in grid]

            def add_part(i, sums):
                begin = code.at(x.data, start, builder.load(code.at(place_of.data, i)))
                factor = code.spread(builder.load(code.at(weight.data, i)))
                return [
                    code.multiply_add(
                        factor, code.load(code.at(begin, code.times(line, r), v)), sum_
                    )
                    for (r, v), sum_ in zip(grid, sums, strict=True)
                ]

            sums = code.loop(count, [code.load(end) for end in ends], add_part)
            for end, sum_ in zip(ends, sums, strict=True):
                code.store(sum_, end)
            return context.get_dummy_value()

        n = types.intp
        return types.void(total, n, n, x, n, n, place_of, weight, n), generate

    return tile


@intrinsic
def pool_row(typing, z, place, line, width, kept, at_kept, padded, at_padded, code, at_code):
    """Pools 2 × 2 windows of two lines, VECTOR windows at once, of which `width` exist.

    Their maxima after ReLU go to `kept` and to `padded`, which window each came from to `code`;
    zeros follow where there are fewer than VECTOR.
    """

    def generate(context, builder, signature, arguments):
        z, place, line, width, kept, at_kept, padded, at_padded, codes, at_code = arguments
        code = Vectors(context, builder, signature.args[0])
        z, kept, padded, codes = (
            code.array(signature.args[n], value)
            for n, value in ((0, z), (4, kept), (6, padded), (8, codes))
        )
        lanes = ir.VectorType(ir.IntType(32), VECTOR)

        def numbers(*values):
            return ir.Constant(lanes, list(values))

        # --- the four numbers of each window; of equal ones the first wins ---
        window = []
        for row in (0, line):
            left, right = (code.load(code.at(z.data, place, row, v)) for v in (0, VECTOR))
            for odd in (0, 1):
                window.append(
                    builder.shuffle_vector(left, right, numbers(*range(odd, 2 * VECTOR, 2)))
                )

        def greater(x, y):
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        best = greater(greater(window[0], window[1]), greater(window[2], window[3]))
        # A comparison with NaN is false, so the maximum may have lost one.
        strange = builder.or_(
            builder.fcmp_unordered("uno", window[0], window[1]),
            builder.fcmp_unordered("uno", window[2], window[3]),
        )
        nan = ir.Constant(code.vector, [float("nan")] * VECTOR)
        best = builder.select(strange, nan, best)
        # --- which of them it is ---
        which = numbers(*[3] * VECTOR)
        for number in (2, 1, 0):
            same = builder.fcmp_ordered("==", window[number], best)
            which = builder.select(same, numbers(*[number] * VECTOR), which)
        # --- ReLU, where there is a window; NaN stays ---
        wide = code.spread(builder.trunc(width, ir.IntType(32)))
        there = builder.icmp_signed("<", numbers(*range(VECTOR)), wide)
        active = builder.and_(builder.fcmp_unordered(">", best, code.zero), there)
        best = builder.select(active, best, code.zero)
        which = builder.select(active, which, numbers(*[INACTIVE] * VECTOR))
        code.store(best, code.at(kept.data, at_kept))
        code.store(best, code.at(padded.data, at_padded))
        byte = ir.VectorType(ir.IntType(8), VECTOR)
        code.store(builder.trunc(which, byte), code.at(codes.data, at_code))
        return context.get_dummy_value()

    n = types.intp
    return types.void(z, n, n, n, kept, n, padded, n, code, n), generate


tap_tile_8 = tap_tile(8)
tap_tile_4 = tap_tile(4)
tap_tile_2 = tap_tile(2)
tap_tile_1 = tap_tile(1)
gather_4_2 = gather_tile(4, 2)
gather_3_2 = gather_tile(3, 2)
gather_2_2 = gather_tile(2, 2)
gather_1_2 = gather_tile(1, 2)
gather_4_1 = gather_tile(4, 1)
gather_3_1 = gather_tile(3, 1)
gather_2_1 = gather_tile(2, 1)
gather_1_1 = gather_tile(1, 1)


@compiled
def convolve(z, plane, columns, x, start, taps, w, bias):
    """Fills z with the maps of all filters: `columns` numbers of each, a multiple of SPAN.

    Args:
        z: filled; the map of filter f begins at f · plane.
        plane: room for each.
        columns: how many numbers of each.
        x: the planes that are looked at.
        start: where they begin.
        taps: how much further each tap looks, [taps].
        w: weights, of every tap and filter.
        bias: of every filter.
    """
    filters = len(bias)
    f = 0
    while TALL == 8 and f + 8 <= filters:
        for q in range(0, columns, SPAN):
            tap_tile_8(z, f * plane + q, plane, x, start + q, taps, w, filters, f, bias)
        f += 8
    if TALL >= 4 and f + 4 <= filters:
        for q in range(0, columns, SPAN):
            tap_tile_4(z, f * plane + q, plane, x, start + q, taps, w, filters, f, bias)
        f += 4
    while f + 2 <= filters:
        for q in range(0, columns, SPAN):
            tap_tile_2(z, f * plane + q, plane, x, start + q, taps, w, filters, f, bias)
        f += 2
    if f < filters:
        for q in range(0, columns, SPAN):
            tap_tile_1(z, f * plane + q, plane, x, start + q, taps, w, filters, f, bias)


@compiled
def gather(total, place, lines, width, step, x, start, line, place_of, weight, count):
    """Adds a weighed sum of parts of x to `lines` lines of `total`.

    Args:
        total: what is added to.
        place: where its first line begins.
        lines: how many.
        width: numbers of each, a multiple of VECTOR.
        step: how far apart they are.
        x: where the parts are from.
        start: what their places are counted from.
        line: how far apart lines are there.
        place_of: where each part begins.
        weight: of each part.
        count: how many parts.
    """
    r = 0
    while r < lines:
        tall = min(lines - r, 4)
        to = place + r * step
        of = start + r * line
        v = 0
        while v + 2 * VECTOR <= width:
            if tall == 4:
                gather_4_2(total, to + v, step, x, of + v, line, place_of, weight, count)
            elif tall == 3:
                gather_3_2(total, to + v, step, x, of + v, line, place_of, weight, count)
            elif tall == 2:
                gather_2_2(total, to + v, step, x, of + v, line, place_of, weight, count)
            else:
                gather_1_2(total, to + v, step, x, of + v, line, place_of, weight, count)
            v += 2 * VECTOR
        if v < width:
            if tall == 4:
                gather_4_1(total, to + v, step, x, of + v, line, place_of, weight, count)
            elif tall == 3:
                gather_3_1(total, to + v, step, x, of + v, line, place_of, weight, count)
            elif tall == 2:
                gather_2_1(total, to + v, step, x, of + v, line, place_of, weight, count)
            else:
                gather_1_1(total, to + v, step, x, of + v, line, place_of, weight, count)
        r += tall
