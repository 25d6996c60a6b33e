"""Classifiers start as torch's own do, each task from its own key.

They take images a block at a time.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from metaloss import kernels
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, TaskImages, Tasks
from metaloss.inner.classifiers import Bound, backpropagate
from metaloss.inner.classifiers._compiled_cnn import CompiledCnn
from metaloss.inner.classifiers.cnn import Cnn, PooledConvolution
from metaloss.inner.classifiers.linear import Linear, SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.optimisers import dense

KEYS = [Stream(0).at("task", t) for t in range(3)]
STARTS = [Stream(0).at("init", t) for t in range(3)]
every = pytest.mark.parametrize("kind", registry.names("classifiers"))


def bound_to(episodes, model, keys=KEYS, starts=STARTS):
    return model.bind(episodes.sample(keys), starts)


def built(kind):
    """The classifier; a linear layer, too, with initial weights that differ."""
    return registry.build("classifiers", {"kind": kind, "init_scale": 1})


def test_a_linear_layer_starts_at_zero(episodes):
    for model in (Linear(), SharedLinear()):
        bound = bound_to(episodes, model)
        assert not model(bound.init(2), bound.val).any()


@every
def test_logits_have_one_row_per_candidate_task_and_image(episodes, kind):
    model = built(kind)
    bound = bound_to(episodes, model)
    params = bound.init(2)
    assert all(x.shape[:2] == (2, 3) for x in params.values())
    assert model(params, bound.train).shape == (2, 3, 6, 3)
    assert model(params, bound.val).shape == (2, 3, 12, 3)
    assert (len(bound.train), len(bound.val)) == (6, 12)


@every
def test_all_candidates_start_alike_and_every_task_differently(episodes, kind):
    model = built(kind)
    bound = bound_to(episodes, model)
    logits = model(bound.init(2), bound.val)
    assert torch.equal(logits[0], logits[1])
    # Of the shared form.
    weights = {name: x for name, x in bound.start.items() if name not in ("a", "c")}
    for x in weights.values():
        assert not torch.equal(x[0], x[1])


@every
def test_a_tasks_start_depends_on_its_key_alone(episodes, kind):
    model = built(kind)
    together = bound_to(episodes, model)
    alone = bound_to(episodes, model, KEYS[1:2], STARTS[1:2])
    for name, x in together.start.items():
        assert torch.equal(alone.start[name], x[1:2])


@every
@pytest.mark.parametrize("P", [1, 3])
def test_no_two_candidates_share_memory_with_each_other_or_the_start(episodes, kind, P):
    bound = bound_to(episodes, built(kind))
    before = {name: x.clone() for name, x in bound.start.items()}
    params = bound.init(P)
    for name, x in params.items():
        assert x.is_contiguous()
        x[0] += 1
        assert torch.equal(bound.start[name], before[name])
        assert all(torch.equal(x[p], before[name]) for p in range(1, P))


@every
def test_blocks_of_images_give_the_logits_of_all(episodes, float64, kind):
    model = built(kind)
    bound = bound_to(episodes, model)
    params = bound.init(2)
    blocks = [bound.val.block(slice(i, i + 5)) for i in range(0, 12, 5)]
    assert [len(b) for b in blocks] == [5, 5, 2]
    whole = model(params, bound.val)
    torch.testing.assert_close(
        torch.cat([model(params, b) for b in blocks], 2), whole, rtol=1e-12, atol=1e-12
    )


@every
def test_tasks_made_ready_one_by_one_are_those_made_ready_together(episodes, float64, kind):
    model = built(kind)
    tasks = episodes.sample(KEYS)
    together = model.bind(tasks, STARTS)
    joined = Bound.join([model.bind(tasks[t : t + 1], STARTS[t : t + 1]) for t in range(3)])
    for name, x in together.start.items():
        assert torch.equal(joined.start[name], x)
    for one, other in ((joined.train, together.train), (joined.val, together.val)):
        assert len(one) == len(other)
        logits = (model(together.init(2), inputs) for inputs in (one, other))
        torch.testing.assert_close(*logits, rtol=1e-12, atol=1e-12)


@every
def test_the_memory_planned_for_an_image_covers_its_logits(kind):
    model = built(kind)
    assert model.floats((1, 28, 28), 10) >= 10
    assert model.floats((1, 28, 28), 20) > model.floats((1, 28, 28), 10)


def test_an_mlp_leaves_its_hidden_units_and_logits():
    assert Mlp(hidden=(7, 5)).floats((3, 9, 9), 4) == 7 + 5 + 4


def test_a_cnn_leaves_a_third_of_its_maps_and_logits():
    assert Cnn(filters=(3, 6)).floats((2, 5, 7), 10) == (5 * 7 * 3 + 3 * 4 * 6) // 3 + 10


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (
            Mlp(hidden=(50, 40)),
            {"w0": nn.Linear(36, 50), "w1": nn.Linear(50, 40), "w2": nn.Linear(40, 3)},
        ),
        (
            Cnn(filters=(20, 30)),
            {"w0": nn.Conv2d(1, 20, 3), "w1": nn.Conv2d(20, 30, 3), "w_head": nn.Linear(120, 3)},
        ),
    ],
    ids=["mlp", "cnn"],
)
def test_weights_start_as_torchs_own_do(episodes, model, layers):
    """Uniform within the bound of `torch.nn`'s layers: same shape, same range, same spread."""
    start = bound_to(episodes, model).start
    assert len(start) == 2 * len(layers)
    for name, layer in layers.items():
        x = start[name]
        bias = start[name.replace("w", "b", 1)]
        assert x[0].numel() == layer.weight.numel()
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert layer.weight.abs().max() <= bound
        for drawn in (x, bias):
            assert drawn.abs().max() <= bound
        assert x.abs().max() > 0.95 * bound
        assert abs(x.std().item() / (bound / math.sqrt(3)) - 1) < 0.1
        assert abs(x.mean().item()) < 0.1 * bound


