"""Losses for uneven classes against their printed formulas, in numpy, in value and gradient."""

import math

import numpy as np
import pytest
import torch

import metaloss
from metaloss.core.streams import Stream
from metaloss.losses import zoo
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.zoo_imbalance import IMBALANCE

B = 8
COUNTS = np.array([20.0, 12, 5, 3, 2])
C = len(COUNTS)
PI = COUNTS / COUNTS.sum()


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def adjusted(z, label, tau=1.0):
    return -np.log(softmax(z + tau * np.log(PI)))[label]


def smoothed(z, label, tau, alpha):
    logp = np.log(softmax(z + tau * np.log(PI)))
    return -(1 - alpha) * logp[label] - alpha * logp.mean()


def inverse_frequency(z, label, kappa=1.0):
    n, total = COUNTS[label], COUNTS.sum()
    return (total / (C * n)) ** kappa * -np.log(softmax(z))[label]


def effective(z, label, beta=0.999):
    def weight(n):
        return (1 - beta) / (1 - beta**n)

    return weight(COUNTS[label]) / weight(COUNTS.mean()) * -np.log(softmax(z))[label]


def ldam(z, label, margin=0.5, scale=1.0):
    z = z.copy()
    z[label] -= margin / COUNTS[label] ** 0.25
    return -np.log(softmax(scale * z))[label]


def vs(z, label, gamma=0.15, tau=1.25):
    """As printed, with the largest class, at the temperature that the average one makes of it."""
    temperature = (COUNTS.mean() / COUNTS.max()) ** gamma
    moved = (COUNTS / COUNTS.max()) ** gamma * z / temperature + tau * np.log(PI)
    return -np.log(softmax(moved))[label]


def bootstrap_soft(z, label, beta):
    p = softmax(z)
    t = np.eye(C)[label]
    return -((beta * t + (1 - beta) * p) * np.log(p)).sum()


def divergence(z, label, weight):
    """π KL(y || m) + (1 - π) KL(p || m), over -(1 - π) ln(1 - π)."""
    p = softmax(z)
    m = (1 - weight) * p
    m[label] += weight
    js = weight * -np.log(m[label]) + (1 - weight) * (p * np.log(p / m)).sum()
    return js / (-(1 - weight) * math.log(1 - weight))


def asymmetric(z, label, gamma_pos, gamma_neg, alpha):
    p = softmax(z)
    value = 0.0
    for c in range(C):
        weight = (1 - p[c]) ** gamma_pos if c == label else p[c] ** gamma_neg
        target = (1 - alpha) * (c == label) + alpha / C
        value -= target * weight * np.log(p[c])
    return value


CASES = {
    "class_weights": inverse_frequency,
    "class_weights(kappa=0.3)": lambda z, y: inverse_frequency(z, y, 0.3),
    "effective_number": effective,
    "effective_number(beta=0.7)": lambda z, y: effective(z, y, 0.7),
    "logit_adjustment": adjusted,
    "logit_adjustment_smoothed(tau=2)": lambda z, y: smoothed(z, y, 2, 0.2),
    "balanced_softmax": adjusted,
    "ldam": ldam,
    "ldam(margin=2, scale=3)": lambda z, y: ldam(z, y, 2, 3),
    "vs": vs,
    "vs(gamma=0.3, tau=1)": lambda z, y: vs(z, y, 0.3, 1),
    "bootstrap_soft(beta=0.7)": lambda z, y: bootstrap_soft(z, y, 0.7),
    "jensen_shannon(weight=0.3)": lambda z, y: divergence(z, y, 0.3),
    "asymmetric(gamma_pos=1.5, gamma_neg=3, alpha=0.2)": lambda z, y: asymmetric(z, y, 1.5, 3, 0.2),
}


def situation():
    logits = (2 * Stream(3).normal(1, 1, B, C)).double()
    return logits, Stream(1).integers(C, 1, B)


@pytest.mark.parametrize("spec", CASES)
def test_values_and_gradients_are_those_of_the_printed_formula(spec):
    logits, label = situation()
    targets = TrainingTargets(one_hot(label, C).double(), counts=torch.tensor(COUNTS)[None])
    bound = Formulas.of([zoo.read(spec)]).bind(targets)
    z, y = logits[0, 0].numpy(), label[0].tolist()

    def expected(z):
        return np.mean([CASES[spec](row, c) for row, c in zip(z, y, strict=True)])

    assert float(bound(logits)) == pytest.approx(expected(z), rel=1e-9)
    gradient = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-5
        gradient[place] = (expected(z + step) - expected(z - step)) / 2e-5
    found = bound.logit_gradient(logits)[0, 0].numpy()
    np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-9)


def test_balanced_softmax_is_the_softmax_with_counts_before_the_exponentials():
    logits, label = situation()
    weighted = COUNTS * np.exp(logits[0, 0].numpy())
    p = weighted / weighted.sum(-1, keepdims=True)
    targets = TrainingTargets(one_hot(label, C).double(), counts=torch.tensor(COUNTS)[None])
    slope = Formulas.of([zoo.read("balanced_softmax")]).bind(targets).logit_gradient(logits)
    expected = (p - np.eye(C)[label[0].tolist()]) / B
    np.testing.assert_allclose(slope[0, 0].numpy(), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        ("class_weights(kappa=0)", "ce"),
        ("logit_adjustment_smoothed(tau=0, alpha=0.3)", "label_smoothing(alpha=0.3)"),
        ("logit_adjustment(tau=1)", "balanced_softmax"),
        ("ldam(margin=0)", "ce"),
        ("vs(gamma=0, tau=1)", "balanced_softmax"),
        ("bootstrap_soft(beta=1)", "ce"),
        ("asymmetric(gamma_neg=0, alpha=0.1)", "label_smoothing(alpha=0.1)"),
    ],
)
def test_what_reduces_to_what(spec, other):
    logits, label = situation()
    targets = TrainingTargets(one_hot(label, C).double(), counts=torch.tensor(COUNTS)[None])
    one, two = (
        Formulas.of([zoo.read(x)]).bind(targets).logit_gradient(logits) for x in (spec, other)
    )
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entry", IMBALANCE, ids=lambda entry: entry.name)
def test_values_and_gradients_are_finite_where_a_class_has_no_image(entry):
    logits, label = situation()
    counts = torch.tensor([[30.0, 0, 0, 1, 0]])
    targets = TrainingTargets(one_hot(label, C), counts=counts)
    for spec in entry.variants:
        bound = Formulas.of([zoo.read(spec)]).bind(targets)
        assert bound(logits.float()).isfinite().all()
        assert bound.logit_gradient(logits.float()).isfinite().all()


def test_a_grid_names_each_choice_of_parameters():
    assert zoo.entry("ce").variants == ["ce"]
    variants = zoo.entry("vs").variants
    assert len(variants) == 18
    assert variants[0] == "vs(gamma=0.05, tau=0.5)"


def meaning(spec):
    """What losses that are the same share."""
    return zoo.read(spec).canonical() if zoo.named(spec)[0].text else metaloss.load(spec).identity


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.entry(name).grid])
def test_a_grid_can_be_read_and_has_the_defaults(name):
    entry = zoo.entry(name)
    assert entry.grid.keys() <= entry.parameters.keys()
    losses = {meaning(spec) for spec in entry.variants}
    assert len(losses) == len(entry.variants)
    assert meaning(name) in losses
