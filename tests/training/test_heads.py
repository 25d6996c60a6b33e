"""A head on frozen features: trained, kept, resumed, and refused where it does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import scans
import torch
from small_trainings import without_curves, without_pauses

import metaloss
from metaloss.data import datasets
from metaloss.errors import DataError, Interrupted, SettingsError
from metaloss.training import session

QUICK = {"epochs": 2, "batch": 8, "lr": 0.1, "validation": 0.2}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)
    without_curves(monkeypatch)
    monkeypatch.setattr(session.figures, "confusions", lambda *_: [])
    scans.written(tmp_path)


@pytest.fixture
def features():
    """Five numbers of every image, of which the first tells its class and the last is constant."""
    labels = datasets.load("folder:scans").labels
    values = np.random.default_rng(0).normal(size=(len(labels), 5)).astype(np.float32)
    values[:, 0] = 300 + 20 * labels.numpy() + values[:, 0]
    values[:, 4] = 7
    np.savez("features.npz", features=values, labels=labels.numpy())
    return torch.from_numpy(values)


@pytest.mark.parametrize("model", ["linear", "mlp", "mlp-16-8"])
def test_a_head_learns_from_features_and_takes_them_as_they_were_computed(features, model):
    fitted = metaloss.fit(
        "ce", model, "folder:scans", features="file:features.npz", **QUICK | {"epochs": 6}
    )
    assert fitted.accuracy == [1.0]
    data = datasets.load("folder:scans")
    found = fitted.model()(features).argmax(1)
    assert (found == data.labels).double().mean() > 0.95
    about = json.loads((fitted.folder / "model.json").read_bytes())
    assert (about["channels"], about["size"]) == (5, [1, 1])
    assert about["features"].startswith("float32 [N, channels]")
    kept = json.loads((fitted.folder / "provenance.json").read_bytes())
    assert kept["data"]["features"]["numbers"] == 5


def test_features_have_mean_0_and_deviation_1_over_the_training_images(features):
    fitted = metaloss.fit("ce", None, "folder:scans", features="file:features.npz", **QUICK)
    classifier = fitted.model()
    assert type(classifier.network).__name__ == "LinearHead", "the default on features"
    rows = classifier.normalise(features[..., None, None])[:, :, 0, 0]
    assert rows[:, 4].abs().max() == 0
    assert rows[:, :4].mean(0).abs().max() < 0.5
    assert (rows[:, :4].std(0) - 1).abs().max() < 0.4


def test_a_table_of_features_is_trained_on_like_images(features):
    labels = datasets.load("folder:scans").labels
    np.savez("table.npz", features=features.numpy(), labels=labels.numpy())
    fitted = metaloss.fit("ce", data="file:table.npz", **QUICK | {"epochs": 6})
    assert fitted.accuracy[0] > 0.9


@pytest.mark.parametrize("n", [3, 8])
def test_an_interrupted_head_resumes_to_the_same_bytes_wherever_its_files_lie(features, n):
    table = {"features": "file:features.npz", "sampling": "balanced", **QUICK}
    whole = metaloss.fit("ce", "mlp", "folder:scans", **table)
    calls = []
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", "mlp", "folder:scans", stop=lambda: calls.append(0) or len(calls) == n, **table
        )
    folder = whole.folder.with_name(f"{whole.folder.name}-2")
    Path("scans").rename("moved")
    resumed = metaloss.fit(resume=folder, data="folder:moved")
    assert resumed.history == whole.history
    for name in ("results.csv", "model-0.safetensors"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_other_features_are_recognised(features):
    table = {"features": "file:features.npz", **QUICK}
    calls = []
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", None, "folder:scans", stop=lambda: calls.append(0) or len(calls) == 3, **table
        )
    labels = datasets.load("folder:scans").labels
    np.savez("features.npz", features=features.numpy() + 1, labels=labels.numpy())
    (folder,) = Path("trainings").iterdir()
    with pytest.raises(SettingsError, match="features: was"):
        metaloss.fit(resume=folder)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"model": "resnet9"}, "model 'resnet9' takes images, and here are features"),
        ({"augment": "base"}, "augment 'base' changes pixels"),
        ({"features": "resnet18"}, "features: expected file:PATH"),
        ({"features": "file:nowhere.npz"}, "nowhere.npz"),
        ({"data": (torch.zeros(8, 4, 4), [0, 1] * 4)}, "features are of images that a name means"),
    ],
)
def test_what_does_not_go_with_features_is_refused(features, table, words):
    whole = {"data": "folder:scans", "features": "file:features.npz", **QUICK, **table}
    with pytest.raises((SettingsError, DataError), match=words):
        metaloss.fit("ce", **whole)
    assert not Path("trainings").exists()