def test_the_shared_form_starts_where_the_plain_one_does(episodes, float64):
    plain = Mlp(hidden=(5,))
    shared = SharedMlp(hidden=(5,))
    one = bound_to(episodes, plain)
    other = bound_to(episodes, shared)
    assert not {"w0", "b0"} & other.start.keys()
    for name in ("w1", "b1"):
        assert torch.equal(one.start[name], other.start[name])
    torch.testing.assert_close(
        shared(other.init(2), other.val), plain(one.init(2), one.val), rtol=1e-12, atol=1e-12
    )


def test_the_shared_forms_gradient_is_the_step_in_its_coefficients(episodes, float64):
    """δ at the layer's output: a step of A by it moves W by δ X, the plain gradient."""
    plain = Mlp(hidden=(5,))
    shared = SharedMlp(hidden=(5,))
    one = bound_to(episodes, plain)
    other = bound_to(episodes, shared)
    expected = plain.gradients(one.init(2), one.train, torch.square)
    found = shared.gradients(other.init(2), other.train, torch.square)
    x = episodes.sample(KEYS).train.x().flatten(2)
    torch.testing.assert_close(found["a"].mT @ x, expected["w0"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        found["a"].sum(-2, keepdim=True), expected["b0"], rtol=1e-10, atol=1e-10
    )
    assert "c" not in found


@every
def test_gradients_are_those_of_autograd(episodes, float64, kind):
    if kind == "shared":
        pytest.skip("its gradient is the plain one's, seen from the span")
    model = built(kind)
    bound = bound_to(episodes, model)
    # Different candidates, or the test would not see one reach another.
    params = {
        k: x * torch.tensor([1.0, 1.5]).reshape(2, *[1] * (x.ndim - 1))
        for k, x in bound.init(2).items()
    }
    expected = backpropagate(model, params, bound.train, torch.square)
    found = {
        name: dense(x) for name, x in model.gradients(params, bound.train, torch.square).items()
    }
    assert found.keys() == params.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-10, atol=1e-10)


@every
def test_a_minibatch_gives_the_logits_of_its_images(episodes, float64, kind):
    model = built(kind)
    bound = bound_to(episodes, model)
    params = bound.init(2)
    index = torch.tensor([[0, 3], [5, 1], [2, 2]])
    some = bound.train.minibatch(index)
    assert len(some) == 2
    expected = model(params, bound.train).gather(2, index[None, ..., None].expand(2, 3, 2, 3))
    torch.testing.assert_close(model(params, some), expected, rtol=1e-12, atol=1e-12)


