"""The margin and the decay by which learned targets see what each mistake costs."""

import numpy as np
import pytest
import torch
from test_export import program, written

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.criterion.genome import GenomeCriterion
from metaloss.genomes._compiled_targets import CompiledTargets
from metaloss.genomes._prior import STEP
from metaloss.genomes._targets import Targets
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.costs import relative_costs

P = 3
T = 2
B = 5
C = 4
COUNTS = torch.tensor([[20.0, 5, 2, 1], [3, 3, 3, 3]])
MATRICES = torch.tensor(
    [
        [[0.0, 1, 2, 3], [5, 0, 1, 1], [2, 2, 0, 7], [4, 1, 1, 0]],
        [[0.0, 1, 4, 9], [1, 0, 1, 4], [4, 1, 0, 1], [9, 4, 1, 0]],
    ]
)
COSTS = relative_costs(MATRICES)
priors = pytest.mark.parametrize("prior", [False, True])


def genome(**settings):
    return LearnedTargets(**{"costs": True, "home_classes": C, **settings})


def population(space, spread=0.2):
    start = space.sample(P, Stream(0)).vectors()
    return Vectors(start + spread * Stream(1).normal(*start.shape))


def situation():
    return 2 * Stream(2).normal(P, T, B, C), one_hot(Stream(3).integers(C, T, B), C)


def by_hand(space, vector, z, label, k):
    """The gradient of one image, of its logits, its class and its row of costs."""
    a, b, d = vector[: 3 * len(space.knots)].reshape(3, -1)
    margin, decay = STEP * vector[3 * len(space.knots) :][:2]
    z = z + margin * k
    p = np.exp(z - z.max())
    p /= p.sum()
    knots = np.log(space.knots)
    of_true = np.interp(np.log(p[label]), knots, d)
    others = [c for c in range(C) if c != label]
    mean = np.mean([np.exp(-decay * k[c]) for c in others])
    q = np.zeros(C)
    for c in others:
        q[c] = (np.interp(np.log(p[c]), knots, b) + of_true) / C * np.exp(-decay * k[c]) / mean
    q[label] = np.interp(np.log(p[label]), knots, a)
    return (p * q.sum() - q) / B


