"""Taylor polynomials against a plain reading of their definition, and against published ones."""

import pytest
import torch

from metaloss.core.population import Vectors
from metaloss.core.registry import build
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes.taylor import TaylorPolynomial
from metaloss.losses import zoo
from metaloss.losses.base import (
    Clock,
    CrossEntropies,
    TrainingTargets,
    logit_gradient_by_autograd,
    one_hot,
)
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.phenotype import gain

P = 3
T = 2
B = 3
ORDERS = (2, 3, 4)
orders = pytest.mark.parametrize("order", ORDERS)
classes = pytest.mark.parametrize("C", [2, 5, 10])
COUNTS = torch.arange(1.0, 2 * 10 + 1).reshape(T, 10)
PUBLISHED = ("taylorglo_mnist", "taylorglo_lossga")


def genome(order=3, **more):
    return TaylorPolynomial(order=order, **more)


def population(space, n=P, spread=1.0):
    start = space.sample(n, Stream(0)).vectors().double()
    return Vectors(start + spread * Stream(1).normal(*start.shape))


def situation(n=P, C=10, soft=False):
    """Logits from unsure to sure, and targets."""
    logits = (3 * Stream(2).normal(n, T, B, C)).double()
    if soft:
        return logits, Stream(3).normal(T, B, C).double().softmax(-1)
    return logits, one_hot(Stream(4).integers(C, T, B), C).double()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def by_definition(order, genes, y, p):
    """-Σ θ_ij (y - θ0)^i (p - θ1)^j over j >= 1 and i + j <= order, summed over classes."""
    left = iter(genes[2:].tolist())
    total = torch.zeros_like(p)
    for i in range(order):
        for j in range(1, order - i + 1):
            total = total + next(left) * (y - genes[0]) ** i * (p - genes[1]) ** j
    return -total.sum(-1)


@orders
@classes
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_values_and_gradients_follow_the_definition(order, C, soft):
    space = genome(order)
    candidates, (logits, target) = population(space), situation(C=C, soft=soft)
    losses = space.losses(candidates).bind(TrainingTargets(target))
    logits.requires_grad_()
    values = [
        by_definition(order, candidates.values[i], target, logits[i].softmax(-1)) for i in range(P)
    ]
    expected = torch.stack(values).mean(-1)
    close(losses(logits), expected)
    close(losses.terms(logits).sum(-1).mean(-1), expected)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    close(losses.logit_gradient(logits.detach()), gradient)


@orders
def test_a_candidate_is_as_many_numbers_as_the_order_asks_for(order):
    assert genome(order).size == {2: 5, 3: 8, 4: 12}[order]
    assert genome(order, clock=True).size == 2 + 3 * {2: 3, 3: 6, 4: 10}[order]
    assert genome(order, prior=True).sample(2, Stream(0)).vectors().shape[1] == (
        genome(order).size + 2
    )


# --- published examples ---


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_published_examples_are_points_of_the_space(name, order, soft):
    """Number by number in the third order, and by a fit in any space that holds them."""
    logits, target = situation(1, soft=soft)
    targets = TrainingTargets(target)
    published = Formulas.of([zoo.read(name)]).bind(targets)
    slope = published.logit_gradient(logits)
    fitted = genome(order, start=name)
    start = Vectors(fitted.sample(1, Stream(0)).values.double())
    torch.testing.assert_close(
        fitted.losses(start).bind(targets).logit_gradient(logits), slope, rtol=1e-5, atol=1e-6
    )
    if order == 3:
        thetas = [default for default, *_ in zoo.ENTRIES[name].parameters.values()]
        point = Vectors(torch.tensor([thetas], dtype=torch.float64))
        ours = genome().losses(point).bind(targets)
        close(ours(logits), published(logits))
        close(ours.logit_gradient(logits), slope)
        (formula,) = genome().formulas(point)
        close(Formulas.of([formula]).bind(targets)(logits), published(logits))


# --- where a search starts ---


