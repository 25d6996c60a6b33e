"""Learned targets against a plain reading of their definition.

They start as label smoothing, and no gradient goes through them.
"""

import pytest
import torch
import torch.nn.functional as F

from metaloss.core.population import Vectors
from metaloss.core.registry import build
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses.base import (
    CrossEntropies,
    TrainingTargets,
    logit_gradient_by_autograd,
    one_hot,
)

T = 2
B = 3
GENOME = LearnedTargets()
classes = pytest.mark.parametrize("C", [2, 5, 10, 30])


def population(genome=GENOME, P=3):
    start = genome.sample(P, Stream(0)).vectors().double()
    return Vectors(start + 0.5 * Stream(1).normal(*start.shape))


def situation(P=3, C=10, soft=False):
    """Logits from unsure to sure, and targets."""
    logits = (3 * Stream(2).normal(P, T, B, C)).double()
    if soft:
        return logits, Stream(3).normal(T, B, C).double().softmax(-1)
    return logits, one_hot(Stream(4).integers(C, T, B), C).double()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def curve(genome, values, p):
    """Between the knots along a straight line over log p, level beyond them."""
    knots = [float(x) for x in torch.tensor(genome.knots).log().double()]
    u = float(torch.as_tensor(p).log())
    if u <= knots[0]:
        return values[0]
    for left, right, a, b in zip(knots, knots[1:], values, values[1:], strict=False):
        if u <= right:
            return a + (b - a) * (u - left) / (right - left)
    return values[-1]


def at_home(genome, p, C):
    """A guess reads 1/home, 0 and certainty stay."""
    home = genome.home_classes
    return 1 / home + (p - 1 / C) / (1 - 1 / C) * (1 - 1 / home) if p > 1 / C else p * C / home


@classes
@pytest.mark.parametrize(
    "genome", [GENOME, LearnedTargets(knots=(0.05, 0.4), home_classes=4)], ids=["usual", "small"]
)
def test_values_and_gradients_follow_the_definition(genome, C):
    candidates, (logits, target) = population(genome), situation(C=C)
    losses = genome.losses(candidates).bind(TrainingTargets(target))
    value = losses(logits)
    slope = losses.logit_gradient(logits)
    for i in range(3):
        a, b, d = candidates.values[i].unflatten(0, (3, -1))
        for t in range(T):
            found = []
            for n in range(B):
                p = logits[i, t, n].softmax(0)
                true = int(target[t, n].argmax())
                home = [at_home(genome, x, C) for x in p]
                q = torch.stack(
                    [(curve(genome, b, x) + curve(genome, d, home[true])) / C for x in home]
                )
                q[true] = curve(genome, a, home[true])
                found.append(-(q * p.log()).sum())
                close(slope[i, t, n], (p * q.sum() - q) / B)
            close(value[i, t], torch.stack(found).mean())


@classes
@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_autograd_s_with_the_targets_taken_as_given(C, soft):
    logits, target = situation(C=C, soft=soft)
    losses = GENOME.losses(population()).bind(TrainingTargets(target))
    close(losses.logit_gradient(logits), logit_gradient_by_autograd(losses, logits))
    close(losses.terms(logits).sum(-1).mean(-1), losses(logits))


@classes
def test_the_search_starts_from_label_smoothing(C):
    logits, target = situation(C=C)
    start = LearnedTargets(smoothing=0.2, home_classes=C)
    found = (
        start.losses(start.sample(3, Stream(0)))
        .bind(TrainingTargets(target.float()))
        .logit_gradient(logits.float())
    )
    expected = (
        CrossEntropies.of(3, 0.2)
        .bind(TrainingTargets(target.float()))
        .logit_gradient(logits.float())
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    value = (
        start.losses(start.sample(3, Stream(0)))
        .bind(TrainingTargets(target.float()))(logits.float())
        .mean()
    )
    flat = logits.flatten(0, 2).float()
    labels = target.expand(3, -1, -1, -1).flatten(0, 2).float()
    torch.testing.assert_close(
        value, F.cross_entropy(flat, labels, label_smoothing=0.2), rtol=1e-4, atol=1e-6
    )


@classes
def test_the_order_of_the_classes_does_not_matter(C):
    logits, target = situation(C=C)
    order = Stream(5).permutation(C)
    losses = GENOME.losses(population())
    slope = losses.bind(TrainingTargets(target)).logit_gradient(logits)[..., order]
    close(
        losses.bind(TrainingTargets(target[..., order])).logit_gradient(logits[..., order]), slope
    )


def test_a_guess_is_read_alike_whatever_the_number_of_classes():
    losses = GENOME.losses(population())
    pulls = []
    for C in (2, 5, 10, 100):
        target = one_hot(torch.zeros(1, 1, dtype=torch.int64), C).double()
        q = (
            -losses.bind(TrainingTargets(target)).terms(
                torch.zeros(3, 1, 1, C, dtype=torch.float64)
            )
            / torch.tensor(1.0 / C).log()
        )
        pulls.append(-q[:, 0, 0, 0])
    for other in pulls[1:]:
        torch.testing.assert_close(other, pulls[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30, 0.0])
def test_rows_are_blind_to_each_other(bad):
    logits, target = situation()
    vectors = population().values
    changed = vectors.clone()
    changed[1] = bad
    before, after = (
        GENOME.losses(Vectors(x)).bind(TrainingTargets(target)).logit_gradient(logits)
        for x in (vectors, changed)
    )
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_a_minibatch_sees_its_own_images():
    logits, target = situation()
    index = torch.tensor([[2, 0], [1, 1]])
    rows = torch.arange(T)[:, None]
    losses = GENOME.losses(population())
    picked = (
        losses.bind(TrainingTargets(target)).minibatch(index).logit_gradient(logits[:, rows, index])
    )
    close(
        picked,
        losses.bind(TrainingTargets(target[rows, index])).logit_gradient(logits[:, rows, index]),
    )


@pytest.mark.parametrize(
    "knots", [(), (0.1,), (0.2, 0.1), (0.1, 0.1), (0.0, 0.5), (0.5, 1.0), (0.1, float("nan"))]
)
def test_knots_that_make_no_curve_are_refused(knots):
    with pytest.raises(SettingsError, match="knots") as caught:
        build("genomes", {"kind": "targets", "knots": knots})
    assert "\n" not in str(caught.value)
