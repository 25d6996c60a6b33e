"""Classifiers start as torch's own do, each task from its own key, and take images a block at a time."""

import math

import pytest
import torch
from torch import nn

from metaloss import registry
from metaloss.classifiers.cnn import Cnn
from metaloss.classifiers.mlp import Mlp
from metaloss.classifiers.shared import SharedMlp
from metaloss.streams import Stream

KEYS = [Stream(0).at("task", t) for t in range(3)]
STARTS = [Stream(0).at("init", t) for t in range(3)]
every = pytest.mark.parametrize("kind", registry.names("classifiers"))


def bound_to(episodes, model, keys=KEYS, starts=STARTS):
    return model.bind(episodes.sample(keys), starts)


def built(kind):
    return registry.build("classifiers", {"kind": kind})


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
    weights = {name: x for name, x in bound.start.items() if name not in ("a", "c")}  # of the shared form
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
    torch.testing.assert_close(torch.cat([model(params, b) for b in blocks], 2), whole, rtol=1e-12, atol=1e-12)


@every
def test_the_memory_planned_for_an_image_covers_its_logits(kind):
    model = built(kind)
    assert model.floats((1, 28, 28), 10) >= 10
    assert model.floats((1, 28, 28), 20) > model.floats((1, 28, 28), 10)


def test_an_mlp_leaves_its_hidden_units_and_logits():
    assert Mlp(hidden=(7, 5)).floats((3, 9, 9), 4) == 7 + 5 + 4


def test_a_cnn_leaves_windows_maps_before_and_after_relu_and_logits():
    expected = 5 * 7 * (2 * 9 + 2 * 3) + 3 * 4 * (3 * 9 + 2 * 6) + 10
    assert Cnn(filters=(3, 6)).floats((2, 5, 7), 10) == expected


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (Mlp(hidden=(50, 40)), {"w0": nn.Linear(36, 50), "w1": nn.Linear(50, 40), "w2": nn.Linear(40, 3)}),
        (Cnn(filters=(20, 30)), {"w0": nn.Conv2d(1, 20, 3), "w1": nn.Conv2d(20, 30, 3), "w_head": nn.Linear(120, 3)}),
    ],
    ids=["mlp", "cnn"],
)
def test_weights_start_as_torchs_own_do(episodes, model, layers):
    """Uniform within the bound of `torch.nn`'s layers: same shape, same range, same spread."""
    start = bound_to(episodes, model).start
    assert len(start) == 2 * len(layers)
    for name, layer in layers.items():
        x, bias = start[name], start[name.replace("w", "b", 1)]
        assert x[0].numel() == layer.weight.numel()
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert layer.weight.abs().max() <= bound
        for drawn in (x, bias):
            assert drawn.abs().max() <= bound
        assert x.abs().max() > 0.95 * bound
        assert abs(x.std().item() / (bound / math.sqrt(3)) - 1) < 0.1
        assert abs(x.mean().item()) < 0.1 * bound


def test_the_shared_form_starts_where_the_plain_one_does(episodes, float64):
    plain, shared = Mlp(hidden=(5,)), SharedMlp(hidden=(5,))
    one, other = bound_to(episodes, plain), bound_to(episodes, shared)
    assert "w0" not in other.start
    for name in ("b0", "w1", "b1"):
        assert torch.equal(one.start[name], other.start[name])
    torch.testing.assert_close(shared(other.init(2), other.val), plain(one.init(2), one.val), rtol=1e-12, atol=1e-12)


def test_the_shared_forms_gradient_is_the_step_in_its_coefficients(episodes, float64):
    """δ at the layer's output: a step of A by it moves W by Xᵀδ, the plain gradient; c has none."""
    plain, shared = Mlp(hidden=(5,)), SharedMlp(hidden=(5,))
    one, other = bound_to(episodes, plain), bound_to(episodes, shared)
    weight = {k: x.requires_grad_() for k, x in one.init(2).items()}
    (expected,) = torch.autograd.grad(plain(weight, one.train).square().sum(), weight["w0"])
    params = {k: x.requires_grad_() for k, x in other.init(2).items()}
    a, c = torch.autograd.grad(shared(params, other.train).square().sum(), (params["a"], params["c"]))
    x = episodes.sample(KEYS).train.x().flatten(2)
    torch.testing.assert_close(x.transpose(1, 2) @ a, expected, rtol=1e-10, atol=1e-10)
    assert (c == 0).all()
