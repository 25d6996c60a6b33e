"""The gradient through trainings is that of finite differences, whatever is kept of them."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import Interrupted
from metaloss.inner.classifiers._compiled import CompiledMlp
from metaloss.inner.classifiers._compiled_adjoint import ReversibleMlp
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.classifiers.linear import Linear, SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner, train
from metaloss.inner.unrolled import kept_every, validation_gradient
from metaloss.losses.base import TrainingTargets
from metaloss.losses.unit_gain import UnitGain

T = 2
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
SMALL_NETWORK = {"kind": "mln", "features": 3, "hidden": 4, "start": "random"}
GENOMES = {
    "network": SMALL_NETWORK,
    "network, relu": {**SMALL_NETWORK, "activation": "relu", "context": "mean"},
    "network, softplus": {**SMALL_NETWORK, "activation": "softplus", "context": "none"},
    "network, everything": {
        **SMALL_NETWORK,
        "channels": ("p", "logp", "logit", "logprior"),
        "clock": True,
        "prior": True,
    },
    "figure 3": {
        **SMALL_NETWORK,
        "architecture": "figure3",
        "fixed_classes": 3,
        "kernel": 2,
        "clock": True,
    },
    "targets": {"kind": "targets", "knots": (0.1, 0.3, 0.6)},
    "targets, everything": {
        "kind": "targets",
        "knots": (0.1, 0.4),
        "home_classes": 5,
        "clock": True,
        "costs": True,
        "prior": True,
    },
    "taylor": {"kind": "taylor"},
    "taylor, everything": {"kind": "taylor", "order": 2, "clock": True, "prior": True},
    "constants": {"kind": "constants", "formula": "-y * logp + 0.5 * p ** 2 * (1 - y)"},
    "constants, everything": {
        "kind": "constants",
        "formula": "mean(-y * logp + 0.3 * t * p * cost, temperature=2.0, shift=0.5 * logprior)",
        "clock": True,
        "prior": True,
    },
}
INNERS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    "batch": {"batch": 4, "momentum": 0.5, "schedule": "cosine", "warmup": 2},
}
MODELS = {
    "mlp": Mlp(hidden=(6, 5)),
    "shared mlp": SharedMlp(hidden=(6, 5)),
    "linear": Linear(init_scale=1),
    "shared linear": SharedLinear(init_scale=1),
}
if kernels.available():
    MODELS["compiled mlp"] = CompiledMlp(hidden=(16, 32))
    MODELS["mlp with a compiled way back"] = ReversibleMlp(hidden=(16, 32))
    MODELS["one hidden layer with a compiled way back"] = ReversibleMlp(hidden=(16,))


def candidates(genome, P=2, spread=0.2):
    """Candidates about the genome's start, in float64."""
    first = genome.sample(P, Stream(0).at("sample")).vectors().double()
    return first + spread * Stream(1).normal(*first.shape).double()


def losses_of(genome):
    like = genome.sample(1, Stream(0))
    return lambda vectors: genome.losses(like.from_vectors(vectors))


def trained_value(losses, model, bound, tasks, inner):
    """Validation cross-entropies [P T] after trainings as a search runs them."""
    images = tasks.train
    targets = TrainingTargets(
        images.target.double(), images.weight, images.class_counts, tasks.costs
    )
    params = bound.init(len(losses))
    train(losses.bind(targets), model, params, bound.train, inner=inner, keys=STARTS)
    logits = model(params, bound.val)
    label = tasks.val.label.expand(len(losses), -1, -1)
    return cross_entropy(logits.movedim(-1, 1), label, reduction="none").mean(-1)


def differences(losses, vectors, directions, *args, step=1e-5):
    """Central differences [P K] of the sums over the tasks, along K directions."""
    rows = []
    for direction in directions:
        ends = [
            trained_value(losses(vectors + sign * step * direction), *args).sum(1)
            for sign in (1, -1)
        ]
        rows.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(rows, 1)


