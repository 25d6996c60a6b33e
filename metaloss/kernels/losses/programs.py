"""The gradients of P formulas: an interpreter of their programs over blocks of logits.

Nothing is compiled for a formula. A step of a program is a line of numbers: an operation, the
register that it fills, and those that it reads. A register holds one number for every class of some
images. Arrays are C-contiguous and lead with N = P·T classifiers; t = n modulo T is the
classifier's task.
"""

# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np

from metaloss.kernels.functions.softmax import softmax
from metaloss.kernels.jit import compiled
from metaloss.kernels.losses.primitives import (
    arithmetic,
    bessel,
    exponentials,
    magnitudes,
    selections,
    sigmoids,
    trigonometric,
)

LOGP, P, PAST = range(3)  # registers that every program is given
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
def _load(row, whole, at, block, lanes):
    """Fills `block` images of every class of a row [C·lanes] with those of `whole` [C B]."""
    for c in range(len(whole)):
        for b in range(block):
            row[c * lanes + b] = whole[c, at + b]


@compiled
def _unload(part, row):
    """Fills `part` [C lanes] with a row [C·lanes]."""
    for c in range(len(part)):
        for b in range(part.shape[1]):
            part[c, b] = row[c * part.shape[1] + b]


@compiled
def _run_lines(rows, lines, first, end):
    """Makes the steps of one program."""
    for k in range(first, end):
        run_operation(
            rows,
            lines[k, 0],
            lines[k, 2],
            lines[k, 3],
            lines[k, 4],
            lines[k, 5],
            lines[k, 1],
        )


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
        past: what each image was predicted to be before, [N C B]; where no formula reads it,
            anything.
        planes: what depends on targets and classes, [S T C B].
        numbers: what does not, [K].
        programs: `Programs` that give the gradient by log p.
        factor: of each formula's gradient, [P].
        lanes: images for which a step is made at once; a multiple of VECTOR.
        gradient: filled with the gradient, [N C B].
    """
    count, classes, images = logits.shape
    tasks = planes.shape[1]
    # Zeros: what stands behind the last images is computed with, and never stored.
    registers = np.zeros((programs.registers, classes * lanes), np.float32)
    # --- buffers, for `lanes` images at once ---
    buffers = np.zeros((3, classes, lanes), np.float32)
    logp = buffers[0]  # [C lanes], as the next two
    p = buffers[1]
    slope = buffers[2]
    line = number = plane = 0  # where those of a formula begin
    for i in range(count // tasks):
        for k in range(number, programs.numbers_end[i]):
            registers[programs.numbers[k, 0]] = numbers[programs.numbers[k, 1]]
        out = registers[programs.out[i]]
        for t in range(tasks):
            n = i * tasks + t
            for at in range(0, images, lanes):
                block = min(lanes, images - at)
                for c in range(classes):
                    for b in range(block):
                        logp[c, b] = logits[n, c, at + b]
                softmax(logp, p, lanes)
                _load(registers[LOGP], logp, 0, lanes, lanes)
                _load(registers[P], p, 0, lanes, lanes)
                if programs.reads_past:
                    _load(registers[PAST], past[n], at, block, lanes)
                for k in range(plane, programs.planes_end[i]):
                    whole = planes[programs.planes[k, 1], t]
                    _load(registers[programs.planes[k, 0]], whole, at, block, lanes)
                _run_lines(registers, programs.lines, line, programs.lines_end[i])
                _unload(slope, out)
                _through_softmax(slope, p, lanes)
                for c in range(classes):
                    for b in range(block):
                        gradient[n, c, at + b] = slope[c, b] * factor[i]
        line = programs.lines_end[i]
        number = programs.numbers_end[i]
        plane = programs.planes_end[i]
