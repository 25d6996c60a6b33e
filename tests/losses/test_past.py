"""Losses that see what was predicted for an image before, and the inner loop that remembers it."""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.genomes._filters import Filters, examine
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.loop import Inner, train
from metaloss.losses.base import (
    Clock,
    CrossEntropies,
    TrainingTargets,
    after,
    at,
    logit_gradient_by_autograd,
    one_hot,
    reads_past,
)
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.parser import parse
from metaloss.losses.past import KEPT
from metaloss.losses.prior_adjusted import PriorAdjusted
from metaloss.losses.unit_gain import UnitGain

T = 2
B = 6
C = 4
# Each with its terms of p, log p, y and the past; two that do not read it among them.
LOSSES = {
    "-(.7*y + .3*past)*logp": lambda p, logp, y, m: -(0.7 * y + 0.3 * m) * logp,
    "sum(square(p - past)*exp(-y) + past*past)": lambda p, logp, y, m: (
        (p - m) ** 2 * torch.exp(-y) + m * m
    ),
    "mean(-y*logp + C*past*p)": lambda p, logp, y, m: (-y * logp + C * m * p) / C,
    "-y*logp": lambda p, logp, y, m: -y * logp,
    "past": lambda p, logp, y, m: m + 0 * p,
    "-y*logp*past": lambda p, logp, y, m: -y * logp * m,
}
forms = pytest.mark.parametrize("form", ["each", "grouped"])


def losses(form="each"):
    return Formulas.of([Formula.parse(text) for text in LOSSES], form)


def situation():
    logits = (2 * Stream(0).normal(len(LOSSES), T, B, C)).double()
    return logits, one_hot(Stream(1).integers(C, T, B), C).double()


def written_out(logits, y, past):
    """The values of all losses, by torch alone."""
    logp = logits.log_softmax(-1)
    rows = zip(LOSSES.values(), logp, past, strict=True)
    return torch.stack([terms(p.exp(), p, y, m).sum(-1).mean(-1) for terms, p, m in rows])


@forms
def test_values_and_gradients_take_the_running_mean_as_given(form):
    logits, y = situation()
    bound = losses(form).bind(TrainingTargets(y))
    past = torch.full_like(logits, 1 / C)  # before anything was predicted
    for step in range(3):
        z = (logits + step).roll(step, -1).requires_grad_()
        expected = written_out(z, y, past)
        (gradient,) = torch.autograd.grad(expected.sum(), z)
        torch.testing.assert_close(bound(z.detach()), expected.detach())
        torch.testing.assert_close(bound.logit_gradient(z.detach()), gradient)
        torch.testing.assert_close(logit_gradient_by_autograd(bound, z.detach()), gradient)
        bound = after(bound, z.detach())
        past = KEPT * past + (1 - KEPT) * z.detach().softmax(-1)


@forms
def test_some_rows_and_some_images_keep_their_own_past(form):
    logits, y = situation()
    told = after(losses(form).bind(TrainingTargets(y)), logits)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(
        told[rows].logit_gradient(logits[rows]), told.logit_gradient(logits)[rows]
    )
    torch.testing.assert_close(told[1:3](logits[1:3]), told(logits)[1:3])
    index = torch.tensor([[5, 0], [2, 2]])
    some = torch.arange(T)[:, None], index
    alone = after(losses(form).bind(TrainingTargets(y[some])), logits[:, *some])
    torch.testing.assert_close(
        told.minibatch(index).logit_gradient(logits[:, *some]),
        alone.logit_gradient(logits[:, *some]),
    )


def test_a_loss_that_sees_nothing_of_the_past_stays_as_it_is():
    ce = CrossEntropies.of(2)
    assert not reads_past(ce)
    assert after(ce, torch.zeros(2, T, B, C)) is ce
    assert not reads_past(losses()[3:4])
    assert reads_past(losses())


@pytest.mark.parametrize(
    "around",
    [UnitGain.of, lambda x: PriorAdjusted(x, torch.full((1,), 0.5), torch.full((1,), 0.5))],
)
def test_what_surrounds_a_loss_hands_the_past_on(around):
    logits, y = situation()
    counts = torch.tensor([[3.0, 1, 1, 1]]).expand(T, C)
    bound = around(losses()[:1]).bind(TrainingTargets(y, counts=counts))
    assert reads_past(bound)
    told = after(bound, 3 * logits[:1])
    torch.testing.assert_close(
        told.losses.past.mT, KEPT / C + (1 - KEPT) * (3 * logits[:1]).softmax(-1)
    )
    assert not torch.equal(told.logit_gradient(logits[:1]), bound.logit_gradient(logits[:1]))


def test_the_clock_and_the_past_go_together():
    logits, y = situation()
    both = Formulas.of([Formula.parse("-(y*(1 - t) + past*t)*logp")]).bind(TrainingTargets(y))
    told = at(after(at(both, Clock.of(0, 4)), logits[:1]), Clock.of(1, 4))
    past = KEPT / C + (1 - KEPT) * logits[:1].softmax(-1)
    expected = (-(0.75 * y + 0.25 * past) * logits[:1].log_softmax(-1)).sum(-1).mean(-1)
    torch.testing.assert_close(told(logits[:1]), expected)


@forms
def test_training_remembers_what_each_candidate_predicts(form, episodes):
    texts = ["-(.6*y + .4*past)*logp", "-y*logp", "square(p - y) - past*logp"]
    together = Formulas.of([Formula.parse(text) for text in texts], form)
    keys = [Stream(0).at("task", t) for t in range(T)]
    tasks = episodes.sample(keys)
    bound = Mlp(hidden=(5,)).bind(tasks, keys)

    def trained(found):
        told = found.bind(TrainingTargets(tasks.train.target))
        inner = Inner(steps=6, lr=0.5)
        return train(told, Mlp(hidden=(5,)), bound.init(len(found)), bound.train, inner=inner)

    whole = trained(together)
    for row in range(3):
        for name, value in trained(together[row : row + 1]).items():
            torch.testing.assert_close(whole[name][row : row + 1], value)
    # The one that reads the past trains otherwise than with a past that stands still.
    still = trained(Formulas.of([Formula.parse("-(.6*y + .4*(1/C))*logp")], form))
    assert any(not torch.allclose(x, whole[name][:1], atol=1e-4) for name, x in still.items())


def test_the_language_reads_and_prints_the_past():
    e = parse("-(.7*y + .3*past)*logp")
    assert e.reads_past
    assert not parse("past").varies
    assert str(parse(str(e))) == str(e)
    assert r"\bar{y}" in e.latex()
    names = {x.name for x in e.to_sympy().free_symbols}
    assert names == {"y", "past", "p"}
    assert examine(e, Filters()).reason == 0


@pytest.mark.parametrize("option", ["scale=past", "shift=past"])
def test_the_past_stands_behind_the_softmax(option):
    with pytest.raises(ValueError, match="no p, logp or past"):
        Formula.parse(f"sum(-y*logp, {option})")
