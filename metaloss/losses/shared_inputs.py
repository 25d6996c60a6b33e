"""What formulas read that no output of a network changes, computed once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import Clock, TrainingTargets, chosen_weights, images
from metaloss.losses.language.expression import (
    CLASS_TERMINALS,
    COST,
    LABEL_TERMINALS,
    LOGN,
    Expression,
    T,
)
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.language.programs import gradient_program, value_program

PLANES = CLASS_TERMINALS | LABEL_TERMINALS  # terminals that have a number for every class or image


def is_number(e: Expression) -> bool:
    """Whether an expression that reads no output is one number, for all classes and images."""
    return e.terminals.isdisjoint(PLANES)


@dataclass(frozen=True)
class SharedInputs:
    """What depends on targets, classes and constants alone, once for all formulas.

    Attributes:
        planes: what depends on the targets, the costs or the classes' shares.
        rows: which of the planes an expression is.
        numbers: what does not.
        weight: of the images.
        by_clock: what depends on how far the training is, too, and is no plane or number yet.
    """

    planes: Float[Tensor, "S T C B"]  # class by class: as classifiers lay out their logits
    rows: dict[Expression, int]
    numbers: dict[Expression, Tensor]
    weight: Float[Tensor, "T B"] | None = None
    by_clock: tuple[Expression, ...] = ()

    @classmethod
    def of(cls, formulas: Sequence[Formula], targets: TrainingTargets) -> Self:
        """What some formulas read of these targets."""
        target = targets.target
        programs = [f(x.expression) for x in formulas for f in (value_program, gradient_program)]
        # Values and gradients share what they need of the targets: it is computed once for both.
        read = dict.fromkeys(
            e for program in programs for e in program.inputs if not e.reads_outputs
        )
        read.update(dict.fromkeys(e for x in formulas for e in x.expressions[1:]))
        wanted = dict.fromkeys(part for e in read for part in _parts_without_clock(e))
        known = {Expression(name): x[:, None] for name, x in targets.shares.items()}
        if any(COST.head in e.terminals for e in wanted):
            known[COST] = targets.cost
        for e in wanted:
            _evaluate(e, target, known)
        ordered = [e for e in known if e in wanted]
        # What depends on targets or classes is a plane of numbers; all else stays a single number.
        planes = [e for e in ordered if not is_number(e)]
        # Never empty: the shape [T C B] is read from it.
        stack = (
            torch.stack([known[e].expand_as(target) for e in planes]) if planes else target[None]
        )
        numbers = {e: known[e] for e in ordered if is_number(e)}
        return cls(
            stack.mT.contiguous(),
            {e: i for i, e in enumerate(planes)},
            numbers,
            targets.weight,
            tuple(e for e in read if e.reads_clock),
        )

    def at(self, clock: Clock) -> dict[Expression, Tensor]:
        """Every value by its expression, [T C B] or one number."""
        planes = self.planes.unbind(0)
        known = {**self.numbers, **{e: planes[row] for e, row in self.rows.items()}}
        if self.by_clock:
            known[T], known[LOGN] = clock.to(self.planes)
        for e in self.by_clock:
            _evaluate(e, self.planes, known)
        return known

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The same for some of each task's images."""
        return replace(
            self,
            planes=images(self.planes.mT, index).mT,
            weight=chosen_weights(self.weight, index),
        )


def _parts_without_clock(e: Expression) -> Iterator[Expression]:
    """The largest parts of an expression that do not depend on how far the training is."""
    if not e.reads_clock:
        yield e
    for a in e.args if e.reads_clock else ():
        yield from _parts_without_clock(a)


def _evaluate(e: Expression, target: Tensor, known: dict[Expression, Tensor]) -> Tensor:
    """An expression of targets, C and constants; `known` is filled with all that lie within it."""
    if e not in known:
        if not e.terminals:
            known[e] = _constant(e, target.dtype).to(target.device)
        elif e.head == "C":
            known[e] = target.new_tensor(target.shape[-1])
        elif e.head == "y":
            known[e] = target
        else:
            known[e] = PRIMITIVES[e.head].run(*[_evaluate(a, target, known) for a in e.args])
    return known[e]


# Cached, because every binding asks for all constants of its formulas again.
@lru_cache(maxsize=1 << 12)
def _constant(e: Expression, dtype: torch.dtype) -> Tensor:
    """The value of an expression of constants."""
    if e.is_constant:
        return torch.tensor(e.value, dtype=dtype)
    return PRIMITIVES[e.head].run(*[_constant(a, dtype) for a in e.args])
