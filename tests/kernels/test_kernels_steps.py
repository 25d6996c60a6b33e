"""Compiled steps of gradient descent are torch's, product by product and as a whole."""

import pytest
import torch

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.genomes._compiled import CompiledEquivariant
from metaloss.inner.classifiers._compiled import CompiledMlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner, train
from metaloss.losses.base import CrossEntropies, TrainingTargets

pytest.importorskip("numba")
product = pytest.importorskip("metaloss.kernels.instructions.product")
network = pytest.importorskip("metaloss.kernels.losses.network")

P = 3
T = 2
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]


def normal(*shape):
    return Stream(7).at("normal", *shape).normal(*shape)


@pytest.mark.parametrize("rows", [1, 8, 26, 51])
@pytest.mark.parametrize("inner", [3, 130, 300])
@pytest.mark.parametrize("columns", [16, 64, 144])
@pytest.mark.parametrize("type_", [torch.float32, torch.float64], ids=str)
def test_a_product_starts_from_anything_and_ends_as_it_is_asked_to(rows, inner, columns, type_):
    a, b, c, mask = (
        normal(*shape).to(type_)
        for shape in ((rows, inner), (inner, columns), (rows, columns), (rows, columns))
    )
    mask = mask.roll(1)  # not the signs of c
    factor = torch.tensor(0.3, dtype=type_).numpy()[()]
    for base in (normal(rows, columns).to(type_), normal(1, columns).to(type_)):
        total = 0.3 * base + a @ b
        through = total.where(mask > 0, 0)
        wanted = {
            product.STORE: total,
            product.RELU: total.relu(),
            product.MASK: through,
            product.ADD_MASKED: c + through,
        }
        for finish, right in wanted.items():
            for fill, left in (
                (product.fill_product, a),
                (product.fill_transposed_product, a.mT.contiguous()),
            ):
                found = c.clone()
                fill(*(x.numpy() for x in (found, left, b, base)), factor, finish, mask.numpy())
                torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def trained(model, episodes, inner, rate):
    """The parameters after some steps of cross-entropy, in float64."""
    tasks = episodes.sample(KEYS)
    bound = model.bind(tasks, STARTS)
    params = {k: x.double() for k, x in bound.init(P).items()}
    inputs = type(bound.train)(bound.train.start.double(), bound.train.kernel.double())
    losses = CrossEntropies.of(P).bind(TrainingTargets(tasks.train.target.double()))
    return train(losses, model, params, inputs, inner=inner, lr=rate, keys=STARTS)


RATES = [0.1, torch.tensor([0.1, 0.0, 0.3])]


@pytest.mark.parametrize("hidden", [(16,), (48, 16), (32, 16, 32)], ids=str)
@pytest.mark.parametrize("rate", RATES, ids=["one rate", "a rate each"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_steps_in_one_pass_are_torchs(episodes, hidden, rate, schedule):
    inner = Inner(steps=5, lr=0.1, schedule=schedule)
    found = trained(CompiledMlp(hidden=hidden), episodes, inner, rate)
    wanted = trained(SharedMlp(hidden=hidden), episodes, inner, rate)
    for name, x in wanted.items():
        torch.testing.assert_close(found[name], x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_candidate_that_diverges_in_one_pass_leaves_the_others_alone(episodes, bad):
    inner = Inner(steps=3, lr=0.1)
    model = CompiledMlp(hidden=(16,))
    fine = trained(model, episodes, inner, torch.tensor([0.1, 0.2, 0.3]))
    found = trained(model, episodes, inner, torch.tensor([0.1, bad, 0.3]))
    for name, x in fine.items():
        assert torch.equal(found[name][[0, 2]], x[[0, 2]])
    assert not found["b1"][1].isfinite().all()


def test_a_gradient_leaves_tiny_numbers_as_they_were():
    tiny = torch.full((4,), 2.0**-130)  # below the smallest normal float32
    assert (tiny * 0.5 > 0).all()
    logits = torch.zeros(1, 2, 5)
    sizes = (8, 8)
    places = 2 * 8 + 3 * 64 + 3 * 8 + 2 * 8 + 3 * 64
    gradient = torch.ones(1, 2, 5)
    network.logit_gradient(
        logits.numpy(),
        torch.eye(2)[:, [0, 1, 0, 1, 0]][None].contiguous().numpy(),
        torch.full((1, places), 2.0**-80).numpy(),
        torch.zeros(1, 8, 2).numpy(),
        torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]).numpy(),
        sizes,
        True,
        gradient.numpy(),
    )
    assert torch.equal(gradient, torch.zeros(1, 2, 5))
    assert (tiny * 0.5 > 0).all()


# --- whole steps under Meta-Loss Networks ---


def networks(**settings):
    table = {"kind": "mln", "start": "random", "features": 3, "hidden": 7, **settings}
    genome = registry.build("genomes", table)
    return genome.losses(Vectors(normal(P, genome.size)))


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("hidden", [(16,), (48, 16)], ids=str)
@pytest.mark.parametrize("settings", [{}, {"activation": "relu"}, {"clock": True}], ids=str)
def test_a_step_in_one_call_is_that_in_three(episodes, tasks, hidden, settings, monkeypatch):
    losses = networks(**settings)
    keys = KEYS[:tasks]
    drawn = episodes.sample(keys)
    model = CompiledMlp(hidden=hidden)
    bound = model.bind(drawn, keys)
    targets = TrainingTargets(drawn.train.target)
    found = []
    for _ in range(2):
        rates = torch.tensor([0.1, 0.0, 0.3])
        params = bound.init(P)
        bound_losses = losses.bind(targets)
        assert bound_losses.kernel_args
        inner = Inner(steps=4)
        found.append(train(bound_losses, model, params, bound.train, inner=inner, lr=rates))
        monkeypatch.setattr(CompiledEquivariant, "perceptron_step", None)
    for name, x in found[0].items():
        torch.testing.assert_close(x, found[1][name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(found[0]["b1"][0], found[0]["b1"][1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_network_that_diverges_in_one_call_leaves_the_others_alone(episodes, bad):
    losses = networks()
    drawn = episodes.sample(KEYS)
    model = CompiledMlp(hidden=(16,))
    bound = model.bind(drawn, KEYS)
    found = []
    for rate in (0.2, bad):
        params = bound.init(P)
        rates = torch.tensor([0.1, rate, 0.3])
        some = losses.bind(TrainingTargets(drawn.train.target))
        found.append(train(some, model, params, bound.train, inner=Inner(steps=3), lr=rates))
    for name, x in found[0].items():
        assert torch.equal(found[1][name][[0, 2]], x[[0, 2]])
    assert not found[1]["b1"][1].isfinite().all()
