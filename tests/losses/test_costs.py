"""What losses see of what each mistake costs, against numpy."""

import re

import numpy as np
import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.losses import zoo
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.costs import cost_matrix, image_costs, relative_costs
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.zoo_costs import COSTS

T = 2
B = 6
C = 4
MATRIX = np.array(
    [
        [[0, 1, 2, 3], [5, 0, 1, 1], [2, 2, 0, 7], [4, 1, 1, 0]],
        [[1, 2, 9, 3], [0, -1, 4, 4], [1, 1, 1, 2], [6, 5, 5, 2]],
    ],
    dtype=float,
)
forms = pytest.mark.parametrize("form", ["each", "grouped"])


def relative(matrix):
    """The definition, entry by entry."""
    above = np.array([[row[c] - row[t] for c in range(C)] for t, row in enumerate(matrix)])
    return above / np.mean([above[t, c] for t in range(C) for c in range(C) if t != c])


RELATIVE = np.stack([relative(matrix) for matrix in MATRIX])


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def margin(z, t, k, tau=1.0, alpha=0.0):
    logp = np.log(softmax(z + tau * k))
    return -(1 - alpha) * logp[t] - alpha * logp.mean()


# Each loss of one image, of its logits, its class and its row of costs.
CASES = {
    "softmax_margin": margin,
    "softmax_margin(tau=.3)": lambda z, t, k: margin(z, t, k, 0.3),
    "softmax_margin_smoothed(tau=2, alpha=.1)": lambda z, t, k: margin(z, t, k, 2, 0.1),
    "expected_cost": lambda z, t, k: (softmax(z) * k).sum(),
    "ce_expected_cost(weight=3)": lambda z, t, k: (
        3 * (softmax(z) * k).sum() - np.log(softmax(z)[t])
    ),
    "soft_ordinal(tau=2)": lambda z, t, k: -(np.exp(-2 * k) * np.log(softmax(z))).sum(),
    "sum(-y*logp, scale=exp(.2*cost))": lambda z, t, k: -np.log(softmax(np.exp(0.2 * k) * z))[t],
    "mean(cost**2*p*y + p*cost)": lambda z, t, k: (softmax(z) * k).mean(),
}


def losses(form="each"):
    return Formulas.of([zoo.read(spec) for spec in CASES], form)


def situation():
    logits = (2 * Stream(0).normal(len(CASES), T, B, C)).double()
    label = Stream(1).integers(C, T, B)
    return logits, label, one_hot(label, C).double()


def told(y, form="each"):
    costs = relative_costs(torch.tensor(MATRIX))
    return losses(form).bind(TrainingTargets(y, costs=costs))


def expected(row, z, label):
    spec = list(CASES)[row]
    return [
        np.mean([CASES[spec](z[t, b], label[t, b], RELATIVE[t][label[t, b]]) for b in range(B)])
        for t in range(T)
    ]


@forms
def test_values_and_gradients_are_those_of_the_formula_written_out(form):
    logits, label, y = situation()
    bound = told(y, form)
    values = bound(logits)
    slope = bound.logit_gradient(logits)
    for row in range(len(CASES)):
        z = logits[row].numpy()
        np.testing.assert_allclose(values[row], expected(row, z, label), rtol=1e-10)
        for b in range(3):
            for c in range(C):
                step = np.zeros_like(z)
                step[:, b, c] = 1e-5
                ends = [np.array(expected(row, z + sign * step, label)) for sign in (1, -1)]
                numeric = (ends[0] - ends[1]) / 2e-5
                np.testing.assert_allclose(slope[row, :, b, c], numeric, rtol=1e-5, atol=1e-9)


@forms
def test_a_minibatch_has_the_costs_of_its_images(form):
    logits, _, y = situation()
    index = torch.tensor([[5, 0], [2, 2]])
    rows = torch.arange(T)[:, None]
    picked, alone = told(y, form).minibatch(index), told(y[rows, index], form)
    some = logits[:, rows, index]
    assert torch.equal(picked(some), alone(some))
    assert torch.equal(picked.logit_gradient(some), alone.logit_gradient(some))


