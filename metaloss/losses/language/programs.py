"""Losses compiled to flat lists of tensor operations.

One list for the value, one for the gradient by reverse sweep.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from metaloss.losses.clock import DEFAULT_LOGN, HALFWAY
from metaloss.losses.costs import image_costs
from metaloss.losses.language.canonical import canonical
from metaloss.losses.language.expression import (
    CLASS_TERMINALS,
    CLOCK_TERMINALS,
    LOGP,
    ONE,
    PAST,
    ZERO,
    Expression,
    P,
)
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.past import no_past
from metaloss.losses.prior import class_terminals

Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Program:
    """Steps that each add one value to a list, which begins with the inputs.

    Attributes:
        inputs: `LOGP`, `P`, `PAST`, and trees that depend on none of them: those are computed once
            for all steps of training.
        steps: a function and the places in the list of its arguments.
        out: the place of the result.
        sign: of the result.
    """

    inputs: tuple[Expression, ...]
    steps: tuple[tuple[Run, tuple[int, ...]], ...]
    out: int
    sign: int = 1


# Cached, because every binding asks for the programs of all its formulas again.
@lru_cache(maxsize=1 << 11)
def value_program(e: Expression) -> Program:
    """The program that computes the expression's value."""
    tape = _Tape()
    return tape.program(tape.forward(canonical(e)))


@lru_cache(maxsize=1 << 11)
def gradient_program(e: Expression) -> Program:
    """The program of ∂e/∂logp, with p = exp(logp).

    It computes no more than a derivative needs.
    """
    tape = _Tape(plain=True)
    tape.forward(canonical(e))
    return tape.program(*tape.backward())


@lru_cache(maxsize=1 << 10)
def whole_program(e: Expression) -> Program:
    """The program of the expression from terminals and constants alone.

    It serves one loss, not many steps on one target.
    """
    tape = _Tape(whole=True)
    return tape.program(tape.forward(canonical(e)))


@lru_cache(maxsize=1 << 10)
def whole_gradient_program(e: Expression) -> Program:
    """The program of ∂e/∂logp, but for the program's sign, from terminals and constants alone."""
    tape = _Tape(plain=True, whole=True)
    tape.forward(canonical(e))
    return tape.program(*tape.backward())


@lru_cache(maxsize=1 << 10)
def named_program(e: Expression) -> Program:
    """The program of an expression in which names stand for numbers: nothing is folded."""
    tape = _Tape(whole=True)
    return tape.program(tape.forward(e))


@lru_cache(maxsize=1 << 10)
def named_gradient_program(e: Expression) -> Program:
    """The program of ∂e/∂logp, but for the program's sign, of such an expression."""
    tape = _Tape(plain=True, whole=True)
    tape.forward(e)
    return tape.program(*tape.backward())