# --- convolutions ---

forms = pytest.mark.parametrize("form", [Cnn, CompiledCnn] if kernels.available() else [Cnn])


def tasks_of_shape(T, N, image, classes):
    """T tasks of N random images of any shape, to train and to validate on."""
    images = Images(
        Stream(0).at("x").integers(256, T * N, *image).to(torch.uint8), mean=128.0, std=64.0
    )
    split = TaskImages(
        images, torch.arange(T * N).reshape(T, N), torch.zeros(T, N, dtype=torch.int64), classes
    )
    return Tasks(split, split)


@forms
@pytest.mark.parametrize(
    ("filters", "kernel", "P", "T", "image"),
    [
        ((3,), 3, 1, 1, (1, 6, 6)),
        ((3, 4), 3, 2, 3, (1, 6, 6)),
        ((3, 2), 2, 3, 1, (3, 5, 7)),
        ((2, 3, 2), 5, 1, 2, (2, 9, 6)),
        ((2, 3, 2, 2), 9, 2, 2, (1, 1, 3)),
        ((2, 2), 8, 2, 1, (2, 4, 1)),
        ((9, 21), 3, 1, 2, (3, 37, 35)),
        ((15, 2), 1, 1, 1, (1, 4, 33)),
    ],
)
def test_a_cnns_logits_and_gradients_are_those_of_torchs_layers(
    float64, form, filters, kernel, P, T, image
):
    N = 4
    classes = 3
    tasks = tasks_of_shape(T, 4, image, 3)
    model = form(filters=filters, kernel=kernel)
    bound = model.bind(tasks, [Stream(0).at("init", t) for t in range(T)])
    params = {k: x + 0.1 * Stream(1).at(k).normal(*x.shape) for k, x in bound.init(P).items()}
    slope = Stream(2).at("slope").normal(P, T, N, classes).double()
    seen = []
    grads = model.gradients(params, bound.train, lambda logits: seen.append(logits) or slope)
    leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
    before = (kernel - 1) // 2
    after = kernel // 2
    for p in range(P):
        for t in range(T):
            x = tasks.train.x()[t]
            for i in range(len(filters)):
                x = functional.pad(x, (before, after, before, after))
                x = functional.conv2d(x, leaves[f"w{i}"][p, t], leaves[f"b{i}"][p, t]).relu()
                x = functional.max_pool2d(x, 2, ceil_mode=True)
            logits = functional.linear(x.flatten(1), leaves["w_head"][p, t], leaves["b_head"][p, t])
            torch.testing.assert_close(seen[0][p, t], logits, rtol=1e-9, atol=1e-9)
            (logits * slope[p, t]).sum().backward()
    for name, x in leaves.items():
        torch.testing.assert_close(grads[name], x.grad, rtol=1e-9, atol=1e-9)


def test_of_equal_neighbours_the_first_takes_the_gradient():
    """Equal numbers are treated as in torch.

    Images of few values have many, and where the gradient goes decides what a kernel learns.
    """
    x = Stream(0).at("x").integers(2, 200).reshape(2, 1, 10, 10).double()
    w = torch.ones(1, 1, 1, 1).double()
    b = torch.full((1,), 0.5).double()
    ours = x.clone().requires_grad_()
    torchs = x.clone().requires_grad_()
    (
        PooledConvolution.apply(ours, w, b, 1) * torch.arange(50.0).reshape(2, 1, 5, 5)
    ).sum().backward()
    pooled = functional.max_pool2d(functional.conv2d(torchs, w, b).relu(), 2)
    (pooled * torch.arange(50.0).reshape(2, 1, 5, 5)).sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


# --- the scale of the initial weights ---


@every
@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_initial_weights_are_so_many_times_the_usual_ones(episodes, kind, scale):
    usual = bound_to(episodes, built(kind)).start
    scaled = bound_to(
        episodes, registry.build("classifiers", {"kind": kind, "init_scale": scale})
    ).start
    assert scaled.keys() == usual.keys()
    for name, x in usual.items():
        # Of the shared form: what is learned in the span of the images begins as ever.
        factor = 1.0 if name in ("a", "c") else scale
        torch.testing.assert_close(scaled[name], factor * x)
