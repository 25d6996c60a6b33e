"""The layers of a small network on VECTOR images at once, as vector instructions.

Layers are so narrow that their outputs stay in registers from the first product to the activation
and what follows it. All arrays are float32 with VECTOR columns, where nothing else is said; rows
come TILE at a time. Weights are numbers of one flat array; `Buffers` of `network.py` are the rest.
"""

# mypy: disable-error-code="no-untyped-def"

import math
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from metaloss.kernels import UNITS, VECTOR
from metaloss.kernels.instructions.vectors import INT32, WORD, Vectors

TILE = UNITS  # rows whose sums registers hold

N = types.intp
# Coefficients of 2^r in powers of r, highest first.
POWERS = [math.log(2) ** n / math.factorial(n) for n in range(6, -1, -1)]
SHIFT = 1.5 * 2**23  # the last bits of a float32 near it are a whole number
N_ZERO = WORD(0)
LIMIT = 126.0  # keeps 2^x, and 1 + 2^x, within the range of a float32


class Tile(Vectors):
    """Vectors of one number for each of VECTOR images."""

    def constant(self, x: float):
        """A vector of one constant."""
        return ir.Constant(self.vector, [x] * VECTOR)

    def row(self, array, row, column=0):
        """A pointer to a row of an array, from a column on."""
        return self.at(array.data, self.times(row, self.columns(array)), column)

    def number_at(self, array, *offsets):
        """One number of an array, for all images."""
        return self.spread(self.builder.load(self.at(array.data, *offsets)))

    def fields(self, array_types, values):
        """The arrays of a named tuple, by name."""
        return {
            name: self.array(kind, self.builder.extract_value(values, n))
            for n, (name, kind) in enumerate(zip(array_types.fields, array_types, strict=True))
        }

    def add_to(self, x, place) -> None:
        """Adds a vector to the one in memory."""
        self.store(self.builder.fadd(self.load(place), x), place)

    def sums(self, begin, weights, start, count, inputs, first, column=0):
        """What the rows of `begin` become when a product is added.

        Row r gains the sum over k of weights.flat[start + k · len(begin) + r] · inputs[first + k],
        with `count` numbers k.
        """

        def add(k, held):
            x = self.load(self.row(inputs, self.builder.add(first, k), column))
            place = self.builder.add(start, self.times(k, len(begin)))
            return [
                self.multiply_add(self.number_at(weights, place, r), x, total)
                for r, total in enumerate(held)
            ]

        return self.loop(count, begin, add)

    def sigmoid(self, x):
        """1 / (1 + exp(-x)); NaN stays. Its error is that which rounding x itself causes."""
        b = self.builder
        shift = self.constant(SHIFT)
        x = b.fmul(x, self.constant(-math.log2(math.e)))
        for sign, limit in (("<", LIMIT), (">", -LIMIT)):
            # NaN fails both comparisons, and so stays.
            bound = self.constant(limit)
            x = b.select(b.fcmp_ordered(sign, bound, x), bound, x)
        shifted = b.fadd(x, shift)
        r = b.fsub(x, b.fsub(shifted, shift))
        y = self.constant(POWERS[0])
        for power in POWERS[1:]:
            y = self.multiply_add(y, r, self.constant(power))
        # 2^n from n: 127 is the bias of a float32's exponent, which begins at bit 23.
        words = ir.VectorType(INT32, VECTOR)
        bits = b.add(b.bitcast(shifted, words), ir.Constant(words, [127] * VECTOR))
        scale = b.bitcast(b.shl(bits, ir.Constant(words, [23] * VECTOR)), self.vector)
        one = self.constant(1.0)
        return b.fdiv(one, self.multiply_add(y, scale, one))

    def sigmoid_slope(self, out):
        """σ' = σ - σ², from σ."""
        return self.builder.fsub(out, self.builder.fmul(out, out))

    def either(self, condition, first: Callable[[], None], second: Callable[[], None]) -> None:
        """Writes code of which the first part runs where a number is not 0, else the second."""
        nonzero = self.builder.icmp_signed("!=", condition, condition.type(0))
        with self.builder.if_else(nonzero) as (then, otherwise):
            with then:
                first()
            with otherwise:
                second()


def _written(write):
    """The code generator of an intrinsic.

    `write` is given a `Tile`, the arrays of the `Buffers`, which come first, by their names, and
    the other arguments, of which the first one is an array of weights.
    """

    def generate(context, builder, signature, arguments):
        buffers, *others = signature.args
        code = Tile(context, builder, others[0])
        values = [
            code.array(kind, x) if isinstance(kind, types.Array) else x
            for kind, x in zip(others, arguments[1:], strict=True)
        ]
        write(code, code.fields(buffers, arguments[0]), *values)
        return context.get_dummy_value()

    return generate


