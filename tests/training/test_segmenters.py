"""Networks for pixels: logits of the image's size, auxiliary outputs, a line for what cannot be."""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.training.models import NetworkShape, build, names, outputs
from metaloss.training.segmenters import segments, torchvisions

SHAPE = NetworkShape(3, (32, 32), 4)


def test_the_small_one_is_small_and_all_of_it_learns():
    network = build("fcn_small", SHAPE, Stream(0))
    assert sum(p.numel() for p in network.parameters()) / 1e3 == pytest.approx(24, abs=0.5)
    logits = network(torch.rand(2, 3, 32, 30))
    assert logits.shape == (2, 4, 32, 30)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "others"), [("lraspp_mobilenet_v3_large", 0), ("deeplabv3_mobilenet_v3_large", 1)]
)
def test_torchvision_s_give_logits_for_every_pixel_and_auxiliary_ones(name, others):
    network = build(name, SHAPE, Stream(0))
    logits, auxiliary = outputs(network.train()(torch.rand(2, 3, 32, 32)))
    assert logits.shape == (2, 4, 32, 32)
    assert [x.shape for x in auxiliary] == [(2, 4, 32, 32)] * others


def test_they_are_listed_and_told_from_classifiers():
    assert {"fcn_small", "fcn_resnet50", "deeplabv3_resnet50", *torchvisions()} <= set(names())
    assert segments("fcn_resnet50")
    assert segments("fcn_small")
    assert not segments("resnet18")
    assert not segments("convnet")


def test_a_pretrained_backbone_is_torchvision_s(monkeypatch):
    import torchvision

    asked = {}
    made = torchvision.models.get_model(
        "lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=4
    )
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, **how: asked.update(how) or made
    )
    assert build("fcn_resnet50", SHAPE, Stream(0), pretrained=True) is made
    assert asked == {
        "weights": None,
        "weights_backbone": "DEFAULT",
        "num_classes": 4,
        "aux_loss": True,
    }


def test_what_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="'fcn_small' has no pretrained weights"):
        build("fcn_small", SHAPE, Stream(0), pretrained=True)
    with pytest.raises(SettingsError, match="'fcn_small' cannot take images of 3x3"):
        build("fcn_small", NetworkShape(3, (3, 3), 4), Stream(0))
