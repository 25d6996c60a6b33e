"""τ and the power of class weights as numbers that evolve beside a loss's own."""

import pytest
import torch
from test_export import program, written

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.criterion.genome import GenomeCriterion
from metaloss.errors import SettingsError
from metaloss.genomes._prior import STEP
from metaloss.losses.base import TrainingTargets, logit_gradient_by_autograd, one_hot
from metaloss.losses.language.formula import Formula
from metaloss.losses.prior_adjusted import PriorAdjusted

T = 2
B = 5
C = 4
COUNTS = torch.tensor([[20.0, 5, 2, 1], [3, 3, 3, 3]], dtype=torch.float64)
GENOMES = {
    "targets": {"kind": "targets"},
    "mln": {"kind": "mln", "start": "random", "features": 3, "hidden": 4},
    "figure3": {"kind": "mln", "architecture": "figure3", "start": "random", "fixed_classes": C},
    "constants": {"kind": "constants", "formula": "sum(-2*y*logp, shift=.5*logprior)"},
}
genomes = pytest.mark.parametrize("kind", GENOMES)


def genome(kind, prior=True):
    return registry.build("genomes", {**GENOMES[kind], "prior": prior}, "genome")


def population(kind, n=3):
    start = genome(kind).sample(n, Stream(0)).vectors().double()
    return Vectors(start + 0.1 * Stream(1).normal(*start.shape))


def situation(n=3):
    logits = (2 * Stream(2).normal(n, T, B, C)).double()
    return logits, one_hot(Stream(3).integers(C, T, B), C).double()


@genomes
def test_two_numbers_more_are_a_shift_and_class_weights(kind):
    candidates = population(kind)
    logits, y = situation()
    targets = TrainingTargets(y, counts=COUNTS)
    bound = genome(kind).losses(candidates).bind(targets)
    plain = genome(kind, False).losses(Vectors(candidates.values[:, :-2])).bind(targets)
    share = C * COUNTS / COUNTS.sum(-1, keepdim=True)
    for row in range(3):
        tau, power = (STEP * candidates.values[row, -2:]).tolist()
        tau += genome(kind).start_tau
        moved = logits + tau * share.log()[:, None]
        weight = (y * share[:, None] ** -power).sum(-1)
        expected = plain.terms(moved)[row].sum(-1) * weight
        torch.testing.assert_close(bound(logits)[row], expected.mean(-1))
        gradient = plain.logit_gradient(moved)[row] * weight[..., None]
        torch.testing.assert_close(bound.logit_gradient(logits)[row], gradient)


@genomes
def test_on_even_classes_they_change_nothing(kind):
    candidates = population(kind)
    logits, y = situation()
    targets = TrainingTargets(y, counts=torch.full((T, C), 5.0))
    bound = genome(kind).losses(candidates).bind(targets)
    plain = genome(kind, False).losses(Vectors(candidates.values[:, :-2])).bind(targets)
    assert torch.equal(bound.logit_gradient(logits), plain.logit_gradient(logits))


@genomes
def test_a_minibatch_and_some_rows_have_their_own(kind):
    logits, y = situation()
    index = torch.tensor([[4, 0], [2, 2]])
    rows = torch.arange(T)[:, None]
    weight = torch.tensor([1.0, 2, 0, 1, 1], dtype=torch.float64).expand(T, -1)
    losses = genome(kind).losses(population(kind))
    picked = losses.bind(TrainingTargets(y, weight, COUNTS)).minibatch(index)[torch.tensor([2, 0])]
    alone = losses.bind(TrainingTargets(y[rows, index], weight[rows, index].clamp(min=1), COUNTS))
    some = logits[:, rows, index]
    expected = alone.logit_gradient(some)[[2, 0]]
    found = picked.logit_gradient(some[[2, 0]])
    torch.testing.assert_close(found[:, 0], expected[:, 0])
    assert found[:, 1].isnan().all() or found[:, 1].eq(0).all()