@forms
def test_without_costs_all_mistakes_cost_one(form):
    logits, _, y = situation()
    logits, y = logits.float(), y.float()
    alike = relative_costs(3 - 3 * torch.eye(C)).expand(T, C, C)
    without = losses(form).bind(TrainingTargets(y))
    other = losses(form).bind(TrainingTargets(y, costs=alike))
    assert torch.equal(without(logits), other(logits))
    assert torch.equal(without.logit_gradient(logits), other.logit_gradient(logits))


def test_a_soft_label_has_the_mean_costs_of_its_classes():
    costs = relative_costs(torch.tensor(MATRIX))
    target = torch.tensor([[[0.5, 0.25, 0.25, 0]], [[0.0, 0, 0.1, 0.9]]], dtype=torch.float64)
    found = TrainingTargets(target, costs=costs).cost
    for t in range(T):
        mean = sum(float(target[t, 0, k]) * RELATIVE[t][k] for k in range(C))
        np.testing.assert_allclose(found[t, 0], mean)
    assert torch.equal(image_costs(target, None), 1 - target)


def test_costs_are_above_the_right_answer_in_units_of_the_mean_mistake():
    costs = relative_costs(torch.tensor(MATRIX))
    np.testing.assert_allclose(costs, RELATIVE)
    assert costs.diagonal(dim1=-2, dim2=-1).eq(0).all()
    torch.testing.assert_close(costs.sum((-2, -1)), torch.full((T,), C * (C - 1.0)).double())
    torch.testing.assert_close(relative_costs(costs), costs)
    assert relative_costs(torch.tensor([[[1.0, 0], [0, 1]], [[0, 0], [0, 0]]])).eq(0).all()


@pytest.mark.parametrize("entry", COSTS, ids=lambda entry: entry.name)
def test_a_dear_mistake_is_pushed_down_more_than_a_cheap_one(entry):
    """Of two wrong classes that are equally probable."""
    costs = relative_costs(torch.tensor([[[0.0, 1, 5], [1, 0, 1], [1, 1, 0]]]))
    target = one_hot(torch.zeros(1, 1, dtype=torch.int64), 3)
    for spec in entry.variants:
        bound = Formulas.of([zoo.read(spec)]).bind(TrainingTargets(target, costs=costs))
        pushed = bound.logit_gradient(torch.zeros(1, 1, 1, 3))[0, 0, 0]
        assert pushed[2] > pushed[1]
        assert pushed[0] < 0


@pytest.mark.parametrize("tau", ["0.5*cost", "cost*0.5"])
def test_texts_of_one_loss_with_costs_share_a_digest(tau):
    formula = Formula.parse(f"sum(-y*logp, shift={tau})")
    assert formula.digest == Formula.parse("sum(logp*(-y), shift=.5*cost)").digest
    assert Formula.parse(str(formula)) == formula
    assert r"\operatorname{softmax}(z + " in formula.latex()


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([1.0, 2], "costs must have a row for each class and as many columns, got the shape (2,)"),
        (
            [[0.0, 1, 2], [1, 0, 1]],
            "costs must have a row for each class and as many columns, got the shape (2, 3)",
        ),
        (
            [[0, 1, 2], [1, 0]],
            "costs must be numbers, a row for each true class and a column for each answer, "
            "got [[0, 1, 2], [1, 0]]",
        ),
        (
            "costs.csv",
            "costs must be numbers, a row for each true class and a column for each answer, "
            "got 'costs.csv'",
        ),
        ([[0.0, float("inf")], [1, 0]], "costs must be finite, got inf"),
        (
            [[1.0, 0], [0, 1]],
            "costs must be higher for mistakes, on average, than for right answers",
        ),
    ],
)
def test_what_are_no_costs_is_refused(costs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cost_matrix(costs)
