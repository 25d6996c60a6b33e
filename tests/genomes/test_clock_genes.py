"""Genomes whose losses see how far a training is."""

import math

import pytest
import torch
from test_export import program, written

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.criterion.genome import GenomeCriterion
from metaloss.errors import SettingsError
from metaloss.genomes._targets import Targets
from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    logit_gradient_by_autograd,
    one_hot,
    reads_clock,
)
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula

T = 2
B = 5
C = 4
COUNTS = torch.tensor([[20.0, 5, 2, 1], [3, 3, 3, 3]])
VECTORS = {
    "targets": {"kind": "targets", "knots": (0.05, 0.3, 0.8)},
    "targets, prior and costs": {
        **{"kind": "targets", "knots": (0.05, 0.3, 0.8)},
        **{"prior": True, "costs": True},
    },
    "taylor": {"kind": "taylor"},
    "taylor, prior": {"kind": "taylor", "order": 4, "prior": True},
    "mln": {"kind": "mln", "start": "random", "features": 3, "hidden": 4},
    "mln, relu, prior": {
        **{"kind": "mln", "start": "random", "features": 3, "hidden": 4, "activation": "relu"},
        **{"channels": ("p", "logprior", "logp"), "prior": True},
    },
    "figure3": {"kind": "mln", "architecture": "figure3", "start": "random", "fixed_classes": C},
}
vectors = pytest.mark.parametrize("kind", VECTORS)
CLOCKS = (Clock.of(0, 20), Clock.of(17, 20), Clock.of(200, 400))


def genome(kind, clock=True):
    return registry.build("genomes", {**VECTORS[kind], "clock": clock}, "genome")


def losses(kind, n=3, dtype=torch.float32):
    space = genome(kind)
    start = space.sample(n, Stream(0)).vectors().to(dtype)
    return space.losses(Vectors(start + 0.4 * Stream(1).normal(*start.shape).to(dtype)))


def situation(n=3, dtype=torch.float32):
    logits = (2 * Stream(2).normal(n, T, C, B)).to(dtype).mT
    y = one_hot(Stream(3).integers(C, T, B), C).to(dtype)
    return logits, TrainingTargets(y, counts=COUNTS)


@vectors
def test_gradients_change_with_the_step_and_with_the_number_of_steps(kind):
    logits, targets = situation()
    bound = losses(kind).bind(targets)
    assert reads_clock(bound)
    gradients = [bound.at(clock).logit_gradient(logits) for clock in CLOCKS]
    gradients.append(bound.at(Clock.of(10, 20)).logit_gradient(logits))
    for i, one in enumerate(gradients):
        for other in gradients[:i]:
            assert not torch.allclose(one, other, rtol=1e-3, atol=1e-5)
    # Telling leaves nothing behind.
    assert torch.equal(bound.at(CLOCKS[0]).logit_gradient(logits), gradients[0])
    unbound = losses(kind).at(CLOCKS[1]).bind(targets)
    assert torch.equal(unbound.logit_gradient(logits), gradients[1])