@orders
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_search_starts_from_mse_exactly(order, soft):
    space = genome(order)
    logits, target = situation(soft=soft)
    losses = space.losses(Vectors(space.sample(P, Stream(0)).values.double()))
    mse = Formulas.of([zoo.read("mse")] * P).bind(TrainingTargets(target))
    bound = losses.bind(TrainingTargets(target))
    close(bound.logit_gradient(logits), mse.logit_gradient(logits))
    # But for the square of y, which has no gradient.
    close(bound(logits) + target.square().sum(-1).mean(-1), mse(logits))
    assert space.describe(space.sample(1, Stream(0)), 0) == "sum(1.0 * square(p) - 2.0 * y * p)"


def test_the_best_fit_of_cross_entropy_comes_nearer_with_every_order():
    logits, target = situation(1)
    targets = TrainingTargets(target)
    expected = CrossEntropies.of(1).bind(targets).logit_gradient(logits)
    missed = []
    for order in ORDERS:
        space = genome(order, start="ce")
        start = Vectors(space.sample(1, Stream(0)).values.double())
        found = space.losses(start).bind(targets).logit_gradient(logits)
        missed.append(float((found - expected).norm() / expected.norm()))
        assert gain(space.losses(start), 10) > 0.2
    assert 1 > missed[0] > missed[1] > missed[2]


def test_the_published_start_is_all_zeros():
    assert not genome(start="0*p").sample(2, Stream(0)).values.any()


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"order": 5}, "order"),
        ({"order": 1}, "order"),
        ({"start": "mes"}, "mes"),
        ({"start": "dice"}, "dice"),
        ({"start": "exact_log(y)*p"}, "not finite"),
        ({"invariant_classes": 1}, "invariant_classes"),
        ({"sigma": 1}, "unknown setting 'sigma'"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(table, line):
    with pytest.raises(SettingsError, match=line) as caught:
        build("genomes", {"kind": "taylor", **table})
    assert "\n" not in str(caught.value)


# --- the invariant ---


def test_the_invariant_is_the_published_rule():
    """As printed in the code, for the third order."""
    space = genome(invariant=True)
    candidates = population(space, 200, 1.2)
    c0, c1, c2, c3, c4, c5, c6, c7 = candidates.values.unbind(1)
    n = 10
    first = -2 * c1 * c3 + 2 * c0 * c1 * c6 + c2 - c5 * c0 + c7 * c0**2 + 3 * c4 * c1**2
    h = 2 * c3 - 2 * c6 * c0 - 6 * c4 * c1
    hh = 3 * c4
    y = -2 * c1 * c6 + c5 - 2 * c7 * c0
    yy = c7
    hy = 2 * c6
    refused = y + yy + hy / n < (n - 2) * (first + h / n + hh / n**2)
    found = space.valid(candidates)
    assert torch.equal(found.bool(), refused)
    assert 0 < int(found.sum()) < 200
    assert space.reasons[1] == "invariant"
    assert not genome().valid(candidates).any()
    other = genome(invariant=True, invariant_classes=2).valid(candidates)
    assert not torch.equal(other, found)


@orders
def test_the_invariant_lets_mse_and_cross_entropy_s_fit_through(order):
    for start in ("mse", "ce"):
        space = genome(order, start=start, invariant=True)
        assert not space.valid(space.sample(2, Stream(0))).any()
    turned = Vectors(-space.sample(2, Stream(0)).values)
    assert space.valid(turned).all()


# --- formulas ---


@pytest.mark.parametrize(
    "more", [{}, {"clock": True}, {"prior": True}, {"clock": True, "prior": True}]
)
@orders
def test_a_candidate_s_formula_is_read_again_and_trains_alike(order, more):
    space = genome(order, **more)
    candidates = population(space)
    formulas = space.formulas(candidates)
    assert all(Formula.parse(str(x)) == x for x in formulas)
    logits, target = situation()
    targets = TrainingTargets(target, counts=1.0 + Stream(5).integers(20, T, 10))
    ours, theirs = space.losses(candidates).bind(targets), Formulas.of(formulas).bind(targets)
    for clock in (Clock.of(0, 20), Clock.of(30, 200)):
        if space.reads_clock:
            ours, theirs = ours.at(clock), theirs.at(clock)
        slope = theirs.logit_gradient(logits)
        found = ours.logit_gradient(logits)
        # Formulas have six digits.
        assert (found - slope).abs().max() <= 1e-4 * slope.abs().max()
        torch.testing.assert_close(ours(logits), theirs(logits), rtol=1e-4, atol=1e-5)


def test_numbers_that_are_none_give_a_formula_all_the_same():
    vectors = torch.ones(4, 8)
    vectors[0, 2], vectors[1, 3], vectors[2], vectors[3] = torch.nan, torch.inf, 1e30, 0
    formulas = genome().formulas(Vectors(vectors))
    assert all(Formula.parse(str(x)) == x for x in formulas)
    assert str(formulas[3]) == "sum(0.0 * p)"


# --- what all losses promise ---


@classes
def test_the_order_of_the_classes_does_not_matter(C):
    logits, target = situation(C=C)
    order = Stream(5).permutation(C)
    losses = genome().losses(population(genome()))
    slope = losses.bind(TrainingTargets(target)).logit_gradient(logits)[..., order]
    moved = losses.bind(TrainingTargets(target[..., order])).logit_gradient(logits[..., order])
    close(moved, slope)


def test_the_gradient_is_autograd_s_far_from_the_point_too():
    vectors = population(genome(4)).values
    vectors[:, :2] *= 30
    logits, target = situation()
    losses = genome(4).losses(Vectors(vectors)).bind(TrainingTargets(target))
    expected = logit_gradient_by_autograd(losses, logits)
    found = losses.logit_gradient(logits)
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_a_masked_class_has_no_pull_and_harms_no_other():
    logits, target = situation()
    target[..., 0], target[..., 1] = 0.0, 1.0
    logits[..., 0] = -torch.inf
    losses = genome().losses(population(genome()))
    gradient = losses.bind(TrainingTargets(target)).logit_gradient(logits)
    assert gradient.isfinite().all()
    assert not gradient[..., 0].any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30, 0.0])
