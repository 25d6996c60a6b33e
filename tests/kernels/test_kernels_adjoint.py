"""The compiled adjoints of losses' gradients are those that autograd takes in float64."""

import pytest
import torch

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.inner.followed_losses import FollowedLosses
from metaloss.losses.base import Clock, TrainingTargets, at, one_hot

pytest.importorskip("numba")

P = 3
T = 2
CLOCK = Clock.of(3, 20)
NETWORK = {"kind": "mln", "start": "random"}
GENOMES = {
    "network": NETWORK,
    "network, relu": {**NETWORK, "activation": "relu", "context": "mean"},
    "network, other sizes": {
        **NETWORK,
        "channels": ("p", "logp", "logit"),
        "features": 5,
        "hidden": 7,
        "context": "none",
    },
    "network, clock": {**NETWORK, "clock": True},
    "targets": {"kind": "targets"},
    "targets, clock": {"kind": "targets", "clock": True, "knots": (0.1, 0.4)},
    "taylor": {"kind": "taylor"},
    "taylor, clock": {"kind": "taylor", "clock": True, "order": 2},
}
# What compiled loops do not know.
OTHERS = {
    "softplus": {**NETWORK, "activation": "softplus"},
    "prior": {**NETWORK, "channels": ("p", "logprior")},
    "costs": {"kind": "targets", "costs": True},
    "targets with a prior": {"kind": "targets", "prior": True},
    "taylor with a prior": {"kind": "taylor", "prior": True},
}
tables = pytest.mark.parametrize("table", GENOMES.values(), ids=GENOMES)


def followed(table, C, B, kind=torch.float32, weight=None, spoiled=None):
    genome = registry.build("genomes", table, "genome")
    first = genome.sample(P, Stream(0))
    vectors = first.vectors() + 0.2 * Stream(1).normal(*first.vectors().shape)
    if spoiled is not None:
        vectors[spoiled] = torch.inf
    target = one_hot(Stream(2).integers(C, T, B), C).to(kind)
    targets = TrainingTargets(target, None if weight is None else weight.to(kind))
    return FollowedLosses.of(
        lambda x: genome.losses(first.from_vectors(x)), vectors.to(kind), targets, CLOCK
    )


def derivatives(losses, logits, change):
    """The gradient, and the derivatives by logits and by numbers."""
    step = at(losses.on_the_way_back, CLOCK)
    adjoint = losses.adjoint(step, logits, change)
    return *adjoint[:2], losses.by_vectors(adjoint.by_numbers)


def logits(C, B):
    return [(scale * Stream(3 + i).normal(P, T, C, B)).mT for i, scale in enumerate((2, 1))]


@tables
@pytest.mark.parametrize(("C", "B"), [(10, 70), (4, 5)])
@pytest.mark.parametrize("weighed", [False, True], ids=["alike", "weighed"])
def test_the_compiled_adjoint_is_autograds(table, C, B, weighed):
    weight = Stream(6).uniform(T, B) * (torch.arange(B) < B - 2) if weighed else None
    compiled = followed(table, C, B, weight=weight)
    assert compiled.written
    exact = followed(table, C, B, torch.float64, weight)
    assert not exact.written
    found = derivatives(compiled, *logits(C, B))
    expected = derivatives(exact, *(x.double() for x in logits(C, B)))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


@tables
def test_an_image_that_pads_a_task_adds_nothing_whatever_its_logits(table):
    weight = (torch.arange(6) < 5).float().expand(T, -1)
    losses = followed(table, 4, 6, weight=weight)
    z, v = logits(4, 6)
    expected = derivatives(losses, z, v)
    z[:, :, -1] = torch.inf
    v[:, :, -1] = torch.nan
    for one, other in zip(derivatives(losses, z, v), expected, strict=True):
        assert torch.equal(one, other)


@tables
def test_a_candidates_derivatives_do_not_depend_on_its_neighbours_failure(table):
    whole = derivatives(followed(table, 4, 6), *logits(4, 6))
    spoiled = derivatives(followed(table, 4, 6, spoiled=1), *logits(4, 6))
    for one, other in zip(spoiled, whole, strict=True):
        assert torch.equal(one[::2], other[::2])


@pytest.mark.parametrize("table", OTHERS.values(), ids=OTHERS)
def test_what_no_compiled_loop_knows_goes_by_autograd(table):
    losses = followed(table, 4, 6)
    assert not losses.written
    assert derivatives(losses, *logits(4, 6))[-1].abs().sum() > 0


def test_soft_labels_of_networks_go_by_autograd():
    genome = registry.build("genomes", NETWORK, "genome")
    first = genome.sample(P, Stream(0))
    targets = TrainingTargets(Stream(2).normal(T, 6, 4).softmax(-1))
    losses = FollowedLosses.of(
        lambda x: genome.losses(first.from_vectors(x)), first.vectors(), targets, CLOCK
    )
    assert not losses.written
