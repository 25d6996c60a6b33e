"""Every published loss against a reference of its own, at ordinary and at extreme places.

And which losses reduce to which.
"""

import math

import numpy as np
import pytest
import torch
from scipy import special

from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.losses import zoo
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula

E = 1e-7
B = 6
C = 5


def ratio(y, p):
    return p / (y + E)


def ln(x):
    return torch.log(torch.abs(x) + E)


def lg(x):
    return ln(x) / math.log(10)


def i0e(x):
    return torch.special.i0e(x)


def softplus(x):
    return torch.logaddexp(x, torch.zeros_like(x))


def softsign(x):
    return x / (1 + x.abs())


def sech2(x):
    return 1 / torch.cosh(x) ** 2


def clipped_ce(y, p):
    return -y * torch.log(p.clamp(1e-7, 1))


def with_margin(y, p, tau=1.0):
    """The probabilities after a shift of the logits by τ(1 - y)."""
    weighted = p * torch.exp(tau * (1 - y))
    return weighted / weighted.sum(-1, keepdim=True)


def reverse_ce(y, p):
    return -p * torch.log(y.clamp(1e-4, 1))


def taylor(y, p, t):
    u = p - t[1]
    v = y - t[0]
    return -(
        t[2] * u + t[3] * u**2 + t[4] * u**3 + t[5] * v * u + t[6] * v * u**2 + t[7] * v**2 * u
    )


def r1(y, p):
    a = lg(ratio(y, p))
    return a / torch.sqrt(1 + (a + y) ** 2)


def sparse(y, p, xi=0.1):
    # ln((1 - p)/(C - 1)), each logarithm by itself.
    return -y * ((1 - xi + xi / C) * p.log() + xi * (C - 1) / C * ((1 - p).log() - math.log(C - 1)))


def asymmetric(y, p):
    return -y * (0.9 + 0.1 / C) * p.log() - (1 - y) * 0.1 / C * p.log() * p**4


def jensen_shannon(y, p):
    mixture = (y + p) / 2
    kl = lambda a: a * (a.clamp(min=E).log() - mixture.clamp(min=E).log())  # noqa: E731
    return (kl(y) + kl(p)) / 2 / (-0.5 * math.log(0.5))


