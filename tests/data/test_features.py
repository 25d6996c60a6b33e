"""Features in the place of pixels: standardised by what may be seen, computed once, never fetched
in silence.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.datasets._images import ImageOptions
from metaloss.data.features import (
    RawFeatures,
    check_spec,
    extraction,
    networks,
    open_features,
    standardised,
)
from metaloss.data.features.networks import PretrainedNetwork
from metaloss.errors import DataError, SettingsError

OPTIONS = ImageOptions()
RAW = RawFeatures(Stream(0).at("x").normal(20, 5) * 3 + 7, "file:x.npz")
SEEN = torch.arange(3, 12)


# --- standardised ---


def test_features_are_standardised_by_the_rows_that_may_be_seen():
    x = RAW.values.double().numpy()
    expected = (x - x[3:12].mean(0)) / x[3:12].std(0)
    found = standardised(RAW, SEEN, "cpu").values
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_other_rows_change_nothing_of_what_is_seen():
    values = RAW.values.clone()
    values[12:] *= 1000
    values[:3] -= 50
    found = standardised(replace(RAW, values=values), SEEN, "cpu").values
    assert torch.equal(found[SEEN], standardised(RAW, SEEN, "cpu").values[SEEN])


@pytest.mark.parametrize("value", [0.0, 0.1, -3e30, 1e-40])
def test_a_feature_that_is_constant_where_it_may_be_seen_is_0_everywhere(value):
    values = RAW.values.clone()
    values[SEEN, 2] = value
    found = standardised(replace(RAW, values=values), SEEN, "cpu").values
    assert (found[:, 2] == 0).all()
    assert found.isfinite().all()


def test_a_value_that_no_number_can_hold_after_that_is_refused():
    values = RAW.values.clone()
    values[SEEN, 1] *= 1e-6
    values[0, 1] = 3e38
    with pytest.raises(DataError, match=r"feature 1 of row 0: found 3.0.*e\+38, expected a num"):
        standardised(replace(RAW, values=values), SEEN, "cpu")


def test_features_come_as_channels_of_one_pixel():
    features = standardised(RAW, SEEN, "cpu")
    rows = torch.tensor([[3, 1], [0, 19]])
    assert features.shape == (5, 1, 1)
    assert torch.equal(features.at(rows).flatten(2), features.values[rows])


# --- from files ---


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return f"file:{tmp_path / 'x.npz'}"


def values_of(dataset):
    return Stream(1).at("values").normal(len(dataset.labels), 4).numpy()


def test_rows_beside_labels_lie_in_the_order_of_the_images(dataset, tmp_path):
    values = values_of(dataset)
    numbers = saved(tmp_path, features=values, labels=dataset.labels.numpy())
    assert np.array_equal(open_features(numbers, dataset, "tiny", OPTIONS).values, values)
    names = np.array(dataset.classes)[dataset.labels]
    text = saved(tmp_path, features=values, labels=names, classes=["d", "c", "b", "a"])
    assert np.array_equal(open_features(text, dataset, "tiny", OPTIONS).values, values)


def test_rows_that_cannot_belong_to_the_images_are_refused(dataset, tmp_path):
    values = values_of(dataset)
    labels = dataset.labels.numpy()
    for arrays, message in (
        ({"features": values}, "found neither labels nor names"),
        ({"features": values[1:], "labels": labels[1:]}, "found 119 rows, expected 120, one for"),
        ({"features": values, "labels": np.roll(labels, 1)}, "found 3 in row 0, expected a: rows"),
        (
            {"features": values, "names": np.arange(120).astype(str)},
            "names: tiny has no files that are named",
        ),
    ):
        with pytest.raises(DataError, match=message):
            open_features(saved(tmp_path, **arrays), dataset, "digits", OPTIONS)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes of four images, each of its own grey, two of them in colour."""
    for i in range(8):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = np.full((30, 20, 3), 20 * i, np.uint8)
        image[0, 0, 0] += i in (2, 3)
        Image.fromarray(image).save(folder / f"{i // 2}.png")
    return f"folder:{tmp_path / 'photos'}"