@vectors
def test_compiled_equals_plain_at_every_step(kind):
    """float64 is never compiled."""
    found, exact = losses(kind), losses(kind, dtype=torch.float64)
    logits, targets = situation()
    wide = TrainingTargets(targets.target.double(), counts=COUNTS)
    for clock in CLOCKS:
        ours = found.bind(targets).at(clock).logit_gradient(logits)
        theirs = exact.bind(wide).at(clock).logit_gradient(logits.double())
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("kind", ["taylor", "taylor, prior", "mln", "mln, relu, prior", "figure3"])
@pytest.mark.parametrize("clock", CLOCKS[:2])
def test_gradients_are_differences_of_values_at_two_steps(kind, clock):
    logits, targets = situation(dtype=torch.float64)
    wide = TrainingTargets(targets.target, counts=COUNTS.double())
    bound = losses(kind, dtype=torch.float64).bind(wide).at(clock)
    slope = bound.logit_gradient(logits)
    for place in ((0, 1, 2), (1, 4, 0)):
        moved = torch.zeros_like(logits)
        moved[(slice(None), *place)] = 1e-6
        difference = (bound(logits + moved) - bound(logits - moved))[:, place[0]] / 2e-6
        torch.testing.assert_close(slope[(slice(None), *place)], difference, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(slope, logit_gradient_by_autograd(bound, logits))


@vectors
def test_a_minibatch_and_a_neighbour_change_nothing(kind):
    logits, targets = situation()
    bound = losses(kind).bind(targets)
    index = torch.tensor([[4, 0], [2, 2]])
    some = torch.arange(T)[:, None], index
    picked = bound.minibatch(index).at(CLOCKS[1]).logit_gradient(logits[:, *some])
    whole = bound.at(CLOCKS[1]).logit_gradient(logits)[:, *some]
    torch.testing.assert_close(picked, whole * B / 2, rtol=1e-4, atol=1e-6)
    rows = torch.tensor([2, 0])
    alone = bound[rows].at(CLOCKS[1]).logit_gradient(logits[rows])
    together = bound.at(CLOCKS[1]).logit_gradient(logits)
    if kernels.available() and kind != "figure3":
        assert torch.equal(alone, together[rows])
    torch.testing.assert_close(alone, together[rows])


@vectors
def test_without_a_clock_old_settings_give_old_candidates(kind):
    space, plain = genome(kind), genome(kind, clock=False)
    assert space.reads_clock
    assert not plain.reads_clock
    assert not reads_clock(plain.losses(plain.sample(2, Stream(0))))
    assert plain.size < space.size
    if not kind.startswith("taylor"):  # described by a formula, which has no `t` at the start
        assert "clock" in space.describe(space.sample(1, Stream(0)), 0)
    assert "clock" not in plain.describe(plain.sample(1, Stream(0)), 0)
    # Where nobody tells a network anything, it is that without a clock.
    if kind in ("mln", "figure3"):
        logits, targets = situation()
        both = (x.losses(x.sample(3, Stream(0))).bind(targets) for x in (space, plain))
        one, other = (x.logit_gradient(logits) for x in both)
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("table", [{"kind": "targets"}, {"kind": "taylor"}, {"kind": "mln"}])
def test_a_search_starts_blind_to_the_clock(table):
    space = registry.build("genomes", {**table, "clock": True}, "genome")
    plain = registry.build("genomes", table, "genome")
    logits, targets = situation()
    expected = plain.losses(plain.sample(3, Stream(0))).bind(targets).logit_gradient(logits)
    bound = space.losses(space.sample(3, Stream(0))).bind(targets)
    for clock in CLOCKS:
        torch.testing.assert_close(bound.at(clock).logit_gradient(logits), expected)
    assert space.size <= 100 or table["kind"] == "mln"


def test_curves_are_mixed_by_the_share_of_steps_and_move_with_their_logarithm():
    space = genome("targets")
    vector = Stream(1).normal(1, space.size)
    first, last, rise = vector.unflatten(1, (3, 3, 3)).unbind(1)
    logits, targets = situation(1)
    found = space.losses(Vectors(vector)).bind(targets)
    for step, steps in ((0, 20), (5, 20), (100, 400)):
        t = step / steps
        curves = (1 - t) * first + t * last + rise * math.log(steps / 50) / 4
        knots = torch.tensor(space.knots).log()
        expected = Targets(curves, knots, space.home_classes).bind(targets).logit_gradient(logits)
        gradient = found.at(Clock.of(step, steps)).logit_gradient(logits)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["targets", "targets, prior and costs", "mln", "mln, relu, prior"])
def test_a_criterion_and_what_is_written_of_it_carry_the_clock(kind, tmp_path):
    space = genome(kind)
    start = space.sample(1, Stream(0)).vectors()
    candidate = Vectors(start + 0.4 * Stream(1).normal(*start.shape))
    logits, label = situation(1)[0][0, 0].contiguous(), Stream(3).integers(C, B)
    loss = GenomeCriterion(space, candidate, prior=COUNTS[0], steps=100)
    targets = TrainingTargets(one_hot(label, C)[None], counts=COUNTS[:1])
    bound = space.losses(candidate).bind(targets)
    module = written(loss, tmp_path / "x.py")
    exported = program(loss, tmp_path / "x.pt2")
    values = []
    for step, steps in ((50, 100), (0, 100), (9, 20)):
        expected = bound.at(Clock.of(step, steps))(logits[None, None])[0, 0]
        values.append(float(expected))
        if (step, steps) == (50, 100):
            torch.testing.assert_close(exported(logits, label), expected)
        else:
            loss.at(step, steps)
            module.at(step, steps)
            exported.clock.copy_(loss.clock)
        torch.testing.assert_close(loss(logits, label), expected)
        torch.testing.assert_close(module(logits, label), expected)
        torch.testing.assert_close(exported(logits, label), expected)
    assert len({round(x, 4) for x in values}) == 3