# By class, from y and p; NGL is averaged over the classes, all others are summed.
REFERENCE = {
    "ce": lambda y, p: -y * p.log(),
    "ce_eps": lambda y, p: -y * torch.log(p.abs() + E),
    "label_smoothing": lambda y, p: -(0.9 * y + 0.1 / C) * p.log(),
    "temperature": lambda y, p: -y * (p.log() / 2).log_softmax(-1),
    "mse": lambda y, p: (p - y) ** 2,
    "mae": lambda y, p: (p - y).abs(),
    "focal": lambda y, p: -y * (1 - p) ** 2 * p.log(),
    "focal(gamma=0.5)": lambda y, p: -y * (1 - p).sqrt() * p.log(),
    "sce": lambda y, p: 0.1 * clipped_ce(y, p) + reverse_ce(y, p),
    "sce_mnist": lambda y, p: 0.01 * clipped_ce(y, p) + reverse_ce(y, p),
    "sce_cifar10": lambda y, p: 0.1 * clipped_ce(y, p) + reverse_ce(y, p),
    "sce_cifar100": lambda y, p: 6 * clipped_ce(y, p) + 0.1 * reverse_ce(y, p),
    "gce": lambda y, p: y * (1 - p**0.7) / 0.7,
    "poly1": lambda y, p: -y * p.log() + y * (1 - p),
    "sparse_lsr": sparse,
    "ace": lambda y, p: torch.log(p * y + 1e-10).abs(),
    "ace(phi0=0.7, phi1=1.3)": lambda y, p: 0.7 * torch.log(1.3 * (p * y + 1e-10)).abs(),
    # Of even classes, of which each has one image where none are told.
    "class_weights": lambda y, p: -y * p.log(),
    "effective_number": lambda y, p: -y * p.log(),
    "softmax_margin": lambda y, p: -y * with_margin(y, p).log(),
    "softmax_margin(tau=.3)": lambda y, p: -y * with_margin(y, p, 0.3).log(),
    "softmax_margin_smoothed": lambda y, p: -(0.8 * y + 0.2 / C) * with_margin(y, p).log(),
    "expected_cost": lambda y, p: (1 - y) * p,
    "ce_expected_cost": lambda y, p: (1 - y) * p - y * p.log(),
    "ce_expected_cost(weight=3)": lambda y, p: 3 * (1 - y) * p - y * p.log(),
    "soft_ordinal": lambda y, p: -torch.exp(-4 * (1 - y)) * p.log(),
    "logit_adjustment": lambda y, p: -y * p.log(),
    "logit_adjustment_smoothed": lambda y, p: -(0.8 * y + 0.2 / C) * p.log(),
    "balanced_softmax": lambda y, p: -y * p.log(),
    "ldam": lambda y, p: -y * (p.log() - 0.5 * y).log_softmax(-1),
    "vs": lambda y, p: -y * p.log(),
    "bootstrap_soft": lambda y, p: -0.95 * y * p.log() - 0.05 * p * p.clamp(min=E).log(),
    "jensen_shannon": jensen_shannon,
    "asymmetric": asymmetric,
    "b0": lambda y, p: -torch.sigmoid(softplus(ratio(y, p))),
    "b0_softsign": lambda y, p: -torch.sigmoid(softsign(ratio(y, p))),
    "b1": lambda y, p: -torch.sigmoid(i0e(ratio(y, p))) * (1 - torch.sigmoid(i0e(ratio(y, p)))),
    "b2": lambda y, p: -torch.special.i1e(torch.erf(ratio(y, p))),
    "c0": lambda y, p: -ln(torch.atan(ratio(y, p))),
    "c1": lambda y, p: -ln(softsign(ratio(y, p))),
    "c1_printed": lambda y, p: -ln(softplus(ratio(y, p))),
    "c2": lambda y, p: -torch.sigmoid(lg(ratio(y, p))),
    "m0": lambda y, p: -torch.special.i1(torch.atan(lg(p))) * y,
    "m1": lambda y, p: torch.log(1 + torch.exp(p - y)),
    "m2": lambda y, p: torch.asinh(torch.special.i0(y - p)),
    "r0": lambda y, p: sech2(i0e(ratio(y, p))) + i0e(ratio(y, p)),
    "r1": lambda y, p: -r1(y, p),
    "r1_printed": r1,
    "r2": lambda y, p: lg(ratio(y, p)).abs() ** torch.special.i0(y).abs(),
    "a0": lambda y, p: -ln(1 / (1 + lg(p).abs())) * y,
    "a1": lambda y, p: -ln(i0e(lg(p))) * y,
    "a2": lambda y, p: y / i0e(ln(p)),
    "a2_smoothed": lambda y, p: (0.9 * y + 0.1 / C) / i0e(ln(p)),
    "ngl": lambda y, p: torch.exp(2.4092 - p - p * y) - torch.cos(torch.cos(torch.sin(p))),
    "ngl(scaled=True)": lambda y, p: REFERENCE["ngl"](y, torch.sigmoid(p)),
    "baikal": lambda y, p: -(torch.log(p + 1e-7) - y / (p + 1e-7)),
    "taylorglo": lambda y, p: -y * p,
    "taylorglo(theta0=.1, theta1=-.2, theta2=.3, theta3=1, "
    "theta4=-2, theta5=2, theta6=.6, theta7=-.7)": lambda y, p: taylor(
        y, p, (0.1, -0.2, 0.3, 1, -2, 2, 0.6, -0.7)
    ),
    "taylorglo_mnist": lambda y, p: taylor(
        y, p, (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513)
    ),
    "taylorglo_lossga": lambda y, p: taylor(
        y, p, (0.8439, 1.4872, 1.5742, -1.4446, 2.3616, -0.6632, -2.8569, -1.1313)
    ),
}
UNAVAILABLE = {"neuroloss1", "neuroloss2", "neuroloss3"}
EVERY = pytest.mark.parametrize("spec", REFERENCE)
HARD_ONLY = {"sparse_lsr", "ace", "ace(phi0=0.7, phi1=1.3)"}


def hard():
    return one_hot(Stream(1).integers(C, 1, B), C).double()


def soft():
    return Stream(2).normal(1, B, C).double().softmax(-1)


def logits(scale=2.0):
    return scale * Stream(3).normal(1, 1, B, C).double()


def bound(spec, target):
    return Formulas.of([zoo.find(spec)[1]]).bind(TrainingTargets(target))


def value(spec, x, target):
    return bound(spec, target)(x)[0, 0]


