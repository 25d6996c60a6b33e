"""Losses as graphs."""

from metaloss.errors import SettingsError
from metaloss.genomes._graph_nodes import (
    HIDDEN,
    INPUTS,
    LEAVES,
    OPERATIONS,
    UNUSED,
    Graphs,
    Node,
    decodes,
)
from metaloss.losses.language.expression import LOGP, Expression, P, call, constant

# What a loss may be written with, and the protected form that graphs have.
_NUMBERS = {e: at for at, e in LEAVES.items()}
_SAME = {"div": "quotient"}


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
        *hidden, root = nodes.values() or [UNUSED]
        graph = (*hidden, *[UNUSED] * (HIDDEN - len(hidden)), root)
        if not nodes or not decodes(graph):
            raise SettingsError("a graph reads y and a prediction")
    except SettingsError as error:
        raise SettingsError(f"{name or e} is no graph: {error}") from None
    return Graphs.of([(graph, scale)])


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
    if e in _NUMBERS:
        return _NUMBERS[e]
    if not e.args:
        raise SettingsError(f"its inputs are {', '.join(map(str, _NUMBERS))}, not {e}")
    if e.head not in OPERATIONS:
        raise SettingsError(f"{e.head} is not among its operations")
    if e not in nodes:
        first, *others = [_place(a, nodes) for a in e.args]
        # A second argument that is ignored must still be a place.
        second = others[0] if others else INPUTS.index(P)
        nodes[e] = (OPERATIONS.index(e.head), first, second)
    return len(INPUTS) + list(nodes).index(e)
