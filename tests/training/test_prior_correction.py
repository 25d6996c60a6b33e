"""`train --prior-correction`: logits corrected by the classes' shares, after the training."""

import json

import pytest
import torch
from small_trainings import SMALL, Noted, without_curves, without_pauses
from torch import nn

import metaloss
from metaloss.errors import Interrupted, SettingsError
from metaloss.training import text
from metaloss.training.corrections import prior_offsets


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)
    without_curves(monkeypatch)


def test_offsets_are_minus_tau_times_the_log_of_the_shares_but_for_a_constant():
    counts = torch.tensor([60, 30, 10])
    offsets = prior_offsets(counts, 2.0)
    expected = -2.0 * (counts / 100).log()
    assert torch.allclose(offsets - offsets[0], expected - expected[0])
    assert prior_offsets(torch.tensor([7, 7, 7]), 2.0).tolist() == [0.0, 0.0, 0.0]


def test_logits_are_corrected_by_the_training_images_and_the_kept_model_gives_them(uneven, network):
    fits = metaloss.fit_all(["ce", "mse"], network, uneven, prior_correction=1.5, **SMALL)
    fitted = fits.losses[0]
    shares = json.loads((fits.folder / "summary.json").read_bytes())["images"]
    counts = _training_counts(uneven, fits.folder)
    assert counts.sum() == shares["train"]
    offsets = prior_offsets(counts, 1.5)
    assert torch.tensor(list(fitted.prior_correction.values())).equal(offsets)
    assert list(fitted.prior_correction) == list(uneven.classes)
    images = uneven.pixels[uneven.test]
    plain, kept = (fitted.model(prior_correction=x)(images).detach() for x in (False, True))
    assert torch.equal(kept, plain + offsets)
    assert torch.equal(kept, fitted.model()(images).detach())
    right = (kept.argmax(1) == uneven.labels[uneven.test]).double().mean()
    assert fitted.with_prior_correction[0]["accuracy"] == pytest.approx(float(right))
    lines = text.table(fits)
    assert [x.split("  ")[0] for x in lines[2:6]] == [
        "ce", "ce, prior correction", "mse", "mse, prior correction",
    ]  # fmt: skip
    row = fits.table[1]
    assert row["difference"] == pytest.approx(row["accuracy"] - fits.table[0]["accuracy"])
    assert "ce, prior correction" in (fits.folder / "report.html").read_text()


def _training_counts(dataset, folder):
    """Images of every class that are neither tested nor held out, counted from the settings."""
    held = {}
    rest = dataset.labels[~dataset.test].bincount()
    for label, n in enumerate(rest.tolist()):
        held[label] = max(1, round(0.2 * n))
    return rest - torch.tensor(list(held.values()))


def test_it_changes_the_answers_and_no_training(uneven, network):
    plain = metaloss.fit("ce", network, uneven, **SMALL)
    fitted = metaloss.fit("ce", network, uneven, prior_correction=3.0, **SMALL)
    assert fitted.accuracy == plain.accuracy
    assert fitted.history == plain.history
    small = (uneven.labels[uneven.test] >= 2).nonzero()[:, 0]
    counts = [
        int((fitted.model(prior_correction=x)(uneven.pixels[uneven.test]).argmax(1) >= 2).sum())
        for x in (False, True)
    ]
    assert counts[0] < counts[1], "small classes become the answer more often"
    assert len(small)


@pytest.mark.parametrize(
    ("loss", "table", "words"),
    [
        ("ce", {"thresholds": True}, "prior_correction and thresholds both make up"),
        ("ce", {"class_weights": 0.5}, "class_weights and prior_correction both make up"),
        ("ce", {"sampling": "balanced"}, "sampling = 'balanced' and prior_correction both make up"),
        ("logit_adjustment", {}, "makes up for uneven classes itself"),
        ("class_weights", {}, "makes up for uneven classes itself"),
        ("ce", {"prior_correction": 0.0}, "greater than 0"),
        ("ce", {"prior_correction": 11.0}, "less than or equal to 10"),
    ],
)
def test_what_would_be_done_twice_is_refused(uneven, network, loss, table, words):
    with pytest.raises(SettingsError, match=words):
        metaloss.fit(loss, network, uneven, **{"prior_correction": 1.0, **table}, **SMALL)


def test_even_classes_and_weights_of_a_loss_are_said(shapes, uneven, network):
    for data, loss, words in (
        (shapes, "ce", "changes nothing: every class has as many images"),
        (uneven, metaloss.load("ce", weight=[1.0, 1.0, 2.0, 2.0]), "has weights of its own"),
    ):
        noted = Noted()
        fitted = metaloss.fit(loss, network, data, prior_correction=1.0, reporter=noted, **SMALL)
        assert any(words in x for x in noted.warned)
        assert fitted.with_prior_correction
    quiet = Noted()
    metaloss.fit("ce", network, uneven, prior_correction=1.0, reporter=quiet, **SMALL)
    assert not [x for x in quiet.warned if "prior_correction" in x]


def test_cautions_are_of_the_network_as_it_is_used(uneven):
    """A network that never answers with a small class; corrected, it never does with a large."""
    still = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    with torch.no_grad():
        still[1].weight.zero_()
        still[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    noted = Noted()
    metaloss.fit("ce", still, uneven, prior_correction=9.0, reporter=noted, **SMALL | {"lr": 1e-9})
    (loud,) = [x for x in noted.warned if "the same class" in x]
    assert loud.startswith("ce, prior correction: in 1 of 1 trainings")
    assert "--class-weights" not in loud


@pytest.mark.parametrize("n", [3, 9])
def test_an_interrupted_training_resumes_to_the_same_bytes(uneven, network, n):
    calls = []
    table = {**SMALL, "prior_correction": 0.7}
    whole = metaloss.fit("ce", network, uneven, **table)
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", network, uneven, stop=lambda: calls.append(0) or len(calls) == n, **table
        )
    folder = whole.folder.with_name("shapes-given-ce-2")
    metaloss.fit(resume=folder, model=network, data=uneven)
    for name in ("summary.json", "model.json", "model-0.safetensors", "results.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()
