"""The compiled gradient of learned targets gives what torch gives, whatever stands beside it."""

import pytest
import torch

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes._compiled_targets import CompiledTargets
from metaloss.genomes._targets import Targets
from metaloss.genomes.targets import LearnedTargets
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.prior_adjusted import PriorAdjusted

pytest.importorskip("numba")
exponential = pytest.importorskip("metaloss.kernels.functions.exponential")
logarithm = pytest.importorskip("metaloss.kernels.functions.logarithm")

P = 3
T = 2
PLAIN = LearnedTargets()
PRIOR = LearnedTargets(prior=True)
both_genomes = pytest.mark.parametrize("genome", [PLAIN, PRIOR], ids=["plain", "prior"])


def losses(genome, P=P):
    start = genome.sample(P, Stream(0)).vectors()
    return genome.losses(Vectors(start + 0.5 * Stream(1).normal(*start.shape)))


def by_torch(found):
    """The same losses without the compiled loop."""
    if isinstance(found, PriorAdjusted):
        return PriorAdjusted(by_torch(found.losses), found.tau, found.power)
    return Targets(found.curves, found.knots, found.reference_classes)


def logits(C=10, B=5, P=P):
    return 3 * Stream(2).normal(P, T, C, B).mT


def targets(C=10, B=5, soft=False, weighed=False):
    target = one_hot(Stream(3).integers(C, T, B), C)
    if soft:
        target = Stream(3).normal(T, B, C).softmax(-1)
    weight = None
    if weighed:
        weight = Stream(4).uniform(T, B) * (torch.arange(B) < B - 1)
    return TrainingTargets(target, weight, 1.0 + Stream(5).integers(20, T, C))


def agree(one, other):
    """Within rounding, of which the largest numbers of a classifier have the most."""
    assert (one - other).abs().max() <= 2e-6 * other.abs().max()


@pytest.mark.parametrize("function", ["expm1", "log1p"])
def test_functions_are_right_to_their_last_bits_and_nan_stays(function):
    compiled = {"expm1": exponential.expm1, "log1p": logarithm.log1p}[function]
    near = torch.logspace(-8, -1, 200)
    x = torch.cat([torch.linspace(-0.999, 80, 5001), near, -near])
    wanted = getattr(x.double(), function)()
    found = torch.tensor([compiled(v) for v in x.numpy()], dtype=torch.float64)
    assert ((found / wanted - 1).abs() < 2 * 2**-23).all()
    assert torch.tensor(compiled(torch.tensor([torch.nan]).numpy()[0])).isnan()


@both_genomes
@pytest.mark.parametrize("C", [2, 10, 30])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("weighed", [False, True], ids=["alike", "weighed"])
def test_the_compiled_gradient_of_targets_is_torchs(genome, C, soft, weighed):
    found = losses(genome)
    data = targets(C, 70, soft, weighed)
    z = logits(C, 70)
    gradient = found.bind(data).logit_gradient(z)
    agree(gradient, by_torch(found).bind(data).logit_gradient(z))
    assert not gradient.isnan().any()


@pytest.mark.parametrize("images", [1, 31, 32, 33])
def test_any_number_of_images_has_targets(images):
    found = losses(PRIOR)
    data = targets(B=images)
    z = logits(B=images)
    agree(
        found.bind(data).logit_gradient(z),
        by_torch(found).bind(data).logit_gradient(z),
    )


@both_genomes
def test_minibatches_and_rows_have_their_own_targets(genome):
    found = losses(genome)
    data = targets(B=9, weighed=True)
    z = logits(B=4)
    index = torch.stack([Stream(0).at(t).permutation(8)[:4] for t in range(T)])
    rows = torch.tensor([2, 0])
    wanted = by_torch(found).bind(data).minibatch(index).logit_gradient(z)
    agree(found.bind(data).minibatch(index).logit_gradient(z), wanted)
    agree(found.bind(data)[rows].minibatch(index).logit_gradient(z[rows]), wanted[rows])
    agree(found[1:].bind(data).minibatch(index).logit_gradient(z[1:]), wanted[1:])


@both_genomes
def test_targets_have_the_same_bits_whatever_is_beside_them(genome):
    found = losses(genome)
    data = targets()
    z = logits()
    whole = found.bind(data).logit_gradient(z)
    for p in range(P):
        assert torch.equal(found[p : p + 1].bind(data).logit_gradient(z[p : p + 1])[0], whole[p])
    for t in range(T):
        rest = TrainingTargets(data.target[t : t + 1], None, data.counts[t : t + 1])
        assert torch.equal(found.bind(rest).logit_gradient(z[:, t : t + 1])[:, 0], whole[:, t])


@both_genomes
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_bad_logit_leaves_other_targets_their_bits(genome, bad):
    bound = losses(genome).bind(targets())
    z = logits()
    before = bound.logit_gradient(z)
    z[1, 0, 2, 3] = bad
    after = bound.logit_gradient(z)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.equal(after[1, 1], before[1, 1])
    if bad != 1e30:
        assert after[1, 0, 2].isnan().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_image_that_pads_a_task_has_no_gradient(bad):
    bound = losses(PRIOR).bind(targets(weighed=True))
    z = logits()
    z[:, :, -1] = bad
    gradient = bound.logit_gradient(z)
    assert not gradient[:, :, -1].any()
    assert gradient.isfinite().all()


@both_genomes
def test_targets_of_float64_are_torchs(genome):
    found = losses(genome)
    data = targets()
    double = TrainingTargets(data.target.double(), None, data.counts)
    z = logits().double()
    assert torch.equal(
        found.bind(double).logit_gradient(z), by_torch(found).bind(double).logit_gradient(z)
    )


def test_without_a_compiler_targets_are_torchs(monkeypatch):
    assert type(losses(PLAIN)) is CompiledTargets
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert type(losses(PLAIN)) is Targets