@pytest.mark.parametrize("kind", ["targets", "mln", "constants"])
def test_a_criterion_and_what_is_written_of_it_see_the_prior(kind, tmp_path):
    space = genome(kind)
    candidate = Vectors(population(kind, 1).values.float())
    logits, label = situation(1)[0][0, 0].float(), Stream(3).integers(C, B)
    if kind == "constants":
        assert "shift=" in space.describe(candidate, 0)
        return
    loss = GenomeCriterion(space, candidate, prior=COUNTS[0])
    assert loss.reads_prior
    assert "logit adjustment" in loss.describe()
    targets = TrainingTargets(one_hot(label, C)[None], counts=COUNTS[:1].float())
    expected = space.losses(candidate).bind(targets)(logits[None, None])[0, 0]
    torch.testing.assert_close(loss(logits, label), expected)
    torch.testing.assert_close(written(loss, tmp_path / "x.py")(logits, label), expected)
    torch.testing.assert_close(program(loss, tmp_path / "x.pt2")(logits, label), expected)


CHANNEL = {"kind": "mln", "features": 3, "hidden": 4, "channels": ("p", "logprior", "logp")}


@pytest.mark.parametrize("architecture", ["equivariant", "figure3"])
def test_a_network_reads_the_prior_behind_its_other_channels(architecture):
    table = {**CHANNEL, "architecture": architecture, "fixed_classes": C, "start": "random"}
    space = registry.build("genomes", table, "genome")
    plain = registry.build("genomes", {**table, "channels": ("p", "logp")}, "genome")
    candidates = space.sample(3, Stream(0))
    vectors = candidates.vectors().clone()
    per_channel = 1 if architecture == "equivariant" else C
    # The same networks without the prior: its columns are the last of each row.
    w_pred = space.weights(vectors)["w_pred"]
    rest = vectors[:, w_pred[0].numel() :]
    fewer = torch.cat([w_pred[..., :-per_channel].flatten(1), rest], 1)
    logits, y = (x.float() for x in situation())
    without = plain.losses(Vectors(fewer)).bind(TrainingTargets(y)).logit_gradient(logits)
    even = space.losses(candidates).bind(TrainingTargets(y)).logit_gradient(logits)
    torch.testing.assert_close(even, without, rtol=1e-4, atol=1e-6)
    bound = space.losses(candidates).bind(TrainingTargets(y, counts=COUNTS.float()))
    uneven = bound.logit_gradient(logits)
    torch.testing.assert_close(uneven, logit_gradient_by_autograd(bound, logits))
    assert not torch.allclose(uneven[:, 0], even[:, 0])
    torch.testing.assert_close(uneven[:, 1], even[:, 1])


def test_a_network_that_imitates_a_loss_starts_blind_to_the_prior_and_is_written_with_it(tmp_path):
    space = registry.build("genomes", CHANNEL, "genome")
    start = space.sample(2, Stream(0))
    logits, y = (x.float() for x in situation(2))
    even = space.losses(start).bind(TrainingTargets(y))
    uneven = space.losses(start).bind(TrainingTargets(y, counts=COUNTS.float()))
    torch.testing.assert_close(even.logit_gradient(logits), uneven.logit_gradient(logits))
    vectors = start.vectors()[:1] + 0.3 * Stream(5).normal(1, space.size)
    loss = GenomeCriterion(space, Vectors(vectors), prior=COUNTS[0])
    assert loss.reads_prior
    label = Stream(3).integers(C, B)
    expected = loss(logits[0, 0], label)
    torch.testing.assert_close(written(loss, tmp_path / "x.py")(logits[0, 0], label), expected)
    assert not torch.allclose(expected, loss.with_options(prior=None)(logits[0, 0], label))


def test_channels_must_read_a_prediction():
    with pytest.raises(SettingsError, match="channels must hold p, logp or logit"):
        registry.build("genomes", {**CHANNEL, "channels": ("logprior",)}, "genome")


