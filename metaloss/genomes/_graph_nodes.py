"""Graphs as rows of numbers, and what they compute."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.losses.language.expression import LOGN, PAST, Expression, P, T, Y, call, constant
from metaloss.losses.language.primitives import MORGAN_BINARY, MORGAN_UNARY

# An operation and two arguments; one that takes a single argument ignores the second.
Node = tuple[int, int, int]
Nodes = tuple[Node, ...]
Row = tuple[Nodes, float]  # and the factor

INPUTS = (Y, P, constant(1), constant(-1))
OPERATIONS = MORGAN_UNARY + MORGAN_BINARY
HIDDEN = 4
ROOT = len(INPUTS) + HIDDEN
PLACES = range(ROOT)  # that a node may read: inputs and hidden nodes
# Behind the root: a graph's numbers mean the same whatever else it may see.
CLOCK_PLACES = (ROOT + 1, ROOT + 2)
PAST_PLACE = ROOT + 3
LEAVES = {
    **dict(enumerate(INPUTS)),
    **dict(zip(CLOCK_PLACES, (T, LOGN), strict=True)),
    PAST_PLACE: PAST,
}
UNARY = range(len(MORGAN_UNARY))
BINARY = range(len(MORGAN_UNARY), len(OPERATIONS))

# Fills the hidden nodes that a loss does not need; nothing reads it.
UNUSED: Node = (OPERATIONS.index("neg"), 0, 1)


@dataclass(frozen=True)
class Graphs(Population):
    """Candidates that are graphs, hidden nodes first, the root last.

    Attributes:
        operation: of each node, a place in `OPERATIONS`.
        arguments: of each node; inputs come first, then hidden nodes, and last the
            clock and the past.
        scale: the factor.
    """

    operation: Int[Tensor, "P 5"]
    arguments: Int[Tensor, "P 5 2"]
    scale: Float[Tensor, " P"]

    @classmethod
    def of(cls, rows: list[Row]) -> Self:
        """A population of these graphs, in this order."""
        table = torch.tensor([nodes for nodes, _ in rows], dtype=torch.int64).reshape(
            -1, HIDDEN + 1, 3
        )
        return cls(
            table[..., 0],
            table[..., 1:],
            torch.tensor([scale for _, scale in rows], dtype=torch.float64),
        )

    def rows(self) -> list[Row]:
        """The graphs as tuples of nodes, each with its factor."""
        table = torch.cat([self.operation[..., None], self.arguments], -1).tolist()
        nodes = [tuple((op, first, second) for op, first, second in row) for row in table]
        return list(zip(nodes, self.scale.tolist(), strict=True))


@dataclass(frozen=True)
class AdjustedGraphs(Graphs):
    """Graphs beside which τ of logit adjustment and the power of class weights evolve.

    Attributes:
        adjustment: the genes of both.
    """

    adjustment: Float[Tensor, "P 2"]


@lru_cache(maxsize=1 << 11)
def decode(nodes: Nodes, scale: float = 1.0) -> Expression:
    """What a graph without circles computes, times a factor."""

    def walk(at: int) -> Expression:
        if at in LEAVES:
            return LEAVES[at]
        return call(OPERATIONS[nodes[at - len(INPUTS)][0]], *map(walk, arguments(nodes, at)))

    return walk(ROOT) if scale == 1 else call("mul", constant(scale), walk(ROOT))


def arguments(nodes: Nodes, at: int) -> tuple[int, ...]:
    """What a node is applied to."""
    op, first, second = nodes[at - len(INPUTS)]
    return (first,) if op in UNARY else (first, second)


def active(nodes: Nodes) -> set[int] | None:
    """The root and what it depends on, inputs too; None where something depends on itself."""
    done: dict[int, bool] = {}  # False while what it depends on is looked at

    def visit(at: int) -> bool:
        if at not in done:
            done[at] = at in LEAVES
            done[at] = done[at] or all(visit(a) for a in arguments(nodes, at))
        # Still False where it is met again: then the node depends on itself.
        return done[at]

    return set(done) if visit(ROOT) else None


def decodes(nodes: Nodes) -> bool:
    """Whether a graph is free of circles and reads both the target and the prediction."""
    places = active(nodes)
    return places is not None and {INPUTS.index(Y), INPUTS.index(P)} <= places
