"""Compiled passes of convolutional networks.

`test_classifiers` and `test_loop` compare their logits, gradients and trainings with torch's.
"""

import pytest
import torch

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, TaskImages, Tasks
from metaloss.engines.chunking import model_of, plan_chunks
from metaloss.engines.local import Local
from metaloss.inner.classifiers._compiled_cnn import MOST_FILTERS, CompiledCnn, PaddedPixels, fits
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.observers import accuracy
from metaloss.losses.base import CrossEntropies, TrainingTargets

pytest.importorskip("numba")

P = 3
T = 2
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
CPU = torch.device("cpu")
CNN = {"kind": "cnn", "filters": [3, 9]}


def bound_to(episodes, model):
    tasks = episodes.sample(KEYS)
    bound = model.bind(tasks, STARTS)
    params = {k: x + 0.1 * Stream(1).at(k).normal(*x.shape) for k, x in bound.init(P).items()}
    return tasks, bound, params


def gradients(model, params, inputs, tasks, rows=slice(None)):
    losses = CrossEntropies.of(P).bind(TrainingTargets(tasks.train.target))[rows]
    some = {k: x[rows] for k, x in params.items()}
    return model.gradients(some, inputs, losses.logit_gradient)


def test_a_network_gives_the_same_bits_in_any_company(episodes):
    model = CompiledCnn(filters=(3, 9))
    tasks, bound, params = bound_to(episodes, model)
    whole = model(params, bound.val)
    of_whole = gradients(model, params, bound.train, tasks)
    assert not torch.equal(whole[0], whole[1])
    for p in range(P):
        row = slice(p, p + 1)
        assert torch.equal(model({k: x[row] for k, x in params.items()}, bound.val), whole[row])
        for name, x in gradients(model, params, bound.train, tasks, row).items():
            assert torch.equal(x, of_whole[name][row])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("name", ["w0", "b0", "w1", "b1", "w_head", "b_head"])
def test_a_network_that_diverges_leaves_the_others_their_bits(episodes, name, bad):
    model = CompiledCnn(filters=(3, 9))
    tasks, bound, params = bound_to(episodes, model)
    before = model(params, bound.val)
    of_before = gradients(model, params, bound.train, tasks)
    params[name][1] = bad
    after = model(params, bound.val)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    for key, x in gradients(model, params, bound.train, tasks).items():
        assert torch.equal(x[[0, 2]], of_before[key][[0, 2]])
    if bad is torch.nan:
        assert accuracy(after, tasks.val.label)[1].isnan().all()


def test_where_relu_cuts_every_number_no_weight_below_moves(episodes):
    model = CompiledCnn(filters=(3, 9))
    tasks, bound, params = bound_to(episodes, model)
    params["b1"] -= 1e3
    found = gradients(model, params, bound.train, tasks)
    for name, x in found.items():
        assert x.any() == (name == "b_head")


def test_of_equal_neighbours_the_first_takes_the_gradient(float64):
    """As in torch: images of few values have many, and their order decides what is learned."""
    pixels = Stream(0).at("x").integers(2, T * 6, 1, 10, 10).to(torch.uint8)
    split = TaskImages(
        Images(pixels, mean=0.5, std=0.5),
        torch.arange(T * 6).reshape(T, 6),
        torch.zeros(T, 6, dtype=torch.int64),
        2,
    )
    tasks = Tasks(split, split)
    slope = Stream(2).normal(P, T, 6, 2).double()
    found = []
    for form in (Cnn, CompiledCnn):
        model = form(filters=(2, 3))
        bound = model.bind(tasks, STARTS)
        params = {k: x.sign() / 8 for k, x in bound.init(P).items()}
        found.append(model.gradients(params, bound.train, lambda _: slope))
    for name, x in found[0].items():
        torch.testing.assert_close(found[1][name], x, rtol=1e-12, atol=1e-12)


def test_images_within_a_batch_and_a_minibatch_are_their_own(episodes):
    model = CompiledCnn(filters=(3, 9))
    _, bound, params = bound_to(episodes, model)
    index = torch.tensor([[4, 0, 4], [1, 5, 2]])
    some = bound.train.minibatch(index)
    assert isinstance(some, PaddedPixels)
    whole = model(params, bound.train)
    wanted = whole.gather(2, index[None, ..., None].expand(P, T, 3, whole.shape[3]))
    torch.testing.assert_close(model(params, some), wanted)


@pytest.mark.parametrize("memory", [1 << 30, 1 << 16])
def test_the_engine_compiles_convolutions_and_scores_as_without(open_tiny, monkeypatch, memory):
    episodes = open_tiny(classifier=CNN)
    tasks = episodes.sample(KEYS)
    genome = registry.build("genomes", {"kind": "mln", "start": "random"})
    losses = genome.losses(genome.sample(P, Stream(4)))
    found = []
    for form in (CompiledCnn, Cnn):
        chunks = plan_chunks(episodes, episodes.family.inner, P, T, memory)
        model = model_of(episodes, chunks)
        assert type(model) is form
        assert (model.filters, model.kernel, model.init_scale) == ((3, 9), 3, 1.0)
        with Local(workers=2, memory=memory) as engine:
            found.append(engine.score(losses, episodes, tasks, STARTS))
        monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert (found[0] - found[1]).abs().max() <= 1 / 12 + 1e-6  # one of 12 validation images
    assert found[0].std() > 0


def test_wide_stages_and_other_devices_stay_with_torch(monkeypatch):
    assert fits((8, MOST_FILTERS), CPU)
    assert not fits((8, MOST_FILTERS + 1), CPU)
    assert not fits((8,), torch.device("meta"))
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    assert not fits((8,), CPU)
