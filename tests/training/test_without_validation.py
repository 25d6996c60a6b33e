"""`validation = 0`: all training images train, where nothing is chosen on validation images."""

import csv

import pytest
import small_trainings
import torch
from small_trainings import Noted, without_pauses

import metaloss
from metaloss.core.streams import Stream
from metaloss.errors import Interrupted, SettingsError
from metaloss.tasks import training_family
from metaloss.training.settings import resolve
from metaloss.training.shares import split_shares

SMALL = {**small_trainings.SMALL, "validation": 0}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)


def test_all_images_but_the_test_images_train(shapes):
    shares = split_shares(shapes, 0.0, Stream(0))
    assert len(shares.validation) == 0
    assert torch.equal(shares.train, (~shapes.test).nonzero()[:, 0])
    assert torch.equal(shares.test, split_shares(shapes, 0.1, Stream(0)).test)


def test_a_training_says_its_training_loss_alone_and_no_nan(shapes, network):
    noted = Noted()
    fits = metaloss.fit_all(["ce"], network, shapes, metric="mcc", seeds=2, reporter=noted, **SMALL)
    assert fits.summary["images"]["validation"] == 0
    assert fits.summary["images"]["train"] == int((~shapes.test).sum())
    assert not any(key.startswith("val_") for x in fits.losses[0].history for key in x)
    rows = list(csv.DictReader((fits.folder / "epochs.csv").read_text().splitlines()))
    assert list(rows[0]) == ["loss", "seed", "rate", "epoch", "step", "train_loss", "lr"]
    assert len(rows) == 4
    titles, *epochs = noted.lines[-5:]
    assert titles.split() == ["loss", "seed", "rate", "epoch", "step", "train", "loss", "s/epoch"]
    assert len({len(line) for line in (titles, *epochs)}) == 1
    assert "images to train on, none to validate" in " ".join(noted.lines)
    assert not [x for x in (*noted.lines, *noted.warned) if "nan" in x.lower()]
    assert not [x for x in noted.warned if "to validate" in x]
    assert {x.name for x in (fits.folder / "plots").glob("*.png")} == {
        "loss.png",
        "confusion.png",
    }
    page = (fits.folder / "report.html").read_text()
    assert "none to validate" in page
    assert ">nan<" not in page.lower()


def test_a_single_rate_needs_no_validation_images(shapes, network):
    table = {**SMALL, "rates": (0.1,)}
    del table["lr"]
    fitted = metaloss.fit("ce", network, shapes, **table)
    assert fitted.lr == 0.1
    assert fitted.tuning == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"rates": (0.1, 0.2)}, "2 rates are compared on them: give one as lr"),
        ({"thresholds": True}, "thresholds are chosen on them"),
        ({"schedule": "plateau"}, "'plateau' follows the loss on them"),
    ],
)
def test_what_needs_validation_images_is_refused(table, words):
    with pytest.raises(SettingsError, match=words):
        resolve({"validation": 0, **table})


def test_families_need_validation_images():
    table = {"kind": "training", "training": {"validation": 0}}
    with pytest.raises(SettingsError, match="a loss's fitness is measured on them"):
        training_family.of(table, "x", "x.toml")


@pytest.mark.parametrize("n", [3, 9])
def test_an_interrupted_training_resumes_to_the_same_bytes(shapes, network, n):
    calls = []
    whole = metaloss.fit("ce", network, shapes, **SMALL)
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", network, shapes, stop=lambda: calls.append(0) or len(calls) == n, **SMALL
        )
    folder = whole.folder.with_name("shapes-given-ce-2")
    metaloss.fit(resume=folder, model=network, data=shapes)
    for name in ("summary.json", "epochs.csv", "model-0.safetensors", "results.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()
