"""Losses that see how far a training is, and the inner loop that tells them."""

import math

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.genomes._filters import Filters, measured
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.loop import Inner, train
from metaloss.losses import phenotype
from metaloss.losses.base import (
    Clock,
    CrossEntropies,
    TrainingTargets,
    at,
    logit_gradient_by_autograd,
    one_hot,
    reads_clock,
)
from metaloss.losses.clock import DEFAULT_STEPS, clock_terminals
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.parser import parse
from metaloss.search.novelty import SeenLosses

T = 2
B = 6
C = 4
# Each with its values of p, log p, y, t and ln N, and with what stands before the softmax.
LOSSES = {
    "-y*logp*(1 + t)": lambda p, logp, y, t, n: -y * logp * (1 + t),
    "sum(square(p - y*exp(-t)) + .1*logn*p*y)": lambda p, logp, y, t, n: (
        (p - y * math.exp(-t)) ** 2 + 0.1 * n * p * y
    ),
    "mean(-y*logp + t*t*logn*C*p)": lambda p, logp, y, t, n: (-y * logp + t * t * n * C * p) / C,
    "sum(-y*logp, scale=1 + t, shift=logn*prior)": lambda p, logp, y, t, n: -y * logp,
    "-y*logp": lambda p, logp, y, t, n: -y * logp,
    "t*logn": lambda p, logp, y, t, n: torch.full_like(p, t * n),
}
CLOCKS = [(0, 20), (13, 20), (399, 400)]
clocks = pytest.mark.parametrize(("step", "steps"), CLOCKS)
forms = pytest.mark.parametrize("form", ["each", "grouped"])


def losses(form="each"):
    return Formulas.of([Formula.parse(text) for text in LOSSES], form)


def situation():
    logits = (2 * Stream(0).normal(len(LOSSES), T, B, C)).double()
    return logits, one_hot(Stream(1).integers(C, T, B), C).double()


def written_out(logits, y, step, steps):
    """The values of all losses, by torch alone."""
    t, n = step / steps, math.log(steps)
    values = []
    for row, (text, terms) in enumerate(LOSSES.items()):
        z = (1 + t) * logits[row] + n / C if "scale" in text else logits[row]
        logp = z.log_softmax(-1)
        values.append(terms(logp.exp(), logp, y, t, n).sum(-1).mean(-1))
    return torch.stack(values)


@forms
@clocks
def test_values_and_gradients_are_those_at_this_step(form, step, steps):
    logits, y = situation()
    logits.requires_grad_()
    expected = written_out(logits, y, step, steps)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    # The second: bound losses that are told several times show the last.
    for bound in (
        losses(form).at(Clock.of(step, steps)).bind(TrainingTargets(y)),
        losses(form).bind(TrainingTargets(y)).at(Clock.of(1, 2)).at(Clock.of(step, steps)),
    ):
        torch.testing.assert_close(bound(logits.detach()), expected.detach())
        slope = bound.logit_gradient(logits.detach())
        torch.testing.assert_close(slope, gradient)
        torch.testing.assert_close(slope, logit_gradient_by_autograd(bound, logits.detach()))


@pytest.mark.parametrize(("step", "steps"), CLOCKS[:2])
def test_gradients_are_differences_of_values_at_two_steps(step, steps):
    logits, y = situation()
    bound = losses().bind(TrainingTargets(y)).at(Clock.of(step, steps))
    slope = bound.logit_gradient(logits)
    for place in ((0, 1, 2), (1, 0, 3), (1, 5, 0)):
        moved = torch.zeros_like(logits)
        moved[(slice(None), *place)] = 1e-6
        difference = (bound(logits + moved) - bound(logits - moved))[:, place[0]] / 2e-6
        torch.testing.assert_close(slope[(slice(None), *place)], difference, rtol=1e-5, atol=1e-8)


@forms
def test_a_minibatch_and_some_rows_are_told_as_well(form):
    logits, y = situation()
    index = torch.tensor([[5, 0], [2, 2]])
    some = torch.arange(T)[:, None], index
    bound = losses(form).bind(TrainingTargets(y))
    one = bound.minibatch(index).at(Clock.of(3, 7)).logit_gradient(logits[:, *some])
    other = bound.at(Clock.of(3, 7)).minibatch(index).logit_gradient(logits[:, *some])
    assert torch.equal(one, other)
    alone = losses(form).at(Clock.of(3, 7)).bind(TrainingTargets(y[some]))
    torch.testing.assert_close(one, alone.logit_gradient(logits[:, *some]))
    rows = torch.tensor([3, 0])
    torch.testing.assert_close(
        bound.at(Clock.of(3, 7))[rows].logit_gradient(logits[rows]),
        bound.at(Clock.of(3, 7)).logit_gradient(logits)[rows],
    )


