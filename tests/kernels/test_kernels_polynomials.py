"""The compiled gradient of polynomials gives what torch gives, whatever stands beside it."""

import itertools

import pytest
import torch
from test_engine import KEYS, STARTS

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.genomes._compiled_polynomials import CompiledPolynomials
from metaloss.genomes._polynomials import Polynomials
from metaloss.genomes.taylor import TaylorPolynomial
from metaloss.losses.base import TrainingTargets, one_hot

pytest.importorskip("numba")

P = 3
T = 2


def polynomials(order=3, prior=False):
    """Losses a step of a search away from its start."""
    space = TaylorPolynomial(order=order, prior=prior)
    start = space.sample(P, Stream(0)).vectors()
    return space.losses(Vectors(start + Stream(1).normal(*start.shape)))


def test_without_a_compiler_polynomials_are_torchs(monkeypatch):
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert type(polynomials()) is Polynomials


def on_torch(found):
    """The same losses without the compiled loop."""
    return Polynomials(found.point, found.coefficients, found.by_prior)


@pytest.mark.parametrize(
    ("order", "C", "images"), [*itertools.product((2, 3, 4), (2, 10), (1, 33)), (3, 30, 70)]
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
def test_the_compiled_gradient_of_polynomials_is_torchs(order, C, images, soft, prior):
    found = polynomials(order, prior)
    assert type(found) is CompiledPolynomials
    target = one_hot(Stream(3).integers(C, T, images), C)
    if soft:
        target = Stream(3).normal(T, images, C).softmax(-1)
    weight = Stream(4).uniform(T, images) * (torch.arange(images) < max(1, images - 1))
    data = TrainingTargets(target, weight, 1.0 + Stream(5).integers(20, T, C))
    z = 3 * Stream(2).normal(P, T, C, images).mT
    gradient = found.bind(data).logit_gradient(z)
    wanted = on_torch(found).bind(data).logit_gradient(z)
    assert (gradient - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    whole = found.bind(data)
    for p in range(P):
        alone = found[p : p + 1].bind(data).logit_gradient(z[p : p + 1])
        assert torch.equal(alone[0], gradient[p])
        assert torch.equal(whole[torch.tensor([p])].logit_gradient(z[p : p + 1])[0], gradient[p])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_logit_stays_with_its_classifier(bad):
    found = polynomials()
    weight = torch.tensor([1.0, 1.0, 0.0]).expand(T, -1)
    bound = found.bind(TrainingTargets(one_hot(Stream(3).integers(10, T, 3), 10), weight))
    z = 3 * Stream(2).normal(P, T, 10, 3).mT
    before = bound.logit_gradient(z)
    z[1, 0, 0, 3], z[2, 1, 2] = bad, bad
    after = bound.logit_gradient(z)
    assert after[1, 0, 0].isnan().all()
    after[1, 0, 0] = before[1, 0, 0]
    assert torch.equal(after, before)


def test_trainings_on_torch_and_compiled_end_within_one_image(open_tiny):
    found = polynomials()
    episodes = open_tiny()
    tasks = episodes.sample(KEYS)
    with Local(workers=1) as engine:
        ours, theirs = (engine.score(x, episodes, tasks, STARTS) for x in (found, on_torch(found)))
    assert (ours - theirs).abs().max() <= 1 / 12 + 1e-6
