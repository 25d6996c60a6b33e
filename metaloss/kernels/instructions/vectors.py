"""Vector instructions in LLVM's language, for the innermost loops.

LLVM's own vectoriser does not find the layouts that these loops need.
"""

# mypy: disable-error-code="no-untyped-def"

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils

from metaloss.kernels import VECTOR

# Whether registers hold VECTOR float32 each, and there are 32 of them; else two hold as many.
WIDE = bool(get_host_cpu_features().get("avx512f"))
WORD = ir.IntType(64)
INT32 = ir.IntType(32)


class Vectors:
    """Instructions on vectors of VECTOR numbers of an array's type, written by a builder.

    Offsets count numbers; each is a value of type `intp`, or an integer.
    """

    def __init__(self, context, builder, array_type) -> None:
        self.context = context
        self.builder = builder
        self.number = context.get_value_type(array_type.dtype)
        self.vector = ir.VectorType(self.number, VECTOR)
        # Rows begin at any number, so a vector has the alignment of one number alone.
        self.size = context.get_abi_sizeof(self.number)
        self.zero = ir.Constant(self.vector, [0.0] * VECTOR)

    def array(self, array_type, value):
        """An array's fields, such as `data` and `shape`."""
        return self.context.make_array(array_type)(self.context, self.builder, value)

    def columns(self, array) -> ir.Value:
        """The second size of an array."""
        return cgutils.unpack_tuple(self.builder, array.shape)[1]

    def at(self, pointer, *offsets):
        """A pointer that is so much further."""
        place = _word(offsets[0])
        for x in offsets[1:]:
            place = self.builder.add(place, _word(x))
        return self.builder.gep(pointer, [place])

    def plus(self, x, n):
        """A sum of offsets."""
        return self.builder.add(x, _word(n))

    def times(self, x, n):
        """A product of offsets."""
        return self.builder.mul(x, _word(n))

    def load(self, pointer):
        """A vector from memory."""
        loaded = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        loaded.align = self.size
        return loaded

    def store(self, vector, pointer) -> None:
        """A vector into memory."""
        stored = self.builder.store(vector, self.builder.bitcast(pointer, vector.type.as_pointer()))
        stored.align = 1 if vector.type.element == ir.IntType(8) else self.size

    def spread(self, number):
        """A vector of one number."""
        kind = ir.VectorType(number.type, VECTOR)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, INT32(0))
        lanes = ir.Constant(ir.VectorType(INT32, VECTOR), [0] * VECTOR)
        return self.builder.shuffle_vector(one, one, lanes)

    def multiply_add(self, x, y, total):
        """x y + total."""
        both = self.builder.fmul(x, y, flags=("contract",))
        return self.builder.fadd(both, total, flags=("contract",))

    def positive(self, x, y):
        """y, but 0 where x is 0 or less; where x is NaN, y."""
        above = self.builder.fcmp_ordered("<=", x, self.zero)
        return self.builder.select(above, self.zero, y)

    def loop(self, count, first, body):
        """What `first`, some values, become in `count` rounds: body(k, values) gives new ones."""
        builder = self.builder
        entry = builder.block
        inside = builder.append_basic_block()
        after = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", WORD(0), count), inside, after)
        builder.position_at_end(inside)
        k = builder.phi(WORD)
        held = [builder.phi(x.type) for x in first]
        fresh = body(k, held)
        following = builder.add(k, WORD(1))
        end = builder.block
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        last = [builder.phi(x.type) for x in first]
        k.add_incoming(WORD(0), entry)
        k.add_incoming(following, end)
        for x, y, before, result in zip(first, fresh, held, last, strict=True):
            for phi in (before, result):
                phi.add_incoming(x, entry)
                phi.add_incoming(y, end)
        return last


def _word(x):
    return WORD(x) if isinstance(x, int) else x