def test_every_entry_has_a_reference_and_every_reference_an_entry():
    named = {name for name in zoo.names() if zoo.entry(name).form is None}
    assert {spec.split("(")[0] for spec in REFERENCE} | UNAVAILABLE == named


@EVERY
@pytest.mark.parametrize("target", [hard, soft])
def test_values_and_gradients_are_those_of_the_reference(spec, target):
    x = logits().requires_grad_()
    y = target()
    terms = REFERENCE[spec](y, x.softmax(-1))
    expected = (terms.mean(-1) if spec.startswith("ngl") else terms.sum(-1)).mean()
    (gradient,) = torch.autograd.grad(expected, x)
    scale = gradient.abs().max()
    torch.testing.assert_close(value(spec, x, y), expected, rtol=1e-10, atol=0)
    (found,) = torch.autograd.grad(value(spec, x, y), x)
    torch.testing.assert_close(found / scale, gradient / scale, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        bound(spec, y).logit_gradient(x.detach()) / scale, gradient / scale, rtol=1e-10, atol=1e-10
    )


@EVERY
def test_gradients_are_those_of_small_differences(spec):
    assert torch.autograd.gradcheck(
        lambda x: value(spec, x, soft()), logits(1.0).requires_grad_(), rtol=1e-4, atol=1e-5
    )


@EVERY
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 100.0, 1e4])
def test_everything_is_finite_in_float32_however_sure_and_wrong_the_classifier_is(spec, scale):
    x = (
        scale
        * torch.tensor([[1.0, -1, 0], [-1, 1, 0], [1, 1, -1], [0, 0, 1], [1, -1, -1]])[None, None]
    )
    for y in (
        one_hot(torch.tensor([[0, 0, 0, 2, 1]]), 3),
        torch.tensor([0.5, 0.5, 0]).expand(1, 5, 3),
    ):
        loss = bound(spec, y)
        x = x.detach().requires_grad_()
        terms = loss.terms(x)
        (gradient,) = torch.autograd.grad(terms.sum(), x)
        assert terms.isfinite().all()
        assert gradient.isfinite().all()
        assert loss.logit_gradient(x.detach()).isfinite().all()


@EVERY
def test_half_precision_logits_in_float32_are_enough_classes_for_everything(spec):
    y = one_hot(torch.tensor([[3]]), 1000)
    x = torch.zeros(1, 1, 1, 1000)
    assert bound(spec, y)(x).isfinite().all()
    assert bound(spec, y).logit_gradient(x).isfinite().all()


@EVERY
def test_the_text_of_a_loss_reads_back(spec):
    formula = zoo.find(spec)[1]
    assert Formula.parse(str(formula)) == formula
    assert Formula.parse(str(formula.canonical())).digest == formula.digest


# --- what reduces to what ---


