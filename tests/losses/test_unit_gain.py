"""Losses that are divided by their gains pull, at first, as hard as cross-entropy."""

import math

import pytest
import torch

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.losses.base import Clock, CrossEntropies, TrainingTargets, one_hot, reads_clock
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.phenotype import gain, gains
from metaloss.losses.unit_gain import LEAST, UnitGain
from metaloss.tasks.single_training import as_criterion

T = 2
B = 5
C = 4
TEXTS = ("-y*logp", "-7*y*logp", "-y*logp*(3 + t)*logn", "sum(square(p - y))", "y*logp", "p*0*logp")
PULLS = (0, 1, 2, 3)  # of these the gain is above 0


def formulas():
    return Formulas.of([Formula.parse(text) for text in TEXTS])


def networks():
    space = registry.build("genomes", {"kind": "mln", "start": "random", "features": 3})
    return space.losses(space.sample(12, Stream(0)))


def targets_of(n=3):
    space = registry.build("genomes", {"kind": "targets", "clock": True})
    start = space.sample(n, Stream(0)).vectors()
    return space.losses(Vectors(start + 0.1 * Stream(1).normal(*start.shape)))


LOSSES = {"formulas": formulas, "networks": networks, "targets": targets_of}
every = pytest.mark.parametrize("kind", LOSSES)


def situation(n):
    logits = (2 * Stream(2).normal(n, T, C, B)).mT
    return logits, TrainingTargets(one_hot(Stream(3).integers(C, T, B), C))


@every
def test_the_first_gradient_is_as_long_as_cross_entropy_s(kind):
    losses = LOSSES[kind]()
    n = len(losses)
    _, targets = situation(n)
    zero = torch.zeros(n, T, B, C)
    ce = CrossEntropies.of(n).bind(targets).logit_gradient(zero).flatten(1).norm(dim=1)
    bound = UnitGain.of(losses).bind(targets)
    for steps in (20, 400):
        first = bound.at(Clock.of(0, steps)).logit_gradient(zero).flatten(1).norm(dim=1)
        told = losses.at(Clock.of(0, steps)) if reads_clock(losses) else losses
        pulls = gains(told, C) >= LEAST
        assert pulls.any()
        torch.testing.assert_close(first[pulls], ce[pulls])
        assert first[~pulls].isnan().all()


@every
def test_it_is_the_loss_but_for_a_factor_that_stays(kind):
    losses = LOSSES[kind]()
    logits, targets = situation(len(losses))
    bound, plain = UnitGain.of(losses).bind(targets), losses.bind(targets)
    index = torch.tensor([[4, 0], [2, 2]])
    rows = torch.tensor([1, 0])
    for clock in (Clock.of(0, 20), Clock.of(19, 20)):
        one, other = bound, plain
        if reads_clock(losses):
            one, other = bound.at(clock), plain.at(clock)
        factor = one.factor
        torch.testing.assert_close(
            one.logit_gradient(logits), other.logit_gradient(logits) * factor, equal_nan=True
        )
        torch.testing.assert_close(one(logits), other(logits) * factor[:, :, 0, 0], equal_nan=True)
        some = logits[:, torch.arange(T)[:, None], index]
        torch.testing.assert_close(
            one.minibatch(index)[rows].logit_gradient(some[rows]),
            other.minibatch(index)[rows].logit_gradient(some[rows]) * factor[rows],
            equal_nan=True,
        )


def test_gains_of_many_are_those_of_each():
    losses = formulas()
    each = [gain(losses[i : i + 1], C) for i in range(len(losses))]
    assert gains(losses, C).tolist() == pytest.approx(each)
    assert [i for i, x in enumerate(each) if x >= LEAST] == [*PULLS]
    steps = losses.at(Clock.of(7, 100))
    assert float(gains(steps, C)[2]) == pytest.approx(3 * math.log(100))


def test_a_search_with_unit_gains_cannot_tell_scales_apart(open_tiny):
    with Local(workers=1) as engine:
        family = open_tiny()
        plain, unit = (LossEvaluation(engine, [family], Stream(0), None, x) for x in (False, True))
        pair = Formulas.of([Formula.parse("-y*logp"), Formula.parse("-30*y*logp")])
        scores, _ = unit.search_scores(2, 4, pair, Stream(1))
        assert torch.equal(*scores)
        alone, _ = plain.search_scores(2, 4, pair, Stream(1))
        assert torch.equal(alone[0], scores[0])
        assert not torch.equal(*alone)
        flat = Formulas.of([Formula.parse("-y*logp"), Formula.parse("y*logp")])
        assert unit.search_scores(2, 4, flat, Stream(1))[0].isnan().tolist() == [
            [False, False],
            [True, True],
        ]


def test_a_full_training_divides_by_the_same_gain():
    logits, label = (
        torch.randn(6, C, generator=torch.Generator().manual_seed(0)),
        torch.arange(6) % C,
    )
    for losses in (formulas()[1:2], networks()[:1]):
        criterion = as_criterion(UnitGain.of(losses))
        assert criterion.normalise
        plain = as_criterion(losses)
        torch.testing.assert_close(criterion(logits, label), plain(logits, label) / plain.gain(C))
