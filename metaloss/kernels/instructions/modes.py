"""How a processor treats numbers too small for the usual form of a float32."""

# mypy: disable-error-code="no-untyped-def"

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

X86 = platform.machine().lower() in ("x86_64", "amd64")
# Bits of the control register: results, and operands, below the smallest normal number are 0.
FLUSH = 1 << 15 | 1 << 6


def _register(builder, name, pointer):
    """Reads or writes the control register."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(pointer, ir.IntType(8).as_pointer())])


@intrinsic
def flush_tiny_numbers(typing):
    """Has this thread take tiny numbers for 0 from here on; returns what `restore_modes` needs.

    Each of them costs some processors a hundred times as much as any other number, and a network
    that is sure of all its images gives little else.
    """

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        place = cgutils.alloca_once_value(builder, word(0))
        if not X86:
            return builder.load(place)
        _register(builder, "stmxcsr", place)
        before = builder.load(place)
        builder.store(builder.or_(before, word(FLUSH)), place)
        _register(builder, "ldmxcsr", place)
        return before

    return types.uint32(), generate


@intrinsic
def restore_modes(typing, before):
    """Has this thread treat tiny numbers as it did before."""

    def generate(context, builder, signature, arguments):
        if X86:
            place = cgutils.alloca_once_value(builder, arguments[0])
            _register(builder, "ldmxcsr", place)
        return context.get_dummy_value()

    return types.void(types.uint32), generate
