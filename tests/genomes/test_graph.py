"""Graphs are drawn and varied with the published probabilities and are always readable.

They are the same losses as the expressions that they encode.
"""

from collections import Counter
from random import Random

import pytest
import torch

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes import _graph_variation as variation
from metaloss.genomes._filters import Filters, examine
from metaloss.genomes._graph_encoding import encode
from metaloss.genomes._graph_nodes import (
    BINARY,
    INPUTS,
    OPERATIONS,
    ROOT,
    UNARY,
    Graphs,
    active,
    decode,
    decodes,
)
from metaloss.genomes._symbolic import seed
from metaloss.genomes.graph import Graph
from metaloss.losses import phenotype
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula

N = 2000
NO_STRENGTH = torch.zeros(1, 1)
FIT = [
    "ce",
    "ce_eps",
    "mse",
    "mae",
    "b0",
    "b0_softsign",
    "b1",
    "b2",
    "c0",
    "c1",
    "c1_printed",
    "c2",
    "m0",
    "m1",
    "m2",
]
FIT += ["r0", "r1", "r1_printed", "a0", "a1", "a2", "baikal"]


def number(name):
    return OPERATIONS.index(name)


def nodes(*wanted):
    """A graph of these (operation, arguments ...), the root last; the nodes between are unused."""
    rows = [(number(name), args[0], args[1] if len(args) > 1 else 1) for name, *args in wanted]
    return (*rows[:-1], *[(number("exp"), 2, 3)] * (5 - len(rows)), rows[-1])


CE = nodes(("neg", 0), ("ln", 1), ("mul", 4, 5))


def share(seen, value):
    return seen[value] / seen.total()


def near(found, expected, n=N):
    """Within four standard errors."""
    return abs(found - expected) < 4 * (expected * (1 - expected) / n) ** 0.5


# --- random graphs ---


def drawn(n=N):
    rng = Random(0)
    return [variation.draw(rng) for _ in range(n)]


def test_operations_are_drawn_with_the_published_probabilities():
    found = drawn()
    for row, expected in enumerate([0.7] * 4 + [0.2]):
        assert near(sum(g[row][0] in UNARY for g in found) / N, expected)
    unary = Counter(g[0][0] for g in found if g[0][0] in UNARY)
    assert set(unary) == set(UNARY)
    assert {g[4][0] for g in found if g[4][0] in BINARY} == set(BINARY)


def test_a_node_reads_any_two_others_and_the_root_reads_hidden_ones():
    found = drawn()
    assert all(first != second for g in found for _, first, second in g)
    for row in range(4):
        seen = Counter(g[row][1] for g in found)
        assert set(seen) == set(range(8)) - {row + 4}
        assert all(near(share(seen, i), 1 / 7) for i in seen)
    assert {a for g in found for a in g[4][1:]} == {4, 5, 6, 7}


def test_about_an_eighth_of_the_draws_decode_and_half_of_those_keep_the_published_rule():
    """Published: 11.7 % of the draws and 53 % of those, 6.2 % in all."""
    found = [g for g in drawn(4000) if decodes(g)]
    assert 0.10 < len(found) / 4000 < 0.14
    anything = Filters(span=(0, 1e300), gain=(-1e300, 1e300))
    kept = [g for g in found if examine(decode(g), anything).reason == 0]
    assert 0.5 < len(kept) / len(found) < 0.68
    useful = [g for g in kept if examine(decode(g), Filters()).reason == 0]
    assert 0.03 < len(useful) / 4000 < 0.07


def test_a_graph_with_a_circle_or_without_an_input_does_not_decode():
    assert decodes(CE)
    assert not decodes(nodes(("neg", 5), ("ln", 4), ("mul", 4, 5)))
    assert not decodes(nodes(("neg", 4), ("ln", 1), ("mul", 4, 5)))
    assert not decodes(nodes(("neg", 1), ("ln", 1), ("mul", 4, 5)))
    assert not decodes(nodes(("neg", 0), ("ln", 0), ("mul", 4, 5)))
    assert not decodes(nodes(("neg", 0), ("ln", 1), ("exp", 4, 5))), "what comes second is not read"


def test_a_circle_that_is_not_active_does_no_harm():
    assert decodes((*CE[:2], (number("exp"), 7, 1), (number("exp"), 6, 1), CE[4]))