def evaluate(
    program: Program,
    y: Tensor,
    p: Tensor,
    logp: Tensor,
    classes: int | None = None,
    seen: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """What a whole program gives, by class [... C]; plain enough for `torch.compile` and
    `torch.export`.

    Args:
        program: what `whole_program` gave.
        y: targets [... C].
        p: probabilities [... C].
        logp: their logarithms [... C].
        classes: what C stands for; the length of the last axis where None.
        seen: what `class_terminals` and `image_costs` gave, the clock's `t` and `logn`, and `past`;
            classes are even, all mistakes cost alike, the clock is the default, and nothing was
            predicted before, where it does not say. Also what names stand for, where the program
            has some.
    """
    C = y.shape[-1] if classes is None else classes
    known = {"y": y, "p": p, "logp": logp, **(seen or {})}
    # Only where they are read: a graph that is exported should hold no step for nothing.
    missing = {e.head for e in program.inputs} - known.keys()
    if not missing.isdisjoint(CLASS_TERMINALS):
        known.update({name: x[:1] for name, x in class_terminals(y.new_ones(C)).items()})
    if "cost" in missing:
        known["cost"] = image_costs(y, None)
    if not missing.isdisjoint(CLOCK_TERMINALS):
        known.update(t=y.new_tensor(HALFWAY), logn=y.new_tensor(DEFAULT_LOGN))
    if PAST.head in missing:
        known[PAST.head] = no_past(y, C)
    values = [
        known[e.head]
        if e.head in known
        else y.new_full((), C)
        if e.head == "C"
        else _number(e.value, y)
        for e in program.inputs
    ]
    for run, args in program.steps:
        values.append(run(*[values[a] for a in args]))
    return values[program.out].expand(logp.shape)


def _number(value: float, like: Tensor) -> Tensor:
    """A constant; infinite where the type cannot hold it, as arithmetic would have it."""
    # `new_full` raises an error where the type cannot hold a number; a conversion does not.
    return like.new_full((), value, dtype=torch.float64).to(like.dtype)


def subtract_product(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a - b·c."""
    return torch.addcmul(a, b, c, value=-1)


class _Tape:
    """Writes a program; equal steps are written once."""

    def __init__(self, plain: bool = False, whole: bool = False) -> None:
        self.plain = plain
        self.whole = whole
        self.lines: list[Expression | tuple[Run, tuple[int, ...]]] = []
        self.known: dict[object, int] = {}
        self.nodes: dict[Expression, int] = {}  # those that depend on the logits, arguments first

    def _write(self, line: Expression | tuple[Run, tuple[int, ...]]) -> int:
        if line not in self.known:
            self.known[line] = len(self.lines)
            self.lines.append(line)
        return self.known[line]

    def step(self, run: Run, *args: int) -> int:
        """Write a step, and return the place of its result in the list."""
        # The reverse sweep begins with a gradient of 1: products with it are left out.
        one = self.known.get(ONE)
        if run is torch.mul and one in args:
            return args[1] if args[0] == one else args[0]
        return self._write((run, args))

    def forward(self, e: Expression) -> int:
        """The place of an expression's value."""
        # What no output changes is an input, which is computed once for all steps of training.
        if not e.args or not (e.reads_outputs or self.whole):
            at = self._write(e)
        else:
            row = PRIMITIVES[e.head]
            at = self.step(
                (self.plain and row.plain) or row.run, *[self.forward(a) for a in e.args]
            )
        if e.varies:
            self.nodes.setdefault(e, at)
        return at

    def backward(self) -> tuple[int, int]:
        """The place and the sign of the gradient of the last expression given to `forward`."""
        # Arguments come first, so in reverse a node's gradient is whole when its turn comes.
        nodes = list(self.nodes.items())
        if not nodes:
            return self._write(ZERO), 1
        grads = {nodes[-1][0]: (self._write(ONE), 1)}
        for e, place in reversed(nodes):
            if e.args and e in grads:
                self._add_derivatives(e, place, grads)
        return self._through_exp(grads.get(LOGP), grads.get(P))

    def _add_derivatives(
        self, e: Expression, place: int, grads: dict[Expression, tuple[int, int]]
    ) -> None:
        """Add what a node's gradient contributes to those of its arguments."""
        at, sign = grads[e]
        places = {
            "g": at,
            "o": place,
            **{x: self.forward(a) for x, a in zip("abc", e.args, strict=False)},
        }
        for a, derivative in zip(e.args, PRIMITIVES[e.head].derivatives, strict=True):
            if derivative is None or not a.varies:
                continue
            # A gradient that is passed on needs no step.
            part = (
                at
                if derivative.run is None
                else self.step(derivative.run, *[places[x] for x in derivative.needs])
            )
            if a not in grads:
                grads[a] = part, sign * derivative.sign
            else:
                # Signs are kept apart: parts of unequal sign are subtracted, without a step for it.
                old, old_sign = grads[a]
                grads[a] = (
                    self.step(
                        torch.add if old_sign == sign * derivative.sign else torch.sub, old, part
                    ),
                    old_sign,
                )

    def _through_exp(
        self, logp: tuple[int, int] | None, p: tuple[int, int] | None
    ) -> tuple[int, int]:
        """∂/∂logp + p ∂/∂p."""
        if p is None:
            return logp or (self._write(ZERO), 1)
        if logp is None:
            return self.step(torch.mul, p[0], self._write(P)), p[1]
        run = torch.addcmul if logp[1] == p[1] else subtract_product
        return self.step(run, logp[0], p[0], self._write(P)), logp[1]

    def program(self, out: int, sign: int = 1) -> Program:
        """What is needed for the value at `out`, inputs first."""
        # Only what leads to the result: a gradient seldom reads all values of the forward sweep.
        needed = set()
        stack = [out]
        while stack:
            at = stack.pop()
            if at not in needed:
                needed.add(at)
                line = self.lines[at]
                stack += line[1] if isinstance(line, tuple) else ()
        # Inputs first (False sorts before True), then steps as they were written.
        order = sorted(needed, key=lambda at: (isinstance(self.lines[at], tuple), at))
        place = {at: i for i, at in enumerate(order)}
        lines = [self.lines[at] for at in order]
        steps = tuple(
            (line[0], tuple(place[a] for a in line[1])) for line in lines if isinstance(line, tuple)
        )
        return Program(
            tuple(x for x in lines if isinstance(x, Expression)), steps, place[out], sign
        )
