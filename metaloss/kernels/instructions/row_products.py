"""Sums of products of rows, as vector instructions.

The gradient of a layer with few outputs and inputs is one: of each output's row of numbers with
each input's. The sums of different places of a vector are kept apart until all images are seen.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from metaloss.kernels import VECTOR
from metaloss.kernels.instructions.vectors import WIDE, Vectors
from metaloss.kernels.jit import compiled

# Rows of both factors in a tile, whose sums stay in registers.
LEFT, RIGHT = (4, 4) if WIDE else (2, 2)


def row_tile(lefts: int, rights: int) -> Callable[..., None]:
    """The function that adds to lefts × rights sums.

    It adds to total[i + r, j + s, :] the sum over k of
    a[i + r, k · VECTOR :][:VECTOR] · b[j + s, k · VECTOR :][:VECTOR].
    """

    @intrinsic
    def product(typing, total, i, j, a, b, count):
        def generate(context, builder, signature, arguments):
            total, i, j, a, b, count = arguments
            code = Vectors(context, builder, signature.args[0])
            total, a, b = (
                code.array(signature.args[n], x) for n, x in ((0, total), (3, a), (4, b))
            )
            grid = [(r, s) for r in range(lefts) for s in range(rights)]
            others = code.columns(total)
            places = [
                code.at(
                    total.data,
                    code.times(
                        code.plus(code.times(code.plus(i, r), others), code.plus(j, s)), VECTOR
                    ),
                )
                for r, s in grid
            ]

            def row(x, number):
                return code.at(x.data, code.times(number, code.columns(x)))

            left = [row(a, code.plus(i, r)) for r in range(lefts)]
            right = [row(b, code.plus(j, s)) for s in range(rights)]

            def add_products(k, held):
                at = code.times(k, VECTOR)
                x = [code.load(code.at(start, at)) for start in left]
                y = [code.load(code.at(start, at)) for start in right]
                return [
                    code.multiply_add(x[r], y[s], old)
                    for (r, s), old in zip(grid, held, strict=True)
                ]

            sums = code.loop(count, [code.load(place) for place in places], add_products)
            for place, result in zip(places, sums, strict=True):
                code.store(result, place)
            return context.get_dummy_value()

        n = types.intp
        return types.void(total, n, n, a, b, n), generate

    return product


tile = row_tile(LEFT, RIGHT)
tile_rest = row_tile(LEFT, 1)
single = row_tile(1, 1)


@compiled
def add_row_products(total, a, b):
    """Adds to total [I J VECTOR] the products of the rows of a [I columns] with those of b
    [J columns], summed over every VECTOR-th column; the columns are a multiple of VECTOR.
    """
    count = a.shape[1] // VECTOR
    even = len(a) // LEFT * LEFT
    even_right = len(b) // RIGHT * RIGHT
    for i in range(0, even, LEFT):
        for j in range(0, even_right, RIGHT):
            tile(total, i, j, a, b, count)
        for j in range(even_right, len(b)):
            tile_rest(total, i, j, a, b, count)
    for i in range(even, len(a)):
        for j in range(len(b)):
            single(total, i, j, a, b, count)