def test_where_no_draw_decodes_there_is_cross_entropy(monkeypatch):
    monkeypatch.setattr(variation, "draw", lambda *_: CHAIN)
    monkeypatch.setattr(variation, "decodes", lambda g: g != CHAIN)
    assert Graph(scales=[1]).expressions(Graph(scales=[1]).sample(1, Stream(0))) == [
        seed("-(y*ln(p))")
    ]


# --- samples ---


def rows(population):
    return population.rows()


def graphs(population):
    return [nodes for nodes, _ in population.rows()]


def test_every_sample_reads_the_target_and_the_prediction():
    for e in Graph().expressions(Graph().sample(50, Stream(0))):
        assert {"y", "p"} <= e.terminals


def test_a_sample_is_a_function_of_the_key_and_a_row_of_its_number():
    sample = Graph().sample
    assert rows(sample(5, Stream(0))) == rows(sample(5, Stream(0)))
    assert rows(sample(3, Stream(0))) == rows(sample(5, Stream(0)))[:3]
    assert rows(sample(5, Stream(0))) != rows(sample(5, Stream(1)))
    assert len(set(rows(sample(5, Stream(0))))) == 5


def test_a_start_with_random_has_its_losses_once_and_then_random_graphs():
    found = rows(Graph(start="ce, random, a2").sample(4, Stream(0)))
    assert found[:2] == [encode(seed(name)).rows()[0] for name in ("ce", "a2")]
    assert found[2:] == rows(Graph().sample(4, Stream(0)))[2:]


def test_a_start_with_losses_alone_goes_on_with_their_mutants_in_turn():
    found = rows(Graph(start="ce, -y*log10(p) - p").sample(8, Stream(0)))
    for i, (nodes, scale) in enumerate(found[2:]):
        parent, one = found[i % 2]
        assert sum(a != b for a, b in zip(nodes, parent, strict=True)) + (scale != one) == 1
    assert found[:1] == rows(Graph(start="ce, -y*log10(p) - p").sample(1, Stream(0)))


def test_there_may_be_no_candidates():
    none = Graph().sample(0, Stream(0))
    assert (none.operation.shape, none.arguments.shape, none.scale.shape) == (
        (0, 5),
        (0, 5, 2),
        (0,),
    )
    assert Graph().valid(none).tolist() == []


# --- mutation ---


def mutants(parent, n=N):
    return [variation.mutate(parent, Stream(1).at(i).python_rng()) for i in range(n)]


# Binary, all active.
FULL = nodes(("add", 0, 1), ("sub", 4, 2), ("mul", 5, 3), ("max", 6, 0), ("min", 7, 1))
CHAIN = nodes(("quotient", 1, 0), ("erf", 4), ("tanh", 5), ("atan", 6), ("neg", 7))


def changed(parent, child):
    """The row that differs, what it was and what it is."""
    (row,) = [i for i in range(5) if parent[i] != child[i]]
    return row, parent[row], child[row]


def kind(before, after):
    if (before[0] in UNARY) != (after[0] in UNARY):
        return "arity"
    return "operation" if before[0] != after[0] else "connection"


def changes(parent, attempts):
    """What one attempt changes, by kind; a child need not decode."""
    rng = Random(0)
    return [(parent[0], variation.change(parent[0], 4, rng)) for _ in range(attempts)]


@pytest.mark.parametrize("parent", [FULL, CHAIN[1:2] + CHAIN[1:]], ids=["binary", "unary"])
def test_changes_have_the_published_probabilities(parent):
    seen = Counter(kind(*pair) for pair in changes(parent, N))
    for name, expected in (("operation", 0.7), ("connection", 0.15), ("arity", 0.15)):
        assert near(share(seen, name), expected)


def test_a_changed_operation_is_another_of_the_same_arity():
    for before, after in changes(FULL, N):
        if kind(before, after) == "operation":
            assert after[0] in BINARY
            assert after[0] != before[0]
            assert after[1:] == before[1:]


def test_connections_are_swapped_or_one_of_them_is_drawn_anew():
    found = [
        after[1:] for before, after in changes(FULL, 5 * N) if kind(before, after) == "connection"
    ]
    seen = Counter("swap" if x == (1, 0) else "first" if x[1] == 1 else "second" for x in found)
    for name, expected in (("swap", 0.2), ("first", 0.4), ("second", 0.4)):
        assert near(share(seen, name), expected, len(found))
    assert all(first != second and 4 not in (first, second) for first, second in found)