def test_trees_evolve_both_beside_their_expressions():
    table = {"kind": "tree", "start": "ce,random", "max_size": 12, "max_height": 4}
    space = registry.build("genomes", {**table, "prior": True}, "genome")
    plain = registry.build("genomes", table, "genome")
    start = space.sample(6, Stream(0))
    assert space.expressions(start) == plain.expressions(plain.sample(6, Stream(0)))
    assert start.sizes.tolist() == plain.sample(6, Stream(0)).sizes.tolist()
    children = space.mutate(start, torch.zeros(6, 1), Stream(1))
    assert space.expressions(children) == plain.expressions(
        plain.mutate(plain.sample(6, Stream(0)), torch.zeros(6, 1), Stream(1))
    )
    still = (children.values[:, -2:] == start.values[:, -2:]).all(1)
    assert 0 < int(still.sum()) < 6
    alone = space.mutate(start[2:3], torch.zeros(1, 1), Stream(1))
    assert space.expressions(alone) != []
    crossed = space.crossover(start, children, Stream(2))
    torch.testing.assert_close(
        crossed.values[:, -2:], (start.values[:, -2:] + children.values[:, -2:]) / 2
    )
    tau, power = (x[0].item() for x in space.moves(start.values))
    formula = space.formulas(start)[0]
    assert str(formula.shift) == f"{float(f'{tau:.3g}')} * logprior"
    assert str(formula.expression).startswith(f"exp({float(f'{-power:.3g}')} * logprior)")
    assert Formula.parse(str(formula)) == formula
    logits, y = situation(6)
    targets = TrainingTargets(y, counts=COUNTS)
    assert not torch.equal(
        space.losses(start).bind(targets).logit_gradient(logits)[0, 0],
        plain.losses(plain.sample(6, Stream(0))).bind(targets).logit_gradient(logits)[0, 0],
    )


def test_graphs_evolve_both_beside_their_nodes():
    table = {"kind": "graph", "start": "ce,random"}
    space = registry.build("genomes", {**table, "prior": True}, "genome")
    plain = registry.build("genomes", table, "genome")
    start = space.sample(6, Stream(0))
    assert start.rows() == plain.sample(6, Stream(0)).rows()
    children = space.mutate(start, torch.zeros(6, 1), Stream(1))
    assert children.rows() == plain.mutate(start, torch.zeros(6, 1), Stream(1)).rows()
    still = (children.adjustment == start.adjustment).all(1)
    assert 0 < int(still.sum()) < 6
    crossed = space.crossover(start, children, Stream(2))
    torch.testing.assert_close(crossed.adjustment, (start.adjustment + children.adjustment) / 2)
    joined = start[:2].cat(children[torch.tensor([5])])
    assert space.formulas(joined) == space.formulas(start)[:2] + space.formulas(children)[5:]
    tau, power = (x[0].item() for x in space.moves(start.adjustment))
    formula = space.formulas(start)[0]
    assert str(formula.shift) == f"{float(f'{tau:.3g}')} * logprior"
    assert str(formula.expression).startswith(f"exp({float(f'{-power:.3g}')} * logprior)")
    assert Formula.parse(str(formula)) == formula
    assert plain.formulas(start) == plain.formulas(plain.sample(6, Stream(0)))
    # Graphs of a run without the two numbers have those of the start.
    assert str(space.formulas(plain.sample(1, Stream(0)))[0].shift) == "1.0 * logprior"


@genomes
def test_settings_are_off_by_default(kind):
    space = registry.build("genomes", GENOMES[kind], "genome")
    assert not space.prior
    losses = space.losses(space.sample(2, Stream(0)))
    assert not isinstance(losses, PriorAdjusted)
    assert genome(kind).sample(2, Stream(0)).vectors().shape[1] == (
        space.sample(2, Stream(0)).vectors().shape[1] + 2
    )
