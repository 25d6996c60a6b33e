"""The gradients of P formulas: an interpreter of their programs over blocks of logits.

Nothing is compiled for a formula. A step of a program is a line of numbers: an operation, the
register that it fills, and those that it reads. A register holds one number for every class of some
images. Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the
classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels.jit import compiled
from metaloss.kernels.primitives import (
    arithmetic,
    bessel,
    exponentials,
    magnitudes,
    selections,
    sigmoids,
    trigonometric,
)
from metaloss.kernels.softmax import softmax

# Registers that every program is given.
LOGP, P, PAST = range(3)
GIVEN = 3
# From which operation on each file of primitives has its own.
SELECTIONS = selections.OPERATIONS.start
MAGNITUDES = magnitudes.OPERATIONS.start
EXPONENTIALS = exponentials.OPERATIONS.start
SIGMOIDS = sigmoids.OPERATIONS.start
TRIGONOMETRIC = trigonometric.OPERATIONS.start
BESSEL = bessel.OPERATIONS.start


class Programs(NamedTuple):
    """The programs of P formulas, one behind the other.

    Attributes:
        lines: of all: an operation, the register of its result, and four that it reads, of which
            those that it does not need are 0, [L 6].
        lines_end: where each one's lines end, [P].
        numbers: registers that hold one number, and which one, [K 2].
        numbers_end: where each one's numbers end, [P].
        planes: registers that hold a plane of numbers, and which one, [M 2].
        planes_end: where each one's planes end, [P].
        out: the register of each one's result, [P].
        registers: how many the longest one needs.
        reads_past: whether one of them reads the images' past.
    """

    lines: Any
    lines_end: Any
    numbers: Any
    numbers_end: Any
    planes: Any
    planes_end: Any
    out: Any
    registers: int
    reads_past: bool


@compiled
def run_operation(rows, operation, a, b, c, d, result):
    """Fills what an operation gives for its arguments; all are numbers of rows."""
    if operation < SELECTIONS:
        arithmetic.run(rows, operation, a, b, c, result)
    elif operation < MAGNITUDES:
        selections.run(rows, operation, a, b, c, d, result)
    elif operation < EXPONENTIALS:
        magnitudes.run(rows, operation, a, b, c, result)
    elif operation < SIGMOIDS:
        exponentials.run(rows, operation, a, b, c, result)
    elif operation < TRIGONOMETRIC:
        sigmoids.run(rows, operation, a, b, c, result)
    elif operation < BESSEL:
        trigonometric.run(rows, operation, a, b, result)
    else:
        bessel.run(rows, operation, a, b, c, result)


@compiled
def _load(part, whole, at, block, lanes):
    """Fills `block` images of every class of `part` [C·lanes] with those of `whole` [C B]."""
    for c in range(len(whole)):
        for b in range(block):
            part[c * lanes + b] = whole[c, at + b]


@compiled
def _through_softmax(slope, p, lanes):
    """The gradient at log p becomes that at the logits, in place: g - p Σ g, both [C lanes]."""
    total = np.zeros(lanes, np.float32)
    for c in range(len(p)):
        for b in range(lanes):
            total[b] += slope[c, b]
    for c in range(len(p)):
        for b in range(lanes):
            slope[c, b] -= p[c, b] * total[b]


@compiled
def logit_gradient(logits, past, planes, numbers, programs, factor, lanes, gradient):
    """Fills the gradient of P formulas' values with respect to logits.

    Args:
        logits: [N C B].
        past: what each image was predicted to be before, [N C B]; of no length where none is read.
        planes: what depends on targets and classes, [S T C B].
        numbers: what does not, [K].
        programs: `Programs` that give the gradient by log p.
        factor: of each formula's gradient, [P].
        lanes: equals LANES, but is passed at run time on purpose: as a constant, LLVM unrolls these
            loops instead of vectorising them.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    tasks = planes.shape[1]
    # Zeros: what stands behind the last images is computed with, and never stored.
    registers = np.zeros((programs.registers, classes * lanes), np.float32)
    slope = np.empty((classes, lanes), np.float32)
    logp = registers[LOGP].reshape(classes, lanes)
    p = registers[P].reshape(classes, lanes)
    lines = programs.lines
    line = number = plane = 0  # where those of a formula begin
    for i in range(count // tasks):
        for k in range(number, programs.numbers_end[i]):
            registers[programs.numbers[k, 0]] = numbers[programs.numbers[k, 1]]
        out = registers[programs.out[i]].reshape(classes, lanes)
        for t in range(tasks):
            n = i * tasks + t
            for at in range(0, images, lanes):
                block = min(lanes, images - at)
                _load(registers[LOGP], logits[n], at, block, lanes)
                softmax(logp, p, lanes)
                if programs.reads_past:
                    _load(registers[PAST], past[n], at, block, lanes)
                for k in range(plane, programs.planes_end[i]):
                    whole = planes[programs.planes[k, 1], t]
                    _load(registers[programs.planes[k, 0]], whole, at, block, lanes)
                for k in range(line, programs.lines_end[i]):
                    operation, result, a, b, c, d = lines[k]
                    run_operation(registers, operation, a, b, c, d, result)
                # The result may be a register that is read again for the next task.
                slope[:] = out
                _through_softmax(slope, p, lanes)
                for c in range(classes):
                    for b in range(block):
                        gradient[n, c, at + b] = slope[c, b] * factor[i]
        line = programs.lines_end[i]
        number = programs.numbers_end[i]
        plane = programs.planes_end[i]