NAMES = [f"{c}/{i}.png" for c in "ab" for i in range(4)]


def test_rows_find_their_images_by_name(photos, tmp_path):
    dataset = datasets.load(photos)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    values = values_of(dataset)
    spec = saved(tmp_path, features=values[order], names=np.array(NAMES)[order])
    assert np.array_equal(open_features(spec, dataset, photos, OPTIONS).values, values)


def test_images_without_features_are_named(photos, tmp_path):
    dataset = datasets.load(photos)
    values = values_of(dataset)
    spec = saved(tmp_path, features=values[:5], names=NAMES[:5])
    with pytest.raises(DataError, match=r"for 3 of 8 images \(b/1.png, b/2.png, b/3.png\), exp"):
        open_features(spec, dataset, photos, OPTIONS)
    spec = saved(tmp_path, features=values[:4], names=[f"{i}.png" for i in range(4)])
    with pytest.raises(DataError, match="two images of folder:photos have one name"):
        open_features(spec, dataset, photos, OPTIONS)


def test_what_names_no_features_is_refused():
    for spec in ("resnet18", "file:", "torchvision:", "keras:resnet", ""):
        with pytest.raises(SettingsError, match="expected file:PATH, torchvision:NAME or timm"):
            check_spec(spec)


# --- from networks ---