def test_rows_are_blind_to_each_other(bad):
    logits, target = situation()
    vectors = population(genome()).values
    changed = vectors.clone()
    changed[1] = bad
    before, after = (
        genome().losses(Vectors(x)).bind(TrainingTargets(target)).logit_gradient(logits)
        for x in (vectors, changed)
    )
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_losses_can_be_trained_through():
    logits, target = situation()
    vectors = population(genome(clock=True)).values.requires_grad_()
    losses = genome(clock=True).losses(Vectors(vectors)).bind(TrainingTargets(target))
    losses.at(Clock.of(3, 10)).logit_gradient(logits).square().sum().backward()
    assert vectors.grad.isfinite().all()
    # A term of p alone moves no logit.
    still = torch.arange(20) % 6 == 2
    assert torch.equal(vectors.grad.any(0), ~still)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
def test_on_even_classes_the_prior_changes_nothing(dtype):
    space = genome(prior=True)
    vectors = population(space).values.to(dtype)
    logits, target = (x.to(dtype) for x in situation())
    targets = TrainingTargets(target, counts=torch.full((T, 10), 5.0))
    seen = space.losses(Vectors(vectors)).bind(targets)
    blind = genome().losses(Vectors(vectors[:, :-2])).bind(targets)
    expected = blind.logit_gradient(logits)
    torch.testing.assert_close(seen.logit_gradient(logits), expected, rtol=1e-4, atol=1e-5)
    uneven = space.losses(Vectors(vectors)).bind(TrainingTargets(target, counts=COUNTS))
    assert not torch.allclose(uneven.logit_gradient(logits), blind.logit_gradient(logits))


def test_a_minibatch_and_some_rows_have_their_own():
    logits, target = situation()
    index = torch.tensor([[2, 0], [1, 1]])
    rows = torch.arange(T)[:, None]
    losses = genome(prior=True).losses(population(genome(prior=True)))
    picked = losses.bind(TrainingTargets(target, counts=COUNTS)).minibatch(index)
    alone = losses.bind(TrainingTargets(target[rows, index], counts=COUNTS))
    some = logits[:, rows, index]
    close(picked.logit_gradient(some), alone.logit_gradient(some))
    chosen = torch.tensor([2, 0])
    close(picked[chosen].logit_gradient(some[chosen]), alone.logit_gradient(some)[chosen])