def test_an_argument_comes_or_goes_at_either_place():
    gone = [after for before, after in changes(FULL, 5 * N) if kind(before, after) == "arity"]
    seen = Counter(first for _, first, _ in gone)
    assert near(share(seen, 0), 0.5, len(gone))
    assert near(share(seen, 1), 0.5, len(gone))
    start = (number("erf"), 0, 1)
    come = [after for before, after in changes((start,), 5 * N) if kind(before, after) == "arity"]
    seen = Counter(after.index(0, 1) for after in come)
    assert near(share(seen, 1), 0.5, len(come))
    assert near(share(seen, 2), 0.5, len(come))
    assert {a for _, *both in come for a in both} == set(range(8)) - {4}


def test_every_mutant_decodes_and_differs_from_its_parent_in_one_active_node():
    for parent in (CE, FULL, CHAIN):
        read = {at - len(INPUTS) for at in active(parent) if at >= len(INPUTS)}
        seen = Counter()
        for child in mutants(parent, 300):
            row, before, after = changed(parent, child)
            seen[row] += 1
            assert decodes(child)
            assert before != after
        assert set(seen) == read, "inactive nodes stay as they are"


def test_the_root_may_be_attached_to_an_input_by_mutation():
    assert any(min(child[4][1:]) < len(INPUTS) for child in mutants(CE, 300))


def test_a_parent_whose_children_never_decode_stays(monkeypatch):
    monkeypatch.setattr(variation, "decodes", lambda g: False)
    assert mutants(CE, 1) == [CE]


def test_mutants_are_a_function_of_key_parent_and_row():
    parents = Graph().sample(4, Stream(0))

    def mutate(key, some):
        return rows(Graph().mutate(some, NO_STRENGTH, key))

    assert mutate(Stream(1), parents) == mutate(Stream(1), parents)
    assert mutate(Stream(1), parents) != mutate(Stream(2), parents)
    assert mutate(Stream(1), parents[:2]) == mutate(Stream(1), parents)[:2]


def test_a_fifth_of_the_children_differ_in_the_factor_alone_which_is_another_of_those_there_are():
    genome = Graph(scales=[0.5, 1, 3])
    n = 500
    parents = Graphs.of([(CE, 1.0)] * n)
    found = rows(genome.mutate(parents, NO_STRENGTH, Stream(0)))
    rescaled = [scale for nodes, scale in found if nodes == CE]
    assert near(len(rescaled) / n, 0.2, n)
    assert set(rescaled) == {0.5, 3.0}
    assert {scale for nodes, scale in found if nodes != CE} == {1.0}


def test_without_other_factors_every_child_differs_in_a_node():
    genome = Graph(scales=[1])
    assert {scale for _, scale in rows(genome.sample(20, Stream(0)))} == {1.0}
    children = rows(genome.mutate(Graphs.of([(CE, 1.0)] * 100), NO_STRENGTH, Stream(0)))
    assert all(nodes != CE and scale == 1 for nodes, scale in children)


def test_samples_have_all_the_factors():
    assert {scale for _, scale in rows(Graph().sample(100, Stream(0)))} == set(Graph().scales)


@pytest.mark.parametrize("scales", [[], [0.0], [-1.0], [float("inf")]])
def test_a_factor_is_a_positive_number(scales):
    with pytest.raises(SettingsError, match="scales"):
        registry.build("genomes", {"kind": "graph", "scales": scales}, "genome")


# --- crossover ---


def test_a_child_has_nodes_of_both_parents_and_decodes():
    a, b = (Graph().sample(100, Stream(i)) for i in (0, 1))
    mixed = 0
    for one, other, child in zip(
        a.rows(), b.rows(), Graph().crossover(a, b, Stream(2)).rows(), strict=True
    ):
        assert decodes(child[0])
        assert all(node in pair for node, *pair in zip(child[0], one[0], other[0], strict=True))
        assert child[1] in (one[1], other[1])
        mixed += child not in (one, other)
    assert mixed > 50
    assert rows(Graph().crossover(a, a, Stream(2))) == rows(a)
    assert rows(Graph().crossover(a, b, Stream(2))) == rows(Graph().crossover(a, b, Stream(2)))


def test_without_a_child_that_decodes_the_first_parent_stays(monkeypatch):
    monkeypatch.setattr(variation, "decodes", lambda g: False)
    assert variation.cross((CE, 1.0), (FULL, 2.0), Random(0)) == (CE, 1.0)


