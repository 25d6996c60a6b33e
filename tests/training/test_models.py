"""Networks by name: sizes as published, shapes as asked for, a line where one does not fit."""

import pytest
import torch
from torch import nn

from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.training import models
from metaloss.training.models import (
    ImageClassifier,
    NetworkShape,
    build,
    check_model,
    outputs,
    repeats,
    replace_heads,
)
from metaloss.training.networks import NETWORKS

COLOUR = NetworkShape(3, (32, 32), 10)
GREY = NetworkShape(1, (28, 28), 7)


def parameters(name, shape=COLOUR):
    with torch.device("meta"):
        network = NETWORKS[name](shape.channels, shape.classes, shape.size)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("convnet", 0.009986),
        ("resnet9", 6.57),
        ("wrn-28-10", 36.48),
        ("linear", 0.030730),
        ("mlp", 0.394634),
    ],
    ids=NETWORKS,
)
def test_our_networks_have_the_sizes_that_they_should(name, millions):
    assert parameters(name) / 1e6 == pytest.approx(millions, abs=0.005 if millions > 1 else 1e-9)


def test_an_mlp_s_name_has_its_widths():
    network = build("mlp-12-5", GREY, Stream(0))
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(12, 784), (5, 12), (7, 5)]
    for name in ("mlp-", "mlp-0", "mlp-12-", "mlp-a"):
        with pytest.raises(SettingsError, match=f"unknown model '{name}'"):
            build(name, GREY, Stream(0))


def test_the_report_s_network_has_its_layers():
    shapes = {
        name: tuple(p.shape) for name, p in build("convnet", COLOUR, Stream(0)).named_parameters()
    }
    assert shapes["first.weight"] == (4, 3, 3, 3)
    assert shapes["second.weight"] == (8, 4, 3, 3)
    assert shapes["hidden.weight"] == (32, 288)
    assert shapes["head.weight"] == (10, 32)


@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ["convnet", "resnet9"])
def test_logits_and_gradients_are_there_at_both_sizes(name, shape):
    network = build(name, shape, Stream(0))
    logits = network(torch.rand(2, shape.channels, *shape.size))
    assert logits.shape == (2, shape.classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(
        p.grad.abs().sum() > 0 for name, p in network.named_parameters() if name.startswith("head")
    )


def test_a_wide_network_of_fewer_layers_gives_logits():
    network = NETWORKS["wrn-28-10"](1, 5, (8, 8), depth=10, widen=1)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torchvision_s_take_grey_images_three_times_over(name):
    network = build(name, GREY, Stream(0))
    assert repeats(network, 1)
    assert not repeats(network, 3)
    classifier = ImageClassifier(network, GREY, [0.5], [0.5], repeat=True).eval()
    assert classifier(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 7)


def test_our_own_take_grey_images_as_they_are():
    assert not repeats(build("convnet", GREY, Stream(0)), 1)


def test_an_unknown_model_gets_a_suggestion():
    with pytest.raises(SettingsError, match=r"unknown model 'resnet81'\. Did you mean 'resnet18'"):
        check_model("resnet81")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("alexnet", GREY),
        ("convnet", NetworkShape(1, (8, 8), 3)),
        ("resnet9", NetworkShape(1, (6, 6), 3)),
    ],
)
def test_images_too_small_for_a_model_are_refused_with_a_remedy(name, shape):
    height = shape.size[0]
    with pytest.raises(
        SettingsError, match=f"'{name}' cannot take images of {height}x{height} .*--size 224"
    ):
        build(name, shape, Stream(0))


def test_our_own_have_no_pretrained_weights():
    with pytest.raises(SettingsError, match="'convnet' has no pretrained weights"):
        build("convnet", GREY, Stream(0), pretrained=True)


def test_every_head_is_fitted_to_the_classes():
    network = nn.Sequential(
        nn.Conv2d(3, 1000, 1), nn.Flatten(), nn.Linear(4, 1000), nn.Linear(4, 5)
    )
    replace_heads(network, 7)
    assert (network[0].out_channels, network[2].out_features, network[3].out_features) == (7, 7, 5)


def test_pretrained_weights_are_torchvision_s_and_the_head_is_ours(monkeypatch):
    import torchvision

    asked = {}
    monkeypatch.setattr(
        torchvision.models,
        "get_model",
        lambda name, **how: asked.update(how) or nn.Sequential(nn.Linear(4, 1000)),
    )
    network = models._pretrained("resnet18", 3)
    assert asked == {"weights": "DEFAULT"}
    assert network[0].out_features == 3


def test_initial_weights_follow_the_stream_and_leave_torch_s_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (build("convnet", GREY, Stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_a_look_before_training_leaves_batch_normalisation_as_it_was():
    network = build("resnet9", GREY, Stream(0))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(int(m.num_batches_tracked) == 0 and not m.running_mean.any() for m in norms)


def test_a_classifier_normalises_and_resizes():
    classifier = ImageClassifier(
        nn.Identity(), NetworkShape(1, (4, 4), 2), [0.2], [0.5], repeat=False
    )
    images = torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)
    assert torch.allclose(classifier.normalise(images), torch.zeros(1), atol=1e-6)
    assert classifier(images + 51).shape == (1, 1, 4, 4)
    assert torch.allclose(classifier(images + 51), torch.full((1,), 0.4), atol=1e-6)


def test_auxiliary_outputs_are_told_from_the_logits():
    logits = torch.zeros(2)
    aux = torch.ones(2)
    assert outputs(logits) == (logits, ())
    assert outputs((logits, aux, None)) == (logits, (aux,))