def checked(episodes, genome, model, settings, losses=None, spread=0.2):
    tasks = episodes.sample(KEYS)
    inner = Inner(steps=5, lr=0.3, **settings)
    bound = model.bind(tasks, STARTS)
    vectors = candidates(genome, spread=spread)
    losses = losses or losses_of(genome)
    value, gradient = validation_gradient(
        losses, vectors, model, bound, tasks, inner=inner, keys=STARTS, block=5
    )
    args = (model, bound, tasks, inner)
    torch.testing.assert_close(value, trained_value(losses(vectors), *args))
    directions = Stream(2).normal(4, vectors.shape[1]).double()
    expected = differences(losses, vectors, directions, *args)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(gradient @ directions.mT, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("table", GENOMES.values(), ids=GENOMES)
def test_the_gradient_is_that_of_finite_differences_for_every_kind_of_loss(
    episodes, float64, table
):
    genome = registry.build("genomes", table, "genome")
    checked(episodes, genome, SharedMlp(hidden=(6, 5)), INNERS["nesterov"])


@pytest.mark.parametrize("settings", INNERS.values(), ids=INNERS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_gradient_is_that_of_finite_differences_for_every_classifier_and_optimiser(
    episodes, float64, model, settings
):
    genome = registry.build("genomes", GENOMES["targets"], "genome")
    checked(episodes, genome, model, settings)


def test_the_gradient_goes_through_the_gain_that_a_loss_is_divided_by(episodes, float64):
    genome = registry.build("genomes", GENOMES["constants"], "genome")
    plain = losses_of(genome)
    checked(episodes, genome, Mlp(hidden=(6,)), {}, lambda vectors: UnitGain.of(plain(vectors)))


@pytest.mark.parametrize("settings", [INNERS["nesterov"], INNERS["batch"]], ids=str)
@pytest.mark.parametrize("kind", ["network, everything", "constants, everything"])
def test_states_that_are_made_again_change_no_bit(episodes, kind, settings):
    genome = registry.build("genomes", GENOMES[kind], "genome")
    model = SharedMlp(hidden=(6, 5))
    tasks = episodes.sample(KEYS)
    vectors = candidates(genome).float()
    results = [
        validation_gradient(
            losses_of(genome),
            vectors,
            model,
            model.bind(tasks, STARTS),
            tasks,
            inner=Inner(steps=7, lr=0.2, **settings),
            keys=STARTS,
            block=12,
            memory=memory,
        )
        for memory in (1 << 30, 1)
    ]
    assert torch.equal(results[0].value, results[1].value)
    assert torch.equal(results[0].gradient, results[1].gradient)
    assert results[0].gradient.abs().sum() > 0


def test_a_candidates_gradient_does_not_depend_on_its_neighbours_failure(episodes):
    genome = registry.build("genomes", GENOMES["targets"], "genome")
    model = SharedMlp(hidden=(6, 5))
    tasks = episodes.sample(KEYS)
    vectors = candidates(genome, P=3).float()
    job = {"inner": Inner(steps=4), "keys": STARTS, "block": 12}
    args = (model, model.bind(tasks, STARTS), tasks)
    whole = validation_gradient(losses_of(genome), vectors, *args, **job).gradient
    spoiled = vectors.clone()
    spoiled[1] = torch.inf
    other = validation_gradient(losses_of(genome), spoiled, *args, **job).gradient
    assert torch.equal(other[::2], whole[::2])
    assert not other[1].isfinite().any()


@pytest.mark.parametrize(
    ("steps", "size", "memory", "every"),
    [(20, 10, 200, 20), (20, 10, 199, 5), (200, 1 << 20, 1 << 20, 15), (1, 10, 1, 1)],
)
def test_so_many_states_are_kept_as_memory_allows(steps, size, memory, every):
    assert kept_every(steps, size, memory) == every


def test_a_gradient_is_stopped_between_two_steps(episodes):
    genome = registry.build("genomes", GENOMES["targets"], "genome")
    model = Linear()
    tasks = episodes.sample(KEYS)
    left = iter(range(5))
    with pytest.raises(Interrupted):
        validation_gradient(
            losses_of(genome),
            candidates(genome).float(),
            model,
            model.bind(tasks, STARTS),
            tasks,
            inner=Inner(steps=4),
            block=12,
            stop=lambda: next(left, None) is None,
        )


@pytest.mark.parametrize(
    ("model", "settings"), [(Linear(), {"optimiser": "adam"}), (Cnn(), {})], ids=["adam", "cnn"]
)
def test_what_no_gradient_goes_through_is_refused(episodes, model, settings):
    genome = registry.build("genomes", GENOMES["targets"], "genome")
    tasks = episodes.sample(KEYS)
    with pytest.raises(ValueError, match="no gradient goes through"):
        validation_gradient(
            losses_of(genome),
            candidates(genome).float(),
            model,
            model.bind(tasks, STARTS),
            tasks,
            inner=Inner(steps=4, **settings),
            block=12,
        )


@pytest.mark.skipif(not kernels.available(), reason="numba is not installed")
@pytest.mark.parametrize("settings", [INNERS["nesterov"], INNERS["batch"]], ids=str)
@pytest.mark.parametrize("kind", ["network", "targets", "taylor"])
def test_compiled_passes_give_what_torch_gives(episodes, kind, settings):
    genome = registry.build("genomes", GENOMES[kind], "genome")
    tasks = episodes.sample(KEYS)
    vectors = candidates(genome).float()
    results = []
    for form, cast in ((ReversibleMlp, torch.Tensor.float), (SharedMlp, torch.Tensor.double)):
        model = form(hidden=(16, 32))
        bound = model.bind(tasks, STARTS)
        results.append(
            validation_gradient(
                losses_of(genome),
                cast(vectors),
                model,
                bound,
                tasks,
                inner=Inner(steps=5, lr=0.2, **settings),
                keys=STARTS,
                block=12,
            )
        )
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