@pytest.mark.parametrize("target", [hard, soft])
@pytest.mark.parametrize(
    "spec",
    [
        "focal(gamma=0)",
        "poly1(epsilon=0)",
        "label_smoothing(alpha=0)",
        "sce(alpha=1, beta=0)",
        "temperature(tau=1)",
    ],
)
def test_these_are_cross_entropy(spec, target):
    x = logits()
    y = target()
    torch.testing.assert_close(value(spec, x, y), value("ce", x, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        bound(spec, y).logit_gradient(x), bound("ce", y).logit_gradient(x), rtol=1e-10, atol=1e-14
    )


def test_generalised_cross_entropy_lies_between_cross_entropy_and_mae():
    x = logits()
    y = hard()
    torch.testing.assert_close(value("gce(q=0.000001)", x, y), value("ce", x, y), rtol=1e-5, atol=0)
    torch.testing.assert_close(value("gce(q=1)", x, y), value("mae", x, y) / 2, rtol=1e-12, atol=0)


def test_mae_is_twice_what_the_true_class_lacks():
    x = logits()
    y = hard()
    lacking = 1 - (x.softmax(-1)[0] * y).sum(-1).mean()
    torch.testing.assert_close(value("mae", x, y), 2 * lacking, rtol=1e-12, atol=0)
    reverse = value("sce(alpha=0, beta=1)", x, y)
    torch.testing.assert_close(reverse, -math.log(1e-4) * lacking, rtol=1e-12, atol=0)
    assert float(reverse / value("mae", x, y)) == pytest.approx(4.605, abs=5e-4)
    torch.testing.assert_close(
        value("taylorglo", x, y), value("mae", x, y) / 2 - 1, rtol=1e-12, atol=0
    )


def test_sparse_label_smoothing_without_smoothing_is_cross_entropy():
    x = logits()
    y = hard()
    torch.testing.assert_close(
        value("sparse_lsr(xi=0)", x, y), value("ce", x, y), rtol=1e-12, atol=0
    )


def test_ace_is_cross_entropy_and_a_constant_for_hard_labels():
    x = logits()
    y = hard()
    constant = -(C - 1) * math.log(1e-10)
    torch.testing.assert_close(value("ace", x, y), value("ce", x, y) + constant, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("spec", "factor"), [("m1", 1 / 8), ("m2", 0.177)])
def test_m1_and_m2_are_nearly_mse_and_a_constant(spec, factor):
    x = logits(0.5)
    y = hard()
    zero = value(spec, 1e4 * y[None] - 5e3, y)
    assert float((value(spec, x, y) - zero) / value("mse", x, y)) == pytest.approx(factor, rel=0.06)


def test_a2_is_one_where_the_classifier_is_sure_and_right():
    y = hard()
    assert float(value("a2", 1e4 * y[None], y)) == pytest.approx(1, abs=1e-6)


def test_a_one_hot_soft_target_and_the_printed_guards_are_those_of_scipy():
    p = np.array([0.7, 0.2, 0.1])
    y = np.array([1.0, 0.0, 0.0])
    expected = float((y / special.i0e(np.log(p + 1e-7))).sum())
    x = torch.as_tensor(p).log()[None, None, None]
    assert float(value("a2", x, torch.as_tensor(y)[None, None])) == pytest.approx(
        expected, rel=1e-12
    )


# --- looking up ---


def test_parameters_stand_in_brackets_in_any_case():
    entry, formula = zoo.find(" Focal( Gamma = .5 ) ")
    assert entry.name == "focal"
    assert str(formula) == "sum(-y * (1.0 - p) ** 0.5 * logp)"
    assert zoo.find("ce()")[1] == zoo.find("CE")[1]
    assert str(zoo.find("ngl(scaled=false)")[1]) == str(zoo.find("NGL")[1])
    assert zoo.find("poly1(epsilon=-1)")[1].digest != zoo.find("poly1")[1].digest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("focl", "unknown loss 'focl'. Did you mean 'focal'?"),
        ("focal(gama=1)", "focal: unknown parameter 'gama'. Did you mean 'gamma'?"),
        ("focal(gamma=-1)", r"focal: gamma must lie in \[0.0, 20.0\], got -1.0"),
        ("focal(gamma=True)", r"focal: gamma must lie in \[0.0, 20.0\], got True"),
        ("ngl(scaled=2)", "ngl: scaled must be True or False, got 2.0"),
        ("ce(x=1)", "ce has no parameters, got x"),
        ("focal(gamma=)", "expected a number, True or False, at character 13"),
        ("focal(gamma=1", "expected ',', found the end, at character 14"),
        ("focal(gamma=1, gamma=2)", "expected name=value, each name once, at character 16"),
        ("focal(2)", r"parameters are given by name: focal\(gamma=2\), at character 7"),
        ("MSELoss", "Did you mean 'mse'"),
        ("focal 2", "expected an operator or the end, found '2', at character 7"),
        ("2", "expected the name of a loss, at character 1"),
        ("", "expected the name of a loss, at character 1"),
        ("neuroloss2", "neuroloss2 was published with its accuracy, but its formula was not"),
        ("dice", "dice reads a whole batch: it is no formula"),
    ],
)
def test_what_cannot_be_found_is_explained(spec, message):
    with pytest.raises(SettingsError, match=message):
        zoo.find(spec)


def test_every_entry_says_where_it_is_from_and_parameters_lie_in_their_range():
    for name in zoo.names():
        entry = zoo.entry(name)
        assert entry.name == name == name.lower()
        assert entry.source
        assert [bool(entry.text), bool(entry.form), bool(entry.unavailable)].count(True) == 1
        assert bool(entry.lacks) == (not entry.text)
        assert all(low <= default <= high for default, low, high in entry.parameters.values())


def test_doubtful_readings_are_marked():
    assert {name for name in zoo.names() if zoo.entry(name).reading == "corrected"} == {
        "b0_softsign",
        "c1",
        "r1",
        "sparse_lsr",
    }
    assert [name for name in zoo.names() if not zoo.entry(name).verified] == ["r2"]
    assert zoo.find("c1_printed")[0].limits.startswith("anti-learns")
