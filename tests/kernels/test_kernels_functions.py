"""Compiled primitives give what torch gives, and formulas that use them train as on torch."""

import pytest
import torch

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.losses import _compiled_primitives
from metaloss.losses._compiled_primitives import quick
from metaloss.losses.base import TrainingTargets
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES

pytest.importorskip("numba")

COMPILED = ["i0", "i1", "i0e", "i1e", "softplus", "sinh", "asinh", "tanh", "dtanh", "dsigmoid"]
LIKE = torch.zeros(1)
T, B, C = 2, 37, 4


def arguments():
    """Numbers of every size and sign, zero, and those that are not finite."""
    sizes = torch.cat([torch.linspace(0, 100, 2001), torch.logspace(-30, 30, 601)])
    bad = torch.tensor([torch.inf, -torch.inf, torch.nan])
    return torch.cat([sizes, -sizes, bad])


@pytest.fixture
def without(monkeypatch):
    """As where numba is not installed."""
    monkeypatch.setattr(kernels, "compiler", lambda: "none")


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_primitive_is_torchs_to_a_few_last_bits(name):
    run = PRIMITIVES[name].run
    x = arguments()
    wanted = run(x.double()).float()
    found = quick(run, LIKE)(x)
    # 1e-15: beside which nothing of a loss is seen; exp does not go on to the smallest numbers.
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize("name", COMPILED)
def test_its_derivative_is_torchs(name):
    (derivative,) = PRIMITIVES[name].derivatives
    x = Stream(1).normal(500) * 5
    values = {"g": Stream(2).normal(500), "o": PRIMITIVES[name].run(x), "a": x}
    needs = [values[n] for n in derivative.needs]
    wanted = derivative.run(*[v.double() for v in needs]).float()
    torch.testing.assert_close(quick(derivative.run, LIKE)(*needs), wanted, rtol=2e-5, atol=2e-6)


def test_a_part_of_an_array_is_read_as_it_stands():
    run = quick(PRIMITIVES["i0"].run, LIKE)
    x = Stream(1).normal(6, 10)
    assert torch.equal(run(x.mT[2:5]), run(x).mT[2:5])
    assert run(torch.tensor(0.5)).shape == ()


def test_what_is_not_compiled_stays_the_step_that_it_was(without, monkeypatch):
    run = PRIMITIVES["i0"].run
    assert quick(run, LIKE) is run
    monkeypatch.setattr(kernels, "compiler", lambda: "1")
    assert quick(run, LIKE) is not run
    assert quick(run, LIKE.double()) is run
    assert quick(run, torch.zeros(1, device="meta")) is run
    assert quick(torch.mul, LIKE) is torch.mul


def slopes(texts, z, target):
    bound = Formulas.of([Formula.parse(x) for x in texts]).bind(TrainingTargets(target))
    return bound.logit_gradient(z)


TEXTS = [f"-y * logp + {name}(p - y) + 0.1 * {name}({name}(logp))" for name in COMPILED]


@pytest.mark.parametrize("type_", [torch.float32, torch.float64], ids=str)
def test_gradients_of_formulas_are_those_without_compiled_primitives(type_, monkeypatch):
    z = Stream(3).normal(len(TEXTS), T, C, B).mT.to(type_)
    target = torch.nn.functional.one_hot(Stream(4).integers(C, T, B), C).to(type_)
    z[1, 0, 2, 3] = torch.nan
    z[2, 0, 2, 3] = torch.inf
    found = slopes(TEXTS, z, target)
    monkeypatch.setattr(_compiled_primitives.kernels, "compiler", lambda: "none")
    wanted = slopes(TEXTS, z, target)
    if type_ == torch.float64:
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6, equal_nan=True)
    assert not found[1, 0].isfinite().all()
    assert found[3:].isfinite().all()
