"""Programs as lines of numbers, for a compiled interpreter on a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import kernels
from metaloss.losses.base import Clock
from metaloss.losses.language.expression import LOGP, PAST, Expression, P
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.language.programs import (
    Program,
    Run,
    gradient_program,
    subtract_product,
)
from metaloss.losses.shared_inputs import SharedInputs, is_number

# Many, so that to choose a step's loop takes little of its time; not so many that its registers
# leave the nearest cache.
MOST_LANES = 64
GIVEN = {LOGP: 0, P: 1, PAST: 2}  # registers of what every program is given, as in the kernel


@dataclass(frozen=True)
class Lines:
    """A program for the interpreter.

    Attributes:
        lines: an operation, the register of its result, and four that it reads, [L 6].
        inputs: what stands in which register before the first line, but for what is `GIVEN`.
        out: the register of the result.
        registers: how many there are.
        sign: of the result.
        reads_past: whether it reads the images' past.
    """

    lines: Any
    inputs: tuple[tuple[Expression, int], ...]
    out: int
    registers: int
    sign: int
    reads_past: bool


@lru_cache(maxsize=1 << 11)
def gradient_lines(e: Expression) -> Lines | None:
    """The program of ∂e/∂logp; None where the interpreter does not know one of its steps."""
    program = gradient_program(e)
    known = operations()
    if not all(run in known for run, _ in program.steps):
        return None
    registers = _Registers(program)
    lines = [
        [known[run], *registers.of_step(number, args)]
        for number, (run, args) in enumerate(program.steps)
    ]
    return Lines(
        np.array(lines, np.int64).reshape(-1, 6),
        tuple((e, registers.at[i]) for i, e in enumerate(program.inputs) if e not in GIVEN),
        registers.at[program.out],
        registers.count,
        program.sign,
        PAST in program.inputs,
    )


@dataclass(frozen=True)
class CompiledFormulas:
    """The gradients of P formulas by the interpreter, with all that is the same at every step.

    Attributes:
        programs: a `Programs` of the interpreter.
        factor: of each formula's gradient, for one image, [P].
        numbers: inputs of all formulas that are one number.
        moved_planes: inputs with a number for every class or image that a clock moves.
        fixed_numbers: the numbers, where no clock moves one.
    """

    programs: Any
    factor: Any
    numbers: tuple[Expression, ...]
    moved_planes: tuple[Expression, ...]
    fixed_numbers: Any

    @classmethod
    def of(cls, formulas: Sequence[Formula], inputs: SharedInputs) -> "CompiledFormulas | None":
        """These formulas, bound; None where the interpreter does not compute one of them."""
        like = inputs.planes
        known = kernels.available() and like.device.type == "cpu" and like.dtype == torch.float32
        lines = [gradient_lines(f.expression) for f in formulas] if known else []
        whole = [x for x in lines if x is not None]
        if not known or len(whole) < len(lines):
            return None
        used = dict.fromkeys(e for x in whole for e, _ in x.inputs)
        numbers = tuple(e for e in used if is_number(e))
        moved = tuple(e for e in used if not is_number(e) and e not in inputs.rows)
        programs = _side_by_side(
            whole,
            {e: i for i, e in enumerate(numbers)},
            inputs.rows | {e: len(like) + i for i, e in enumerate(moved)},
        )
        classes = like.shape[2]
        means = [classes if f.reduction == "mean" else 1 for f in formulas]
        factor = [
            x.sign / (f.temperature * n) for x, f, n in zip(whole, formulas, means, strict=True)
        ]
        fixed = None if inputs.by_clock else _values(numbers, inputs.numbers)
        return cls(programs, np.array(factor, np.float32), numbers, moved, fixed)

    def logit_gradient(
        self,
        logits: Float[Tensor, "P T C B"],
        past: Float[Tensor, "P T C B"] | None,
        inputs: SharedInputs,
        clock: Clock,
    ) -> Float[Tensor, "P T C B"]:
        """The gradient of each value with respect to its logits, by class."""
        from metaloss.kernels.losses import programs

        planes, numbers = inputs.planes, self.fixed_numbers
        if numbers is None:
            named = inputs.at(clock)
            moved = [named[e].expand_as(planes[0]) for e in self.moved_planes]
            planes = torch.cat([planes, torch.stack(moved)]) if moved else planes
            numbers = _values(self.numbers, named)
        # Where no formula reads a past, what is given for it is not read.
        before = logits[:1] if past is None else past
        gradient = torch.empty_like(logits)
        programs.logit_gradient(
            logits.flatten(0, 1).numpy(),
            before.contiguous().flatten(0, 1).numpy(),
            planes.contiguous().numpy(),
            numbers,
            self.programs,
            self.factor / np.float32(logits.shape[-1]),
            _lanes(logits.shape[-1]),
            gradient.flatten(0, 1).numpy(),
        )
        return gradient


def _lanes(images: int) -> int:
    """For how many images a step is made at once: at most MOST_LANES, in whole vectors."""
    blocks = -(-images // MOST_LANES)
    return -(-images // (blocks * kernels.VECTOR)) * kernels.VECTOR


def _values(numbers: Sequence[Expression], values: Mapping[Expression, Tensor]) -> Any:
    """Some inputs, as an array."""
    return np.array([float(values[e]) for e in numbers], np.float32)


def _side_by_side(
    whole: Sequence[Lines], number: Mapping[Expression, int], row: Mapping[Expression, int]
) -> Any:
    """The programs of some formulas as a `Programs`.

    Args:
        whole: of each formula.
        number: which one each input is that is one number.
        row: which plane each other input is.
    """
    from metaloss.kernels.losses.programs import Programs

    numbers = [[(r, number[e]) for e, r in x.inputs if e in number] for x in whole]
    planes = [[(r, row[e]) for e, r in x.inputs if e not in number] for x in whole]
    return Programs(
        lines=np.concatenate([x.lines for x in whole]),
        lines_end=_ends([len(x.lines) for x in whole]),
        numbers=_pairs(numbers),
        numbers_end=_ends([len(x) for x in numbers]),
        planes=_pairs(planes),
        planes_end=_ends([len(x) for x in planes]),
        out=np.array([x.out for x in whole], np.int64),
        registers=max(x.registers for x in whole),
        reads_past=any(x.reads_past for x in whole),
    )


def _ends(lengths: Sequence[int]) -> Any:
    return np.cumsum(lengths, dtype=np.int64)


def _pairs(of_each: Sequence[Sequence[tuple[int, int]]]) -> Any:
    return np.array([x for some in of_each for x in some], np.int64).reshape(-1, 2)


class _Registers:
    """Which register each value of a program is in; those that are read no more serve again."""

    def __init__(self, program: Program) -> None:
        self.inputs = len(program.inputs)
        self.count = len(GIVEN)
        self.at: dict[int, int] = {}  # by its place in the program's list
        self.free: list[int] = []
        for i, e in enumerate(program.inputs):
            self.at[i] = GIVEN[e] if e in GIVEN else self._new()
        self.last = {a: number for number, (_, args) in enumerate(program.steps) for a in args}
        self.last[program.out] = len(program.steps)

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def of_step(self, number: int, args: tuple[int, ...]) -> list[int]:
        """The registers of a step's result and of four arguments, 0 for those that it lacks."""
        # Taken before any is given back: a step never fills what it reads.
        result = self.free.pop() if self.free else self._new()
        self.at[self.inputs + number] = result
        # Inputs stay where they are: many of them serve every task.
        read_last = {a for a in args if a >= self.inputs and self.last[a] == number}
        self.free += sorted(self.at[a] for a in read_last)
        return [result, *(self.at[a] for a in args), *[0] * (4 - len(args))]


