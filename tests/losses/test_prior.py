"""What losses see of the classes' shares, and what formulas do to the logits before the softmax."""

import re

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.prior import class_counts, class_terminals

T = 2
B = 6
C = 4
COUNTS = torch.tensor([[20.0, 5, 2, 1], [3.0, 3, 3, 3]], dtype=torch.float64)
# Each with its softmax's input, of logits, targets, shares, C·shares and counts.
MOVES = {
    "sum(-y*logp, shift=1.5*logprior)": lambda z, y, pi, r, n: z + 1.5 * r.log(),
    "sum(-y*logp, scale=2, shift=-2*y*count**-.25)": lambda z, y, pi, r, n: 2 * (z - y * n**-0.25),
    "sum(square(p - y), scale=prior**.5, temperature=3)": lambda z, y, pi, r, n: z / 3 * pi.sqrt(),
    "mean(-y*logp*exp(-logprior) + p)": lambda z, y, pi, r, n: z,
    "sum(abs(p - y)/(C*prior), shift=.3*y)": lambda z, y, pi, r, n: z + 0.3 * y,
    "-y*logp": lambda z, y, pi, r, n: z,
}
forms = pytest.mark.parametrize("form", ["each", "grouped"])


def losses(form="each"):
    return Formulas.of([Formula.parse(text) for text in MOVES], form)


def situation():
    logits = (3 * Stream(0).normal(len(MOVES), T, B, C)).double()
    return logits, one_hot(Stream(1).integers(C, T, B), C).double()


def written_out(logits, y):
    """The values of all formulas, by torch alone."""
    n = COUNTS[:, None]
    pi = n / n.sum(-1, keepdim=True)
    r = C * pi
    values = []
    for row, move in enumerate(MOVES.values()):
        logp = move(logits[row], y, pi, r, n).log_softmax(-1)
        p = logp.exp()
        values.append(
            [
                (-y * logp).sum(-1),
                (-y * logp).sum(-1),
                (p - y).square().sum(-1),
                (-y * logp / r + p).mean(-1),
                ((p - y).abs() / r).sum(-1),
                (-y * logp).sum(-1),
            ][row].mean(-1)
        )
    return torch.stack(values)


@forms
def test_values_and_gradients_are_those_of_the_formula_written_out(form):
    logits, y = situation()
    logits.requires_grad_()
    expected = written_out(logits, y)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    bound = losses(form).bind(TrainingTargets(y, counts=COUNTS))
    torch.testing.assert_close(bound(logits), expected, rtol=1e-12, atol=0)
    slope = bound.logit_gradient(logits.detach())
    torch.testing.assert_close(slope, gradient, rtol=1e-10, atol=1e-14)


@forms
def test_a_minibatch_sees_the_shares_among_all_images(form):
    logits, y = situation()
    index = torch.tensor([[5, 0], [2, 2]])
    rows = torch.arange(T)[:, None]
    picked = losses(form).bind(TrainingTargets(y, counts=COUNTS)).minibatch(index)
    alone = losses(form).bind(TrainingTargets(y[rows, index], counts=COUNTS))
    some = logits[:, rows, index]
    assert torch.equal(picked(some), alone(some))
    assert torch.equal(picked.logit_gradient(some), alone.logit_gradient(some))


@forms
def test_without_a_prior_classes_are_even(form):
    logits, y = situation()
    logits, y = logits.float(), y.float()
    even = TrainingTargets(y, counts=torch.ones(T, C))
    without, told = losses(form).bind(TrainingTargets(y)), losses(form).bind(even)
    assert torch.equal(without(logits), told(logits))
    assert torch.equal(without.logit_gradient(logits), told.logit_gradient(logits))


@forms
def test_some_rows_keep_their_own_scale_and_shift(form):
    logits, y = situation()
    bound = losses(form).bind(TrainingTargets(y, counts=COUNTS))
    rows = torch.tensor([4, 0, 5])
    expected = bound.logit_gradient(logits)[rows]
    torch.testing.assert_close(bound[rows].logit_gradient(logits[rows]), expected)


def test_the_gradient_of_logit_adjustment_is_the_adjusted_softmax_less_the_target():
    """Menon 2021: the softmax of z + τ ln π in place of that of z."""
    logits, y = situation()
    formula = Formula.parse("sum(-y*logp, shift=tau*logprior)", {"tau": 2.0})
    slope = (
        Formulas.of([formula]).bind(TrainingTargets(y, counts=COUNTS)).logit_gradient(logits[:1])
    )
    pi = COUNTS / COUNTS.sum(-1, keepdim=True)
    weighted = logits[:1].exp() * pi[:, None] ** 2
    expected = (weighted / weighted.sum(-1, keepdim=True) - y) / B
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-14)


def test_even_classes_have_a_logarithm_of_exactly_zero():
    for n in (1, 3, 5, 7, 100):
        for classes in (2, 3, 7, 10, 1000):
            seen = class_terminals(torch.full((classes,), float(n)))
            assert seen["logprior"].eq(0).all()
            torch.testing.assert_close(seen["prior"], torch.full((classes,), 1 / classes))
            assert seen["count"].eq(n).all()


def test_a_class_without_images_counts_as_half_of_one():
    seen = class_terminals(torch.tensor([4.0, 0.0]))
    torch.testing.assert_close(seen["prior"], torch.tensor([4, 0.5]) / 4.5)
    torch.testing.assert_close(seen["logprior"], (2 * torch.tensor([4, 0.5]) / 4.5).log())
    assert seen["count"].tolist() == [4, 0.5]


def test_shares_are_taken_as_those_of_many_images():
    seen = class_terminals(class_counts([0.7, 0.2, 0.1]))
    torch.testing.assert_close(seen["prior"], torch.tensor([0.7, 0.2, 0.1]))
    assert class_terminals(class_counts([1.0, 0.0]))["logprior"].isfinite().all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([[1.0, 2]], "prior must be one number per class, got the shape (1, 2)"),
        ([1.0, -2], "prior must be finite and not negative, got -2.0"),
        ([1.0, float("nan")], "prior must be finite and not negative, got nan"),
        (["many", "few"], "prior must be one number per class, got ['many', 'few']"),
        ([0, 0], "prior must have an image of at least one class, got only 0"),
    ],
)
def test_what_is_no_prior_is_refused(prior, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        class_counts(prior)