class Means(nn.Module):
    """The mean of each channel, twice; counts its images."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return torch.cat([x.mean((2, 3)), x.mean((2, 3))], 1)


def to_tensor(image):
    assert image.mode == "RGB"
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.fixture
def network(monkeypatch, tmp_path):
    """A network in the place of every pretrained one, and a cache of the test's own."""
    monkeypatch.setenv("METALOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(extraction, "PART", 50)
    module = Means()
    monkeypatch.setattr(
        extraction, "open_network", lambda spec: PretrainedNetwork(module, to_tensor, spec)
    )
    return module


class Seen(Reporter):
    def __init__(self):
        self.events = []

    def on_features(self, source, done, images):
        self.events.append((source, done, images))


def test_a_networks_features_are_computed_once_and_kept(dataset, network):
    reporter = Seen()
    spec = "torchvision:x"
    raw = open_features(spec, dataset, "digits", OPTIONS, reporter=reporter)
    grey = dataset.pixels.float().mean((1, 2, 3))
    torch.testing.assert_close(raw.values, grey[:, None].expand(-1, 6))
    assert sum(shape[0] for shape in network.seen) == 120
    assert reporter.events == [(spec, i, 120) for i in (0, 50, 100, 120)]
    network.seen.clear()
    again = open_features(spec, dataset, "digits", OPTIONS)
    assert network.seen == []
    assert torch.equal(again.values, raw.values)
    assert again.digest == raw.digest


def test_an_extraction_that_was_stopped_goes_on_where_it_was(dataset, network):
    class Stops(Reporter):
        def on_features(self, source, done, images):
            if done == 100:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_features("torchvision:x", dataset, "digits", OPTIONS, reporter=Stops())
    network.seen.clear()
    open_features("torchvision:x", dataset, "digits", OPTIONS)
    assert sum(shape[0] for shape in network.seen) == 20


def test_a_damaged_entry_is_computed_again(dataset, network, tmp_path):
    before = open_features("torchvision:x", dataset, "digits", OPTIONS)
    paths = sorted((tmp_path / "cache" / "features").rglob("*.safetensors"))
    assert len(paths) == 3
    data = bytearray(paths[1].read_bytes())
    data[-5] ^= 1
    paths[1].write_bytes(data)
    network.seen.clear()
    after = open_features("torchvision:x", dataset, "digits", OPTIONS)
    assert sum(shape[0] for shape in network.seen) == 50
    assert torch.equal(after.values, before.values)


def test_other_images_weights_or_backgrounds_are_another_entry(dataset, network):
    net = extraction.open_network("torchvision:x")
    cpu = torch.device("cpu")
    pixels = dataset.pixels.clone()
    pixels[7] ^= 1
    names = {
        extraction.entry_name(net, dataset, OPTIONS, cpu),
        extraction.entry_name(net, replace(dataset, pixels=pixels), OPTIONS, cpu),
        extraction.entry_name(replace(net, identity="y"), dataset, OPTIONS, cpu),
        extraction.entry_name(net, dataset, ImageOptions(background="black"), cpu),
        extraction.entry_name(net, dataset, OPTIONS, torch.device("cuda")),
    }
    assert len(names) == 5


def test_a_cache_that_cannot_be_written_costs_time_and_says_so(
    dataset, network, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METALOSS_CACHE", str(tmp_path / "file"))
    with pytest.warns(Warning, match="features are not kept, and computed anew"):
        found = open_features("torchvision:x", dataset, "digits", OPTIONS)
    assert len(found.values) == 120


def test_files_are_read_at_their_full_size(photos, network):
    dataset = datasets.load(photos, ImageOptions(size=8))
    assert dataset.pixels.shape[-2:] == (8, 8)
    raw = open_features("torchvision:x", dataset, photos, OPTIONS)
    assert {shape[1:] for shape in network.seen} == {(3, 30, 20)}
    assert raw.values[:, 1].tolist() == [0, 40, 80, 120, 20, 60, 100, 140]


def test_a_network_that_gives_no_numbers_is_refused(dataset, network, monkeypatch):
    monkeypatch.setattr(Means, "forward", lambda self, x: x.new_full((len(x), 2), torch.nan))
    with pytest.raises(DataError, match="the network gives values that are not finite"):
        open_features("torchvision:x", dataset, "digits", OPTIONS)


# --- torchvision's and timm's ---


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """torch's cache in a folder of the test; any download fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_weights_that_are_not_here_are_asked_for_and_not_fetched(hub):
    with pytest.raises(DataError) as error:
        networks.open_network("torchvision:shufflenet_v2_x0_5")
    assert str(error.value) == (
        "torchvision:shufflenet_v2_x0_5: its weights are not on this machine; get them with: "
        "metaloss data fetch torchvision:shufflenet_v2_x0_5"
    )
    with pytest.raises(SettingsError, match="Did you mean 'resnet18'"):
        networks.open_network("torchvision:resnet_18")


def test_damaged_weights_are_refused_before_they_are_unpickled(hub):
    (hub / "shufflenetv2_x0.5-f707e7126e.pth").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match=r"is damaged: its SHA-256 is .*, expected f707e7126e"):
        networks.open_network("torchvision:shufflenet_v2_x0_5")


def test_a_network_gives_what_its_last_layer_would_be_fed(hub, monkeypatch):
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = torchvision.models.shufflenet_v2_x0_5().eval()
    path = hub / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save(whole.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(networks, "checked_digest", lambda path: digest)
    network = networks.open_network("torchvision:shufflenet_v2_x0_5")
    assert digest in network.identity
    images = network.transform(Image.new("RGB", (40, 30), "red"))[None]
    assert images.shape == (1, 3, 224, 224)
    with torch.no_grad():
        features = network.module(images)
        assert features.shape == (1, 1024)
        torch.testing.assert_close(whole.fc(features), whole(images))


def test_fetch_says_where_to_put_weights_that_cannot_be_downloaded(hub, monkeypatch, metaloss):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    code, _, err = metaloss("data", "fetch", "torchvision:shufflenet_v2_x0_5")
    assert code == 2
    assert err == (
        "error: torchvision:shufflenet_v2_x0_5: the weights cannot be downloaded (no route to "
        f"host); put shufflenetv2_x0.5-f707e7126e.pth into {hub}\n"
    )


def test_timm_is_named_where_it_is_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingsError, match="features: timm:NAME needs timm: pip install"):
        networks.open_network("timm:resnet18")