@cache
def operations() -> dict[Run, int]:
    """The interpreter's operation for each function that programs are made of."""
    from metaloss.kernels.losses.primitives import arithmetic

    operations: dict[Run, int] = {
        torch.addcmul: arithmetic.ADD_PRODUCT,
        subtract_product: arithmetic.SUBTRACT_PRODUCT,
    }
    for name, (value, *slopes) in _by_primitive().items():
        row = PRIMITIVES[name]
        operations |= dict.fromkeys([run for run in (row.run, row.plain) if run], value)
        # A gradient that is passed on, or is 0 everywhere, is no step.
        slopes_run = [x.run for x in row.derivatives if x is not None and x.run is not None]
        operations.update(zip(slopes_run, slopes, strict=True))
    return operations


def _by_primitive() -> dict[str, tuple[int, ...]]:
    """The operations of every primitive: of its value, and of its derivatives."""
    from metaloss.kernels.losses.primitives import arithmetic as ar
    from metaloss.kernels.losses.primitives import bessel as be
    from metaloss.kernels.losses.primitives import exponentials as ex
    from metaloss.kernels.losses.primitives import magnitudes as ma
    from metaloss.kernels.losses.primitives import selections as se
    from metaloss.kernels.losses.primitives import sigmoids as si
    from metaloss.kernels.losses.primitives import trigonometric as tr

    return {
        "neg": (ar.NEGATE,),
        "add": (ar.ADD,),
        "sub": (ar.SUBTRACT,),
        "mul": (ar.MULTIPLY, ar.MULTIPLY, ar.MULTIPLY),
        "div": (ar.DIVIDE, ar.DIVIDE, ar.DIVIDE_B),
        "pow": (ex.POWER, ex.POWER_A, ex.POWER_B),
        "quotient": (ar.QUOTIENT, ar.QUOTIENT, ar.QUOTIENT_B),
        "aq": (ar.ANALYTIC_QUOTIENT, ar.ANALYTIC_QUOTIENT, ar.ANALYTIC_QUOTIENT_B),
        "max": (se.MAXIMUM, se.MAXIMUM_A, se.MAXIMUM_A),
        "min": (se.MINIMUM, se.MAXIMUM_A, se.MAXIMUM_A),
        "clip": (se.CLIP, se.CLIP_A, se.CLIP_B, se.CLIP_C),
        "exp": (ex.EXP, ar.MULTIPLY),
        "expm1": (ex.EXPM1, ex.EXPM1_A),
        "exact_log": (ex.LOG, ar.DIVIDE),
        "ln": (ex.PROTECTED_LOG, ex.PROTECTED_LOG_A),
        "log10": (ex.PROTECTED_LOG10, ex.PROTECTED_LOG10_A),
        "log_clamp": (ex.HELD_LOG, ex.HELD_LOG_A),
        "sqrt": (ma.ROOT, ma.ROOT_A),
        "sqrt_clamp": (ma.HELD_ROOT, ma.HELD_ROOT_A),
        "square": (ma.SQUARE, ma.SQUARE_A),
        "abs": (ma.ABSOLUTE, ma.ABSOLUTE_A),
        "sign": (ma.SIGN,),
        "relu": (ma.RELU, ma.RELU_A),
        "nrelu": (ma.NEGATIVE_RELU, ma.NEGATIVE_RELU_A),
        "sigmoid": (si.SIGMOID, si.SIGMOID_A),
        "dsigmoid": (si.SIGMOID_SLOPE, si.SIGMOID_SLOPE_A),
        "softplus": (si.SOFTPLUS, si.SOFTPLUS_A),
        "softsign": (si.SOFTSIGN, si.SOFTSIGN_A),
        "deriv_soft": (si.SOFT_SLOPE, si.SOFT_SLOPE_A),
        "tanh": (si.TANH, si.TANH_A),
        "dtanh": (si.TANH_SLOPE, si.TANH_SLOPE_A),
        "erf": (si.ERF, si.ERF_A),
        "erfc": (si.ERFC, si.ERF_A),
        "sin": (tr.SIN, tr.SIN_A),
        "cos": (tr.COS, tr.COS_A),
        "sinh": (tr.SINH, tr.SINH_A),
        "asinh": (tr.ASINH, tr.ASINH_A),
        "atan": (tr.ATAN, tr.ATAN_A),
        "inverse": (ar.INVERSE, ar.INVERSE_A),
        "i0": (be.I0, be.I0_A),
        "i0e": (be.SCALED_I0, be.SCALED_I0_A),
        "i1": (be.I1, be.I1_A),
        "i1e": (be.SCALED_I1, be.SCALED_I1_A),
    }
