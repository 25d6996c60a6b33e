"""Loss functions as small graphs: the search space of Morgan 2024, with the probabilities of its
code.

Four inputs, four hidden nodes and a root, each node an operation of one or two others. A node that
the root does not depend on is inactive: it is kept, and may be connected again. A factor before the
whole is ours: graphs have no constants, and at one learning rate a loss is no better than its
scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._filters import Filters
from metaloss.genomes._symbolic import RANDOM, Symbolic, parts, seed
from metaloss.losses.language.expression import LOGP, Expression, P, Y, call, constant
from metaloss.losses.language.primitives import MORGAN_BINARY, MORGAN_UNARY

__all__ = ["Graph"]

# An operation and two arguments; one that takes a single argument ignores the second.
Node = tuple[int, int, int]
Nodes = tuple[Node, ...]
Row = tuple[Nodes, float]  # and the factor

Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]

INPUTS = (Y, P, constant(1), constant(-1))
OPERATIONS = MORGAN_UNARY + MORGAN_BINARY
HIDDEN = 4
ROOT = len(INPUTS) + HIDDEN
UNARY = range(len(MORGAN_UNARY))
BINARY = range(len(MORGAN_UNARY), len(OPERATIONS))

# How often, as in the published code.
HIDDEN_UNARY = 0.7
ROOT_UNARY = 0.2
# else between one argument and two
CHANGE_OPERATION = 0.7
CHANGE_CONNECTION = 0.15
SWAP = 0.2  # of the changed connections of a binary operation
DRAWS = 2500  # of a random graph
ATTEMPTS = 100  # at a child

RESCALED = 0.2  # of the children (ours)

# Fills the hidden nodes that a loss does not need; nothing reads it.
_UNUSED: Node = (OPERATIONS.index("neg"), 0, 1)
# What a loss may be written with, and the protected form that graphs have.
_SAME = {"div": "quotient"}


@dataclass(frozen=True)
class Graphs(Population):
    """Candidates that are graphs, hidden nodes first, the root last.

    Attributes:
        operation: of each node, a place in `OPERATIONS`.
        arguments: of each node; inputs come first, then hidden nodes.
        scale: the factor.
    """

    operation: Int[Tensor, "P 5"]
    arguments: Int[Tensor, "P 5 2"]
    scale: Float[Tensor, " P"]

    @classmethod
    def of(cls, rows: list[Row]) -> Self:
        """These graphs, one a row."""
        table = torch.tensor([nodes for nodes, _ in rows], dtype=torch.int64).reshape(
            -1, HIDDEN + 1, 3
        )
        return cls(
            table[..., 0],
            table[..., 1:],
            torch.tensor([scale for _, scale in rows], dtype=torch.float64),
        )

    def rows(self) -> list[Row]:
        """The graphs one by one."""
        table = torch.cat([self.operation[..., None], self.arguments], -1).tolist()
        nodes = [tuple((op, first, second) for op, first, second in row) for row in table]
        return list(zip(nodes, self.scale.tolist(), strict=True))


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Graph(Symbolic):
    """Where the search starts and what it leaves out; all else but the factor is as published.

    Attributes:
        filters: which candidates are not worth a training. A curve may span more than a tree's: a
            pole, as Baikal has, is the way to something steep that graphs have, and the factor
            makes up for it.
        scales: the factors there are; 1 alone gives the published space.
    """

    filters: Filters = Field(default_factory=lambda: Filters(span=(1e-4, 1e8)))
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    usual: ClassVar[Mapping[str, Any]] = {
        "strategy": {"kind": "regularized"},
        "generations": 200,
        "tasks_per_generation": 16,
    }
    populations: ClassVar[tuple[type, ...]] = (Graphs,)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in parts(self.start):
            if name != RANDOM:
                encode(seed(name), name)
        return self

    def sample(self, n: int, key: Stream) -> Graphs:
        """The losses that `start` names, then random graphs.

        Mutants of the losses, where `start` asks for no random ones.
        """
        seeds = [encode(e).rows()[0] for e in self.seeds]
        return Graphs.of(
            self.started(seeds, n, key, lambda _, rng: self._random(rng), self._mutant)
        )

    def mutate(self, parents: Graphs, strength: Float[Tensor, "P ..."], key: Stream) -> Graphs:
        """Children that differ in one active node or in the factor; there is no strength to it."""
        return Graphs.of(
            [self._mutant(row, key.at(i).python_rng()) for i, row in enumerate(parents.rows())]
        )

    def crossover(self, a: Graphs, b: Graphs, key: Stream) -> Graphs:
        """Children that take each node, and the factor, from either parent.

        The operator is ours: none was published.
        """
        pairs = zip(a.rows(), b.rows(), strict=True)
        return Graphs.of(
            [_cross(one, other, key.at(i).python_rng()) for i, (one, other) in enumerate(pairs)]
        )

    def expressions(self, population: Graphs) -> list[Expression]:
        """What the graphs compute."""
        return [decode(*row) for row in population.rows()]

    def _random(self, rng: Random) -> Row:
        return _random(rng), rng.choice(self.scales)

    def _mutant(self, parent: Row, rng: Random) -> Row:
        nodes, scale = parent
        others = [x for x in self.scales if x != scale]
        if others and rng.random() < RESCALED:
            return nodes, rng.choice(others)
        return _mutant(nodes, rng), scale


@lru_cache(maxsize=1 << 11)
def decode(nodes: Nodes, scale: float = 1.0) -> Expression:
    """What a graph without circles computes, times a factor."""

    def walk(at: int) -> Expression:
        if at < len(INPUTS):
            return INPUTS[at]
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
            done[at] = at < len(INPUTS)
            done[at] = done[at] or all(visit(a) for a in arguments(nodes, at))
        # Still False where it is met again: then the node depends on itself.
        return done[at]

    return set(done) if visit(ROOT) else None


def decodes(nodes: Nodes) -> bool:
    """Whether a graph is free of circles and reads both the target and the prediction."""
    found = active(nodes)
    return found is not None and {INPUTS.index(Y), INPUTS.index(P)} <= found


# --- from a loss ---


def encode(e: Expression, name: str = "") -> Graphs:
    """A loss as a graph; equal parts of it share a node.

    A logarithm or a quotient takes its protected form, which differs by ε = 1e-7. A constant that
    the whole is multiplied by is the factor.

    Args:
        e: the loss, summed over classes.
        name: what to call it in an error.

    Raises:
        SettingsError: it holds what graphs do not, or too much.
    """
    nodes: dict[Expression, Node] = {}
    scale, bare = _factored(e)
    try:
        _place(_rewritten(bare), nodes)
        if len(nodes) > HIDDEN + 1:
            raise SettingsError(f"it takes {len(nodes)} operations, and a graph has {HIDDEN + 1}")
        *hidden, root = nodes.values() or [_UNUSED]
        found = (*hidden, *[_UNUSED] * (HIDDEN - len(hidden)), root)
        if not nodes or not decodes(found):
            raise SettingsError("a graph reads y and a prediction")
    except SettingsError as error:
        raise SettingsError(f"{name or e} is no graph: {error}") from None
    return Graphs.of([(found, scale)])


def _factored(e: Expression) -> tuple[float, Expression]:
    """A positive constant before the whole, 1 where there is none, and the rest."""
    if e.head in ("neg", "mul"):
        first, *others = e.args
        # Factors are positive: a sign belongs to the graph.
        if others and first.is_constant and first.value > 0:
            return first.value, others[0]
        scale, rest = _factored(first)
        return scale, call(e.head, rest, *others)
    return 1.0, e


def _rewritten(e: Expression) -> Expression:
    """In the operations that graphs have."""
    if e == LOGP:
        return call("ln", P)
    if not e.args:
        return e
    first, *others = map(_rewritten, e.args)
    if e.head == "pow" and others == [constant(2)]:
        return call("square", first)
    return call(_SAME.get(e.head, e.head), first, *others)


def _place(e: Expression, nodes: dict[Expression, Node]) -> int:
    """The number of the node or input that an expression is, after those of its arguments."""
    if e in INPUTS:
        return INPUTS.index(e)
    if not e.args:
        raise SettingsError(f"its inputs are {', '.join(map(str, INPUTS))}, not {e}")
    if e.head not in OPERATIONS:
        raise SettingsError(f"{e.head} is not among its operations")
    if e not in nodes:
        first, *others = [_place(a, nodes) for a in e.args]
        # A second argument that is ignored must still be a place.
        second = others[0] if others else INPUTS.index(P)
        nodes[e] = (OPERATIONS.index(e.head), first, second)
    return len(INPUTS) + list(nodes).index(e)


# --- by chance ---


def _random(rng: Random) -> Nodes:
    """A random graph that decodes."""
    for _ in range(DRAWS):
        if decodes(found := _draw(rng)):
            return found
    return encode(call("neg", call("mul", Y, call("ln", P)))).rows()[0][0]


def _draw(rng: Random) -> Nodes:
    """Random nodes; the root reads hidden ones alone.

    Nine of ten times the result does not decode.
    """
    hidden = [_node(rng, HIDDEN_UNARY, _others(at)) for at in range(len(INPUTS), ROOT)]
    return (*hidden, _node(rng, ROOT_UNARY, range(len(INPUTS), ROOT)))


def _node(rng: Random, unary: float, allowed: "range | list[int]") -> Node:
    operation = rng.choice(UNARY if rng.random() < unary else BINARY)
    first, second = rng.sample(allowed, 2)
    return operation, first, second


def _others(at: int, *taken: int) -> list[int]:
    """Which places a node may read: any input or hidden node but itself and those already taken."""
    return [i for i in range(ROOT) if i != at and i not in taken]


def _mutant(parent: Nodes, rng: Random) -> Nodes:
    """A child that decodes, or the parent where that does not come about."""
    # Only active nodes: a change of another one would not change the loss.
    places = sorted(at for at in active(parent) or () if at >= len(INPUTS))
    for _ in range(ATTEMPTS):
        at = rng.choice(places)
        row = at - len(INPUTS)
        child = (*parent[:row], _changed(parent[row], at, rng), *parent[row + 1 :])
        if decodes(child):
            return child
    return parent


def _changed(node: Node, at: int, rng: Random) -> Node:
    """A node with another operation, another argument, or another number of them."""
    kind = rng.random()
    if kind < CHANGE_OPERATION:
        operation, *rest = node
        same = UNARY if operation in UNARY else BINARY
        return rng.choice([i for i in same if i != operation]), rest[0], rest[1]
    if kind < CHANGE_OPERATION + CHANGE_CONNECTION:
        return _reconnected(node, at, rng)
    return _regrouped(node, at, rng)


def _reconnected(node: Node, at: int, rng: Random) -> Node:
    operation, first, second = node
    if operation in UNARY:
        return operation, rng.choice(_others(at, first)), second
    if rng.random() < SWAP:
        return operation, second, first
    other = rng.choice(_others(at, first, second))
    return (operation, other, second) if rng.random() < 0.5 else (operation, first, other)


def _regrouped(node: Node, at: int, rng: Random) -> Node:
    """One argument more or less, at either place."""
    operation, first, second = node
    keeps = rng.random() < 0.5
    if operation in BINARY:
        return rng.choice(UNARY), *((first, second) if keeps else (second, first))
    other = rng.choice(_others(at, first))
    return rng.choice(BINARY), *((first, other) if keeps else (other, first))


def _cross(a: Row, b: Row, rng: Random) -> Row:
    """A child that decodes, or the first parent where that does not come about."""
    for _ in range(ATTEMPTS):
        child = tuple(rng.choice(pair) for pair in zip(a[0], b[0], strict=True))
        if decodes(child):
            return child, rng.choice((a[1], b[1]))
    return a
