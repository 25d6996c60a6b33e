"""Random graphs, mutants and children of two, with the probabilities of the published code."""

from collections.abc import Sequence
from random import Random

from metaloss.genomes._graph_encoding import encode
from metaloss.genomes._graph_nodes import (
    BINARY,
    INPUTS,
    LEAVES,
    PLACES,
    ROOT,
    UNARY,
    Node,
    Nodes,
    Row,
    active,
    decodes,
)
from metaloss.losses.language.expression import P, Y, call

Places = Sequence[int]

# How often, as in the published code.
HIDDEN_UNARY = 0.7
ROOT_UNARY = 0.2
# else between one argument and two
CHANGE_OPERATION = 0.7
CHANGE_CONNECTION = 0.15
SWAP = 0.2  # of the changed connections of a binary operation
DRAWS = 2500  # of a random graph
ATTEMPTS = 100  # at a child


def random_graph(rng: Random, places: Places = PLACES) -> Nodes:
    """A random graph that decodes, its nodes reading any of these places."""
    for _ in range(DRAWS):
        if decodes(graph := draw(rng, places)):
            return graph
    return encode(call("neg", call("mul", Y, call("ln", P)))).rows()[0][0]


def draw(rng: Random, places: Places = PLACES) -> Nodes:
    """Draw nodes at random; the root reads hidden ones alone.

    Nine of ten times the result does not decode.
    """
    hidden = [_node(rng, HIDDEN_UNARY, _others(places, at)) for at in range(len(INPUTS), ROOT)]
    return (*hidden, _node(rng, ROOT_UNARY, range(len(INPUTS), ROOT)))


def _node(rng: Random, unary: float, allowed: "range | list[int]") -> Node:
    operation = rng.choice(UNARY if rng.random() < unary else BINARY)
    first, second = rng.sample(allowed, 2)
    return operation, first, second


def _others(places: Places, at: int, *taken: int) -> list[int]:
    """Which places a node may read: all but itself and those already taken."""
    return [i for i in places if i != at and i not in taken]


def mutate(parent: Nodes, rng: Random, places: Places = PLACES) -> Nodes:
    """A child that decodes, or the parent where that does not come about."""
    # Only active nodes: a change of another one would not change the loss.
    nodes = sorted(at for at in active(parent) or () if at not in LEAVES)
    for _ in range(ATTEMPTS):
        at = rng.choice(nodes)
        row = at - len(INPUTS)
        child = (*parent[:row], change(parent[row], at, rng, places), *parent[row + 1 :])
        if decodes(child):
            return child
    return parent


def change(node: Node, at: int, rng: Random, places: Places = PLACES) -> Node:
    """A node with another operation, another argument, or another number of them."""
    kind = rng.random()
    if kind < CHANGE_OPERATION:
        operation, *rest = node
        same = UNARY if operation in UNARY else BINARY
        return rng.choice([i for i in same if i != operation]), rest[0], rest[1]
    if kind < CHANGE_OPERATION + CHANGE_CONNECTION:
        return _reconnected(node, at, rng, places)
    return _regrouped(node, at, rng, places)


def _reconnected(node: Node, at: int, rng: Random, places: Places) -> Node:
    operation, first, second = node
    if operation in UNARY:
        return operation, rng.choice(_others(places, at, first)), second
    if rng.random() < SWAP:
        return operation, second, first
    other = rng.choice(_others(places, at, first, second))
    return (operation, other, second) if rng.random() < 0.5 else (operation, first, other)


def _regrouped(node: Node, at: int, rng: Random, places: Places) -> Node:
    """One argument more or less, at either place."""
    operation, first, second = node
    keeps = rng.random() < 0.5
    if operation in BINARY:
        return rng.choice(UNARY), *((first, second) if keeps else (second, first))
    other = rng.choice(_others(places, at, first))
    return rng.choice(BINARY), *((first, other) if keeps else (other, first))


def cross(a: Row, b: Row, rng: Random) -> Row:
    """A child that decodes, or the first parent where that does not come about."""
    for _ in range(ATTEMPTS):
        child = tuple(rng.choice(pair) for pair in zip(a[0], b[0], strict=True))
        if decodes(child):
            return child, rng.choice((a[1], b[1]))
    return a