# --- formulas ---


def symbolic(kind, clock=True, **more):
    return registry.build("genomes", {"kind": kind, "clock": clock, **more}, "genome")


@pytest.mark.parametrize("kind", ["tree", "graph"])
def test_formulas_use_the_clock_where_they_may(kind):
    space, plain = symbolic(kind), symbolic(kind, clock=False)
    trees = space.sample(40, Stream(0))
    formulas = space.formulas(trees)
    assert any(x.reads_clock for x in formulas)
    assert {"t", "logn"} <= frozenset().union(*(x.terminals for x in formulas))
    children = space.mutate(trees, torch.zeros(40, 1), Stream(1))
    crossed = space.crossover(trees, children, Stream(2))
    for some in (children, crossed):
        assert all(Formula.parse(str(x)) == x for x in space.formulas(some))
    without = plain.sample(40, Stream(0))
    assert not any(x.reads_clock for x in plain.formulas(without))
    # What was found without a clock means the same with one.
    assert space.formulas(without) == plain.formulas(without)


def test_a_mutation_brings_the_clock_into_a_graph_and_takes_it_out():
    for start, reads in (("-y*p", False), ("-y*p*t", True)):
        space = symbolic("graph", start=start)
        first, *mutants = space.formulas(space.sample(80, Stream(0)))
        assert first.reads_clock is reads
        assert {x.reads_clock for x in mutants} == {True, False}


def test_graphs_and_trees_start_from_formulas_of_the_clock():
    text = "-y*logp*t"
    graph = symbolic("graph", start=text)
    assert str(graph.formulas(graph.sample(1, Stream(0)))[0]).count("t") >= 1
    tree = symbolic("tree", start=text, filters={"integrity": False})
    assert tree.formulas(tree.sample(1, Stream(0)))[0] == Formula.parse(text)
    with pytest.raises(SettingsError, match="its inputs are"):
        symbolic("graph", start="-y*logp*C")


def test_formulas_with_a_clock_train_beside_others():
    logits, targets = situation(2)
    pair = Formulas.of([Formula.parse("-y*logp"), Formula.parse("-y*logp*t")])
    alone = Formulas.of([Formula.parse("-y*logp")]).bind(targets).logit_gradient(logits[:1])
    together = pair.bind(targets).at(Clock.of(1, 4)).logit_gradient(logits)
    assert torch.equal(together[:1], alone)
    torch.testing.assert_close(
        together[1], pair.bind(targets).at(Clock.of(2, 4)).logit_gradient(logits)[1] / 2
    )


def test_constants_change_over_a_training_where_a_second_gene_says_so():
    table = {"kind": "constants", "formula": "sum(-2*y*logp, shift=.5*logprior)", "prior": True}
    space = registry.build("genomes", {**table, "clock": True}, "genome")
    start = space.sample(1, Stream(0))
    assert start.vectors().shape[1] == 2 + 2 + 2
    plain = registry.build("genomes", table, "genome")
    assert space.formulas(start) == plain.formulas(plain.sample(1, Stream(0)))
    v, w, moves = [0.1, -0.2], [0.7, 0.0], [0.0, 0.0]
    (formula,) = space.formulas(Vectors(torch.tensor([v + w + moves])))
    assert formula.reads_clock
    assert Formula.parse(str(formula)) == formula
    (without,) = plain.formulas(Vectors(torch.tensor([v + moves])))
    logits, targets = situation(1)
    for step, steps in ((0, 10), (5, 10), (9, 10)):
        ours = Formulas.of([formula]).bind(targets).at(Clock.of(step, steps))
        theirs = Formulas.of([without]).bind(targets).logit_gradient(logits)
        course = math.exp(0.7 * (step / steps - 0.5))
        torch.testing.assert_close(ours.logit_gradient(logits), theirs * course)