@intrinsic
def activate_features(
    typing, buffers, w, start, inputs, bias, place, step, c, f, features, at, logistic
):
    """Features f to f + TILE of class c: fills `h`, adds to `mean` and, of the label, to `true`.

    Args:
        buffers: a `Buffers`.
        w: all weights; those of these rows begin at `start`.
        start: see there.
        inputs: how many numbers a feature reads: rows c · inputs and on of `x`.
        bias: of all features.
        place: where that of feature f is there.
        step: from one feature's bias to the next.
        c: the class.
        f: the first feature.
        features: how many there are: row c · features + f of `h` is the first one's.
        at: the first image, a column of `x` and `y`.
        logistic: whether σ is the activation; else ReLU.
    """

    def write(code, a, w, start, inputs, bias, place, step, c, f, features, at, logistic):
        begin = [code.number_at(bias, place, code.times(step, r)) for r in range(TILE)]
        sums = code.sums(begin, w, start, inputs, a["x"], code.times(c, inputs), at)
        label = code.load(code.row(a["y"], c, at))
        first = code.plus(code.times(c, features), f)

        def finish(activation):
            for r, total in enumerate(sums):
                out = activation(total)
                code.store(out, code.row(a["h"], code.plus(first, r)))
                line = code.plus(f, r)
                code.add_to(out, code.row(a["mean"], line))
                code.add_to(code.builder.fmul(out, label), code.row(a["true"], line))

        code.either(
            logistic,
            lambda: finish(code.sigmoid),
            lambda: finish(lambda z: code.positive(z, z)),
        )

    return types.void(buffers, w, N, N, bias, *[N] * 7), _written(write)


@intrinsic
def fill_context(typing, buffers, w, absent, mean, true, features, j):
    """Rows j to j + TILE of `context`: what the integration is given of all classes.

    `absent`, `mean` and `true` say where the weights of row j begin.
    """

    def write(code, a, w, absent, mean, true, features, j):
        zero = N_ZERO
        begin = [code.number_at(w, absent, r) for r in range(TILE)]
        some = code.sums(begin, w, mean, features, a["mean"], zero)
        for r, total in enumerate(code.sums(some, w, true, features, a["true"], zero)):
            code.store(total, code.row(a["context"], code.plus(j, r)))

    return types.void(buffers, w, *[N] * 5), _written(write)


@intrinsic
def integrate(typing, buffers, w, start, features, present, out, share, c, j, at, logistic):
    """The gradient at inputs j to j + TILE of the integration of class c: fills `u`.

    It is added to `total`, too.

    Args:
        buffers: a `Buffers`.
        w: all weights; those of these rows begin at `start`.
        start: see there.
        features: how many there are: rows c · features and on of `h`.
        present: where the weights begin of what the label's class is given, too.
        out: where those of the output begin.
        share: of an image in the mean over images.
        c: the class.
        j: the first row.
        at: the first image, a column of `y`.
        logistic: whether σ is the activation; else ReLU.
    """

    def write(code, a, w, start, features, present, out, share, c, j, at, logistic):
        label = code.load(code.row(a["y"], c, at))
        rows = [code.plus(j, r) for r in range(TILE)]
        begin = [
            code.multiply_add(
                code.number_at(w, present, r), label, code.load(code.row(a["context"], row))
            )
            for r, row in enumerate(rows)
        ]
        sums = code.sums(begin, w, start, features, a["h"], code.times(c, features))
        even = code.spread(share)

        def finish(slope):
            for r, (row, z) in enumerate(zip(rows, sums, strict=True)):
                gradient = slope(z, code.builder.fmul(code.number_at(w, out, r), even))
                code.store(gradient, code.row(a["u"], row))
                code.add_to(gradient, code.row(a["total"], row))

        def logistic_slope(z, factor):
            return code.builder.fmul(factor, code.sigmoid_slope(code.sigmoid(z)))

        code.either(logistic, lambda: finish(logistic_slope), lambda: finish(code.positive))

    arguments = [N] * 4 + [types.float32] + [N] * 4
    return types.void(buffers, w, *arguments), _written(write)


def filling(target, source):
    """The function that fills TILE rows of one buffer by a product with another one."""

    @intrinsic
    def fill(typing, buffers, w, start, count, row):
        """Rows from `row` on become sums over `count` rows; their weights begin at `start`."""

        def write(code, a, w, start, count, row):
            begin = [code.constant(0.0)] * TILE
            sums = code.sums(begin, w, start, count, a[source], N_ZERO)
            for r, total in enumerate(sums):
                code.store(total, code.row(a[target], code.plus(row, r)))

        return types.void(buffers, w, *[N] * 3), _written(write)

    return fill


fill_feature_gradients = filling("dh", "u")
fill_mean_gradients = filling("mean", "total")
fill_true_gradients = filling("true", "total")


@intrinsic
def features_back(typing, buffers, w, c, f, features, at, logistic):
    """The gradient `dh` at features f to f + TILE of class c becomes that at their inputs.

    What comes through the sums over classes, `mean` and `true`, is added before.
    """

    def write(code, a, w, c, f, features, at, logistic):
        label = code.load(code.row(a["y"], c, at))
        first = code.plus(code.times(c, features), f)

        def finish(slope):
            for r in range(TILE):
                row = code.plus(first, r)
                line = code.plus(f, r)
                place = code.row(a["dh"], row)
                gradient = code.builder.fadd(code.load(place), code.load(code.row(a["mean"], line)))
                gradient = code.multiply_add(code.load(code.row(a["true"], line)), label, gradient)
                code.store(slope(code.load(code.row(a["h"], row)), gradient), place)

        code.either(
            logistic,
            lambda: finish(lambda out, x: code.builder.fmul(x, code.sigmoid_slope(out))),
            lambda: finish(code.positive),
        )

    return types.void(buffers, w, *[N] * 5), _written(write)


@intrinsic
def input_back(typing, buffers, w, start, features, c, row, at):
    """Row `row` of `x` becomes the gradient there, from that at the inputs of class c's features.

    The weights begin at `start`.
    """

    def write(code, a, w, start, features, c, row, at):
        first = code.times(c, features)
        (total,) = code.sums([code.constant(0.0)], w, start, features, a["dh"], first)
        code.store(total, code.row(a["x"], row, at))

    return types.void(buffers, w, *[N] * 5), _written(write)