def test_without_a_clock_a_loss_is_half_way_through_fifty_steps():
    logits, y = situation()
    bound = losses().bind(TrainingTargets(y))
    assert DEFAULT_STEPS == 50
    torch.testing.assert_close(bound(logits), written_out(logits, y, 25, 50))
    assert bound.clock.centred == (0, 0)


def test_a_loss_that_sees_nothing_of_the_clock_says_so_and_stays_as_it_is():
    ce = CrossEntropies.of(2)
    assert not reads_clock(ce)
    assert at(ce, Clock.of(0, 20)) is ce
    assert not reads_clock(losses()[4:5])
    assert reads_clock(losses())
    assert reads_clock(losses()[3:4])
    assert at(losses(), Clock.of(1, 4)).clock.t == 0.25


@pytest.mark.parametrize(("step", "steps"), [(-1, 20), (21, 20), (0, 0), (1, -3)])
def test_a_step_that_is_not_there_is_refused(step, steps):
    with pytest.raises(ValueError, match=f"got step {step} of {steps}"):
        clock_terminals(step, steps)


def test_the_language_reads_and_prints_the_clock():
    e = parse("-y*logp*(1 - t)**2/logn")
    assert e.reads_clock
    assert str(parse(str(e))) == str(e)
    assert r"\ln N" in e.latex()
    names = {x.name: x for x in e.to_sympy().free_symbols}
    point = {names["t"]: 0.5, names["N"]: math.exp(2), names["p"]: 0.5, names["y"]: 1}
    assert float(e.to_sympy().subs(point)) == pytest.approx(math.log(2) / 8)
    # A loss's own parameter may have the name.
    assert not Formula.parse("-y*logp*t", {"t": 2.0}).reads_clock
    assert str(Formula.parse("-y*logp*t", {"t": 2.0})) == "sum(-y * logp * 2.0)"


def test_the_gain_is_that_of_the_first_step():
    for text, gain in (("-y*logp*(1 + t)", 1.0), ("-y*logp*(2 - t)", 2.0), ("-y*logp*t", 0.0)):
        loss = Formulas.of([Formula.parse(text)])
        assert phenotype.gain(loss, 10) == pytest.approx(gain)
        curve, pull = measured(Formula.parse(text).expression, Filters().classes)
        assert pull == pytest.approx(gain, abs=1e-6)
        # The curve is that of the middle.
        torch.testing.assert_close(curve.flip(0), phenotype.curve(loss), rtol=1e-6, atol=1e-6)


def test_losses_that_are_alike_half_way_through_alone_are_two():
    seen = SeenLosses(Filters())
    seen.add(Formula.parse("-y*logp"))
    assert not seen.reason_seen(Formula.parse("-y*logp*(t + .5)"))


# --- the inner loop ---


@pytest.mark.parametrize("batch", [None, 4])
def test_a_training_tells_every_step_from_zero_on(episodes, batch, monkeypatch):
    heard = []
    tell = Formulas.at
    monkeypatch.setattr(
        Formulas, "at", lambda self, x: heard.append((x.t, x.logn)) or tell(self, x)
    )
    keys = [Stream(0).at("task", t) for t in range(T)]
    tasks = episodes.sample(keys)
    model = Mlp(hidden=(5,))
    bound = model.bind(tasks, keys)
    targets = TrainingTargets(tasks.train.target)
    for text, expected in (
        ("-y*logp*(1 + t)", [(step / 3, math.log(3)) for step in (0, 0, 1, 2)]),
        ("-y*logp", []),
    ):
        loss = Formulas.of([Formula.parse(text)]).bind(targets)
        inner = Inner(steps=3, batch=batch)
        train(loss, model, bound.init(1), bound.train, inner=inner, keys=keys)
        assert heard == expected
        heard.clear()


def test_a_loss_that_falls_over_a_training_is_a_falling_rate(episodes):
    keys = [Stream(0).at("task", t) for t in range(T)]
    tasks = episodes.sample(keys)
    model = Mlp(hidden=(5,))
    bound = model.bind(tasks, keys)
    targets = TrainingTargets(tasks.train.target)
    fading = Formulas.of([Formula.parse("-y*logp*(1 - t)")]).bind(targets)
    ours = train(fading, model, bound.init(1), bound.train, inner=Inner(steps=4))
    linear = Inner(steps=4, schedule="linear")
    ce = Formulas.of([Formula.parse("-y*logp")]).bind(targets)
    theirs = train(ce, model, bound.init(1), bound.train, inner=linear)
    for name, x in ours.items():
        torch.testing.assert_close(x, theirs[name])