def test_the_gradient_is_that_of_the_formula_written_out():
    space = genome()
    candidates = population(space)
    logits, y = (x.double() for x in situation())
    bound = space.losses(Vectors(candidates.vectors().double())).bind(
        TrainingTargets(y, costs=COSTS)
    )
    found = bound.logit_gradient(logits)
    costs = COSTS.double().numpy()
    for place in np.ndindex(P, T, B):
        row, t, b = place
        label = int(y[t, b].argmax())
        vector = candidates.vectors()[row].double().numpy()
        expected = by_hand(space, vector, logits[place].numpy(), label, costs[t, label])
        np.testing.assert_allclose(found[place], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(not kernels.available(), reason="needs numba")
@priors
def test_the_compiled_gradient_is_that_of_torch(prior):
    space = genome(prior=prior)
    candidates = population(space)
    logits, y = situation()
    targets = TrainingTargets(y, counts=COUNTS, costs=COSTS)
    losses = space.losses(candidates)
    assert type(losses.losses if prior else losses) is CompiledTargets
    slow = space.losses(Vectors(candidates.vectors().double()))
    wide = TrainingTargets(y.double(), counts=COUNTS.double(), costs=COSTS.double())
    torch.testing.assert_close(
        losses.bind(targets).logit_gradient(logits),
        slow.bind(wide).logit_gradient(logits.double()).float(),
        rtol=1e-4,
        atol=1e-6,
    )


@priors
@pytest.mark.parametrize("costs", [None, COSTS])
def test_at_the_start_they_change_nothing(costs, prior):
    space, plain = genome(prior=prior), genome(prior=prior, costs=False)
    assert space.size == plain.size + 2
    logits, y = situation()
    one, other = (
        x.losses(x.sample(P, Stream(0)))
        .bind(TrainingTargets(y, counts=COUNTS, costs=costs))
        .logit_gradient(logits)
        for x in (space, plain)
    )
    assert torch.equal(one, other)


def test_where_mistakes_cost_alike_the_decay_changes_nothing():
    space = genome()
    vectors = population(space).vectors()
    vectors[:, -2] = 0
    plain = genome(costs=False).losses(Vectors(vectors[:, :-2]))
    logits, y = situation()
    found = space.losses(Vectors(vectors)).bind(TrainingTargets(y)).logit_gradient(logits)
    assert torch.equal(found, plain.bind(TrainingTargets(y)).logit_gradient(logits))


def test_level_curves_with_a_decay_are_soft_labels_in_an_order():
    """Díaz 2019 but for the label's own class: others share their targets by softmax(-μ·cost)."""
    space = genome(smoothing=0.4)
    vectors = space.sample(1, Stream(0)).vectors()
    vectors[:, -1] = 0.5
    logits, y = situation()
    bound = space.losses(Vectors(vectors)).bind(TrainingTargets(y, costs=COSTS))
    targets = -bound.terms(logits[:1]) / logits[:1].log_softmax(-1)
    cost = TrainingTargets(y, costs=COSTS).cost
    shares = (-0.5 * STEP * cost).masked_fill(y == 1, -torch.inf).softmax(-1)
    expected = 0.4 * (C - 1) / C * shares + (0.6 + 0.4 / C) * y
    torch.testing.assert_close(targets[0], expected, rtol=1e-4, atol=1e-6)


@priors
def test_a_minibatch_and_some_rows_have_their_own(prior):
    space = genome(prior=prior)
    logits, y = situation()
    index = torch.tensor([[4, 0], [2, 2]])
    rows = torch.arange(T)[:, None]
    losses = space.losses(population(space))
    targets = TrainingTargets(y, counts=COUNTS, costs=COSTS)
    picked = losses.bind(targets).minibatch(index)[torch.tensor([2, 0])]
    part = TrainingTargets(y[rows, index], counts=COUNTS, costs=COSTS)
    some = logits[:, rows, index]
    expected = losses.bind(part).logit_gradient(some)[[2, 0]]
    torch.testing.assert_close(picked.logit_gradient(some[[2, 0]]), expected)


def test_extreme_decays_stay_finite():
    space = genome()
    vectors = population(space).vectors()
    vectors[:, -1] = torch.tensor([-300.0, 300.0, 1e4])
    logits, y = situation()
    for target in (y, 0.9 * y + 0.1 / C):
        bound = space.losses(Vectors(vectors)).bind(TrainingTargets(target, costs=COSTS))
        assert bound.logit_gradient(logits).isfinite().all()
        assert bound(logits).isfinite().all()


@priors
def test_a_criterion_and_what_is_written_of_it_see_the_costs(prior, tmp_path):
    space = genome(prior=prior)
    candidate = population(space)[:1]
    logits, label = situation()[0][0, 0], Stream(3).integers(C, B)
    loss = GenomeCriterion(space, candidate, prior=COUNTS[0], costs=MATRICES[0])
    assert loss.reads_costs
    assert "by cost" in loss.describe()
    targets = TrainingTargets(one_hot(label, C)[None], counts=COUNTS[:1], costs=COSTS[:1])
    expected = space.losses(candidate).bind(targets)(logits[None, None])[0, 0]
    torch.testing.assert_close(loss(logits, label), expected)
    blind = loss.with_options(costs=None)(logits, label)
    assert abs(float(blind - expected)) > 1e-4 * float(expected)
    torch.testing.assert_close(written(loss, tmp_path / "x.py")(logits, label), expected)
    torch.testing.assert_close(program(loss, tmp_path / "x.pt2")(logits, label), expected)


def test_they_are_off_by_default():
    space = LearnedTargets()
    losses = space.losses(space.sample(2, Stream(0)))
    assert isinstance(losses, Targets)
    assert not space.reads_costs
    bound = losses.bind(TrainingTargets(situation()[1]))
    assert bound.cost is None
    assert bound.factors is None
