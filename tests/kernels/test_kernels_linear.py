"""A compiled linear layer and the compiled gradient of cross-entropy are torch's."""

import pytest
import torch

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.engines.chunking import model_of, plan_chunks
from metaloss.engines.local import Local
from metaloss.inner.classifiers._compiled_linear import CompiledLinear
from metaloss.inner.classifiers.linear import SharedLinear
from metaloss.inner.loop import Inner, train
from metaloss.losses.base import CrossEntropies, TrainingTargets

pytest.importorskip("numba")

P = 3


def keys(T):
    return [Stream(0).at("task", t) for t in range(T)]


def normal(*shape):
    return Stream(7).at("normal", *shape).normal(*shape)


def trained(model, episodes, inner, T, rate=0.1):
    """The logits of validation images after some steps of cross-entropy, in float64."""
    tasks = episodes.sample(keys(T))
    bound = model.bind(tasks, keys(T))
    params = {k: x.double() for k, x in bound.init(P).items()}
    train_images, val = (
        type(x)(x.start.double(), x.kernel.double()) for x in (bound.train, bound.val)
    )
    losses = CrossEntropies(torch.linspace(0, 0.5, P)).bind(
        TrainingTargets(tasks.train.target.double())
    )
    params = train(losses, model, params, train_images, inner=inner, lr=rate, keys=keys(T))
    return torch.cat([model(params, val.block(slice(0, 5))), model(params, val)], 2)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("rate", [0.1, torch.tensor([0.1, 0.0, 0.3])], ids=["one", "each"])
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"batch": 3}], ids=str
)
@pytest.mark.parametrize("init_scale", [0.0, 1.0])
def test_compiled_and_plain_layers_train_alike(episodes, T, rate, settings, init_scale):
    inner = Inner(steps=5, **settings)
    wanted = trained(SharedLinear(init_scale=init_scale), episodes, inner, T, rate)
    found = trained(CompiledLinear(init_scale=init_scale), episodes, inner, T, rate)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_layer_that_diverges_leaves_the_others_alone(episodes):
    model = CompiledLinear()
    inner = Inner(steps=4)
    fine = trained(model, episodes, inner, 1, torch.tensor([0.1, 0.2, 0.3]))
    found = trained(model, episodes, inner, 1, torch.tensor([0.1, torch.nan, 0.3]))
    assert torch.equal(found[[0, 2]], fine[[0, 2]])
    assert not found[1].isfinite().any()


def test_the_engine_compiles_a_linear_layer_and_scores_as_without(open_tiny, monkeypatch):
    classifier = {"kind": "linear", "init_scale": 9.0}
    episodes = open_tiny(classifier=classifier, inner={"steps": 1, "lr": 0.01})
    tasks = episodes.sample(keys(2))
    chunks = plan_chunks(episodes, episodes.family.inner, 8, 2, 1 << 20)
    assert chunks.shared
    found = []
    for kind in (CompiledLinear, SharedLinear):
        assert type(model_of(episodes, chunks)) is kind
        with Local(workers=1) as engine:
            losses = CrossEntropies(torch.linspace(0, 0.5, 8))
            found.append(engine.score(losses, episodes, tasks, keys(2)))
        monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert (found[0] - found[1]).abs().max() <= 1 / 12 + 1e-6  # one of 12 validation images
    assert found[0].std() > 0


# --- cross-entropy ---


@pytest.mark.parametrize("smoothing", [(0.0,), (0.0, 0.1, 0.4)], ids=["one", "each"])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_gradient_of_cross_entropy_is_torchs(smoothing, weighed, classes, monkeypatch):
    label = Stream(5).integers(classes, 2, 21)
    target = torch.nn.functional.one_hot(label, classes).float()
    weight = torch.rand(2, 21).where(torch.arange(21) < 18, 0) if weighed else None
    losses = CrossEntropies(torch.tensor(smoothing)).bind(TrainingTargets(target, weight))
    logits = 3 * normal(len(smoothing), 2, classes, 21).mT
    found = losses.logit_gradient(logits)
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    again = CrossEntropies(torch.tensor(smoothing)).bind(TrainingTargets(target, weight))
    torch.testing.assert_close(found, again.logit_gradient(logits), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_logit_that_is_not_finite_stays_with_its_image(bad, monkeypatch):
    target = torch.nn.functional.one_hot(Stream(5).integers(4, 1, 9), 4).float()
    weight = (torch.arange(9) < 8).float()[None]
    logits = normal(2, 1, 4, 9).mT.contiguous()
    logits[0, 0, 3, 2] = logits[1, 0, 8, 1] = bad
    found = []
    for _ in range(2):
        losses = CrossEntropies.of(2).bind(TrainingTargets(target, weight))
        found.append(losses.logit_gradient(logits))
        monkeypatch.setattr(kernels, "compiler", lambda: "none")
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7, equal_nan=True)
    assert torch.equal(found[0][1, 0, 8], torch.zeros(4))
