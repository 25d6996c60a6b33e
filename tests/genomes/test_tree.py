"""Trees keep their limits in every operator, and a tree does not depend on the others."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from trees import expressions, population, texts

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes.tree import Trees, replaced
from metaloss.losses.base import TrainingTargets
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.canonical import canonical
from metaloss.losses.language.expression import Expression, P, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.storage.codec import pack, unpack

KEY = Stream(0)
SETTINGS = {
    "as they come": {},
    "low": {"min_height": 1, "first_height": 1, "max_height": 2, "max_size": 3},
    "tall": {"min_height": 6, "first_height": 10, "max_height": 10, "max_size": 40},
    "few": {
        "functions": ("clip", "add"),
        "terminals": ("logp", "y"),
        "min_height": 3,
        "max_size": 9,
    },
    "of constants": {"constants": 0.9},
    "from losses": {"start": "ce,focal(gamma=2)", "max_size": 12, "max_height": 5},
}
every = pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
ONLY = {"subtree": 0, "point": 0, "insert": 0, "shift": 0}


def built(**table):
    return registry.build("genomes", {"kind": "tree", **table})


def only(kind, **table):
    """A genome with one kind of mutation."""
    return built(**{**ONLY, kind: 1, **table})


def none(candidates):
    return torch.zeros(len(candidates), candidates.genes)


def pairs(genome, seeds=4, n=10):
    """Parents and their mutants."""
    for seed in range(seeds):
        parents = genome.sample(n, Stream(seed))
        children = genome.mutate(parents, none(parents), Stream(seed).at("mutate"))
        yield from zip(genome.expressions(parents), genome.expressions(children), strict=True)


def shape(e):
    return [len(node.args) for node in e]


def same(a, b):
    return torch.equal(a.symbols, b.symbols) and torch.equal(
        a.values.view(torch.int64), b.values.view(torch.int64)
    )


def check_limits(genome, candidates):
    for e in genome.expressions(candidates):
        assert "y" in e.terminals, e
        assert e.varies, e
        assert genome.min_height <= e.height <= genome.max_height, e
        assert e.size <= genome.max_size, e


# --- limits ---


@every
def test_every_tree_reads_y_and_a_prediction_and_keeps_the_limits(changes):
    genome = built(**changes)
    for seed in range(2):
        key = Stream(seed)
        found = genome.sample(12, key)
        check_limits(genome, found)
        for g in range(3):
            other = found[key.at("pairs", g).permutation(len(found))]
            found = genome.crossover(found, other, key.at("cross", g))
            check_limits(genome, found)
            found = genome.mutate(found, none(found), key.at("mutate", g))
            check_limits(genome, found)


def test_trees_are_made_of_the_functions_and_terminals_that_were_asked_for():
    genome = built(functions=("max", "tanh"), terminals=("y", "C", "p"), constants=0.5)
    found = genome.sample(30, KEY)
    found = genome.mutate(found, none(found), KEY)
    assert {node.head for e in genome.expressions(found) for node in e} == {
        "max",
        "tanh",
        "y",
        "C",
        "p",
        "",
    }


def test_random_trees_are_ramped_half_and_half():
    genome = built(min_height=2, first_height=5, max_size=300)
    found = genome.expressions(genome.sample(40, KEY))
    heights = [2 + row // 2 % 4 for row in range(40)]
    assert [e.height for e in found[::2]] == heights[::2]
    assert all(depths(e) == {height} for e, height in zip(found[::2], heights[::2], strict=True))
    assert all(e.height <= height for e, height in zip(found[1::2], heights[1::2], strict=True))
    assert any(len(depths(e)) > 1 for e in found[1::2])


def depths(e, depth=0):
    """How deep the leaves lie."""
    return {depth} if not e.args else set().union(*(depths(a, depth + 1) for a in e.args))


# --- rows and trees ---


@settings(max_examples=60)
@given(expressions())
def test_a_tree_is_written_into_a_row_and_read_back_bit_for_bit(e):
    genome = built(max_height=60, max_size=500)
    rows = genome._rows([Y, e, P])
    found = genome.expressions(rows)
    assert found == [Y, e, P]
    for one, other in zip(found[1], e, strict=True):
        assert one.value.hex() == other.value.hex()
    assert same(unpack(pack(rows), (Trees,)), rows)


def test_the_tallest_and_the_largest_trees_are_read_back_and_so_is_their_text():
    genome = built(max_height=60, max_size=500)
    tall = call("mul", Y, P)
    while tall.height < 59:
        tall = call("neg", call("sub", constant(math.pi * 10.0 ** (tall.height - 30)), tall))
    tall = call("tanh", tall)
    full = [P]
    for _ in range(7):
        full.append(call("sub", full[-1], full[-1]))
    trees = [tall, call("mul", full[7], call("mul", full[6], full[5]))]
    assert tall.height == 60
    assert trees[1].size == 255 + 127 + 63 + 2
    assert genome.expressions(genome._rows(trees)) == trees
    assert [Formula.parse(str(Formula(e))).expression for e in trees] == trees


def test_sizes_are_numbers_of_nodes():
    genome = built()
    assert population(genome, "y*p", "-y*logp", "clip(y, p, 1)").sizes.tolist() == [3, 4, 4]
    found = genome.sample(20, KEY)
    assert found.sizes.tolist() == [e.size for e in genome.expressions(found)]


# --- each mutation by itself ---


def test_a_point_mutation_keeps_the_shape_and_changes_at_most_one_node():
    changed = 0
    for parent, child in pairs(only("point")):
        different = [
            a.head != b.head or a.value != b.value for a, b in zip(parent, child, strict=True)
        ]
        assert shape(child) == shape(parent)
        assert sum(different) <= 1
        changed += sum(different)
    assert changed > 20


def test_a_shift_moves_all_constants_and_nothing_else():
    moved = 0
    for parent, child in pairs(only("shift", constants=0.5)):
        if any(node.is_constant for node in parent):
            assert [node.head for node in child] == [node.head for node in parent]
            constants = [
                (a.value, b.value) for a, b in zip(parent, child, strict=True) if a.is_constant
            ]
            assert all(a != b and float(f"{b:.4g}") == b for a, b in constants)
            moved += len(constants)
        else:
            assert shape(child) == shape(parent)
    assert moved > 20


def test_a_larger_step_shifts_further():
    found = {}
    for step in (0.01, 1.0):
        both = [
            (a, b)
            for pair in pairs(only("shift", step=step, constants=0.5))
            for a, b in zip(*pair, strict=True)
        ]
        found[step] = sum(
            abs(a.value - b.value) for a, b in both if a.is_constant and b.is_constant
        )
    assert found[1.0] > 10 * found[0.01]


def test_an_insertion_puts_one_function_above_what_was_there():
    grown = 0
    for parent, child in pairs(only("insert")):
        if child == parent:
            continue
        grown += 1
        assert any(
            replaced(child, place, part) == parent
            for place, node in enumerate(child)
            for part in node.args
            if child.size - parent.size == len(node.args)
        )
    assert grown > 20


def test_a_subtree_mutation_replaces_one_subtree_by_a_low_one():
    changed = 0
    for parent, child in pairs(only("subtree")):
        changed += child != parent
        places = range(min(parent.size, child.size))
        assert any(
            replaced(parent, i, part) == child for i in places for part in child if part.height <= 2
        )
    assert changed > 20


def test_a_mutant_that_cannot_fit_is_the_parent():
    genome = only(
        "insert", min_height=1, first_height=1, max_height=1, max_size=3, functions=("mul",)
    )
    parents = population(genome, "y*p")
    assert same(genome.mutate(parents, none(parents), KEY), parents)


def test_a_point_mutation_has_other_functions_to_take_or_leaves_the_tree():
    genome = only("point", functions=("mul",), min_height=1, terminals=("y", "p"), constants=0)
    parents = population(genome, *["(y*p)*(y*p)"] * 20)
    children = genome.expressions(genome.mutate(parents, none(parents), KEY))
    assert {node.head for e in children for node in e if node.args} == {"mul"}


def test_a_cross_is_one_tree_with_a_part_of_the_other():
    genome = built()
    a, b = (genome.sample(30, KEY.at(i)) for i in range(2))
    children = genome.expressions(genome.crossover(a, b, KEY))
    for one, other, child in zip(
        genome.expressions(a), genome.expressions(b), children, strict=True
    ):
        assert (
            any(replaced(one, i, part) == child for i in range(one.size) for part in other)
            or child == one
        )
    assert (
        sum(child != one for child, one in zip(children, genome.expressions(a), strict=True)) > 10
    )


def test_a_part_is_replaced_where_its_number_in_prefix_order_is():
    e = Formula.parse("-y*logp + clip(p, 0.5, y)").expression
    for place, node in enumerate(e):
        assert replaced(e, place, node) == e
        there = replaced(e, place, Expression("C"))
        assert list(there)[place].head == "C"
        assert there.size == e.size - node.size + 1


# --- a row depends on its key and its parent alone ---


@every
def test_a_row_does_not_depend_on_its_neighbours(changes):
    genome = built(**changes)
    few = genome.sample(5, KEY)
    many = genome.sample(9, KEY)
    assert same(few, many[:5])
    assert same(genome.mutate(few, none(few), KEY), genome.mutate(many, none(many), KEY)[:5])
    others = many.cat(many)[4:13]
    assert same(genome.crossover(few, others[:5], KEY), genome.crossover(many, others, KEY)[:5])


def test_draws_depend_on_the_key_alone():
    genome = built()
    key = Stream(3)
    torch.manual_seed(0)
    one = genome.sample(8, key), genome.mutate(genome.sample(8, KEY), torch.zeros(8, 1), key)
    torch.manual_seed(1)
    two = genome.sample(8, key), genome.mutate(genome.sample(8, KEY), torch.ones(8, 1), key)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    assert not same(genome.sample(8, Stream(4)), one[0])


def test_no_tree_changes_in_place():
    genome = built()
    parents = genome.sample(6, KEY)
    before = replace(parents, symbols=parents.symbols.clone(), values=parents.values.clone())
    genome.crossover(genome.mutate(parents, none(parents), KEY), parents, KEY)
    assert same(parents, before)


# --- where a search starts ---


def test_a_search_starts_from_the_losses_that_are_named_and_mutants_of_them():
    genome = built(start="ce,focal(gamma=2)")
    found = texts(genome, genome.sample(8, KEY))
    assert found[:2] == ["-y * logp", "-y * (1.0 - p) ** 2.0 * logp"]
    assert len(set(found)) > 5
    by_seed = [genome.expressions(genome.sample(40, KEY))[2 + i :: 2] for i in range(2)]
    assert [sum("pow" in [n.head for n in e] for e in each) > 10 for each in by_seed] == [
        False,
        True,
    ]


def test_random_trees_may_stand_beside_the_losses_that_are_named():
    genome = built(start="random, ce")
    found = genome.sample(9, KEY)
    assert texts(genome, found)[0] == "-y * logp"
    assert same(found[1:], built().sample(9, KEY)[1:])


def test_fewer_candidates_than_losses_are_the_first_of_them():
    genome = built(start="mse,ce")
    assert texts(genome, genome.sample(1, KEY)) == ["square(p - y)"]


def test_a_formula_with_commas_is_one_loss():
    genome = built(start="clip(-y*logp, 0, 5), ce")
    assert texts(genome, genome.sample(2, KEY)) == ["clip(-y * logp, 0.0, 5.0)", "-y * logp"]


def test_a_mean_over_classes_becomes_a_sum_divided_by_their_number():
    genome = built(start="ngl")
    e = genome.seeds[0]
    assert e.head == "div"
    assert e.args[1].head == "C"
    logits = KEY.normal(1, 1, 4, 5).double()
    target = torch.eye(5).double()[None, :4]
    ours, theirs = (
        Formulas.of([f]).bind(TrainingTargets(target))(logits)
        for f in (Formula(e), Formula(e.args[0], reduction="mean"))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    assert "mean" not in genome.describe(genome.sample(1, KEY), 0)


def test_a_loss_of_the_zoo_is_worth_a_training_and_has_its_own_sign():
    genome = built(start="ce,mse,a1")
    found = genome.sample(3, KEY)
    assert genome.valid(found).tolist() == [0, 0, 0]
    upside_down = population(genome, "y*logp", "-y*logp")
    assert texts(genome, upside_down) == ["y * logp", "-y * logp"]
    assert len({str(f.canonical()) for f in genome.formulas(upside_down)}) == 1
    assert canonical(genome.formulas(upside_down)[0].expression).text == "-y * logp"
    assert genome.describe(upside_down, 0) == "sum(-(y * logp))"


# --- what is refused ---

REFUSED = {
    "start: unknown loss 'cee'. Did you mean 'ce'?": {"start": "ce,cee"},
    "start: temperature(tau=2): its temperature is no part of an expression": {
        "start": "temperature(tau=2)"
    },
    "start: dice reads a whole batch": {"start": "dice"},
    "has 10 nodes and height 4, more than trees may have": {"start": "r0", "max_size": 9},
    "and height 4, more than trees may": {"start": "r0", "max_height": 3, "first_height": 3},
    "functions: unknown primitive 'tan'. Did you mean": {"functions": ["add", "tan"]},
    "functions must hold one of two arguments": {"functions": ["exp", "clip"]},
    "terminals must hold y, and p or logp": {"terminals": ["y", "C"]},
    "terminals must hold y": {"terminals": ["p", "logp"]},
    "terminals.1: Input should be 'y', 'p', 'logp', 'C', 'prior', 'logprior' or 'cost', got 'q'": {
        "terminals": ["y", "q"]
    },
    "needs min_height <= first_height <= max_height": {"min_height": 5},
    "max_size must be at least 4 for trees of height 2": {"max_size": 3},
    "max_size must be at least 19 for trees of height 9": {
        "max_size": 12,
        "min_height": 9,
        "first_height": 9,
        "functions": ["add"],
    },
    "one of subtree, point, insert and shift must be above 0": ONLY,
    "shift: Input should be less than or equal to 1, got 2": {"shift": 2},
    "filters: span must be two numbers, the lower first": {"filters": {"span": [1, 0]}},
    "filters: unknown setting 'spam'. Did you mean 'span'?": {"filters": {"spam": 3}},
    "unknown setting 'heigth'": {"heigth": 3},
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_that_cannot_be_are_refused_in_one_line(message):
    with pytest.raises(SettingsError) as caught:
        built(**REFUSED[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@every
def test_settings_come_back_as_they_were_written(changes):
    genome = built(**changes)
    assert built(**registry.table(genome)) == genome