# --- to and from expressions ---


@pytest.mark.parametrize("name", FIT)
def test_a_published_loss_that_fits_is_the_same_loss_as_a_graph(name):
    genome = Graph()
    e = seed(name)
    population = encode(e)
    (back,) = genome.expressions(population)
    curves = [phenotype.curve(Formulas.of([Formula(x)])) for x in (e, back)]
    # ε within logarithms and quotients is all that may differ.
    torch.testing.assert_close(curves[0][1:-1], curves[1][1:-1], rtol=1e-3, atol=1e-3)
    assert rows(encode(back)) == rows(population)


def test_written_in_its_own_operations_a_loss_comes_back_as_it_was():
    for text in ("-y*ln(p)", "y*i0e(ln(p)) - i0e(ln(p))", "square(square(p - y))", "max(p, 1 - y)"):
        written = text.replace("1 - y", "-1.0 - y")
        assert decode(*encode(seed(written)).rows()[0]) == seed(written)


@pytest.mark.parametrize(
    "text", ["0.2*(-y*ln(p))", "2*y*ln(p)", "-(0.5*max(p, y))", "3*(y*square(p))*p"]
)
def test_a_constant_before_the_whole_is_the_factor(text):
    (row,) = encode(seed(text)).rows()
    curves = [phenotype.curve(Formulas.of([Formula(x)])) for x in (seed(text), decode(*row))]
    torch.testing.assert_close(*curves)
    assert row[1] == float(text.strip("-(").split("*")[0])


def test_equal_parts_share_a_node():
    (row,) = graphs(encode(seed("erf(p - y) + tanh(erf(p - y))")))
    assert len(active(row)) == len(INPUTS) - 2 + 4


def test_logarithms_quotients_and_squares_take_the_forms_that_graphs_have():
    (row,) = graphs(encode(seed("(y/p)**2 - logp")))
    assert str(decode(row)) == "square(quotient(y, p)) - ln(p)"


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("ngl", "ngl is no graph: its inputs are y, p, 1.0, -1.0, t, logn, past, not 2.4092"),
        (
            "-y*logp/C",
            "-y*logp/C is no graph: its inputs are y, p, 1.0, -1.0, t, logn, past, not C",
        ),
        ("focal", "focal is no graph: it takes 6 operations, and a graph has 5"),
        ("random, gce", "gce is no graph: expm1 is not among its operations"),
        ("y*(1 - p)**3", "y*(1 - p)**3 is no graph: pow is not among its operations"),
        ("y*p**y", "y*p**y is no graph: pow is not among its operations"),
        (
            "-logp",
            "start: -logp reads too little to start from: a loss needs y or cost, and p or logp",
        ),
        ("0*y + p", "0*y + p is no graph: its inputs are y, p, 1.0, -1.0, t, logn, past, not 0.0"),
        ("p", "start: p reads too little to start from: a loss needs y or cost, and p or logp"),
        (
            "temperature",
            "temperature: its temperature is no part of an expression, "
            "so no search can start from it",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused_in_one_line(start, reason):
    with pytest.raises(SettingsError) as caught:
        registry.build("genomes", {"kind": "graph", "start": start}, "genome")
    line = str(caught.value)
    assert line.startswith("genome: ")
    assert line.endswith(reason)
    assert "\n" not in line


# --- as a genome ---


def test_candidates_run_as_the_losses_that_they_are():
    genome = Graph(start="ce, a2")
    population = genome.sample(2, Stream(0))
    assert genome.valid(population).tolist() == [0, 0]
    assert genome.describe(population, 0) == "sum(-y * ln(p))"
    assert [str(f) for f in genome.losses(population).formulas] == [
        "sum(-y * ln(p))",
        "sum(quotient(y, i0e(ln(p))))",
    ]


def test_a_candidate_upside_down_is_run_the_right_way_up():
    genome = Graph(start="y*ln(p)")
    population = genome.sample(1, Stream(0))
    assert str(genome.expressions(population)[0]) == "y * ln(p)"
    assert genome.describe(population, 0) == "sum(-(y * ln(p)))"


def test_rows_can_be_taken_and_joined():
    population = Graph().sample(3, Stream(0))
    assert rows(population[1:].cat(population[:1])) == [*rows(population)[1:], rows(population)[0]]
    assert rows(Graphs.of(rows(population))) == rows(population)
    assert ROOT == 8
