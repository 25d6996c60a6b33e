"""Uneven classes in `train`: metric, class weights, balanced batches, thresholds, what is said."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_trainings import SMALL, Noted, without_curves, without_pauses
from torch import nn

import metaloss
from metaloss.core.proportions import wilson
from metaloss.core.streams import Stream
from metaloss.errors import Interrupted, SettingsError
from metaloss.inner.thresholds import search_thresholds
from metaloss.training import cautions, report, results, text
from metaloss.training.images import in_memory
from metaloss.training.losses import class_weights
from metaloss.training.measurement import Predictions
from metaloss.training.sampling import balanced_order
from metaloss.training.settings import resolve
from metaloss.training.targets import Classification, classification_by, target_of
from metaloss.training.testing import chosen_thresholds, most_wrong

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)
    without_curves(monkeypatch)


# --- batches ---


def test_every_batch_has_as_many_of_every_class_and_every_image_of_a_class_its_turn():
    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 3)
    rows = torch.arange(28) + 100
    order = balanced_order(rows, labels, 7, Stream(0), 0, 30)
    counts = torch.stack([labels[x - 100].bincount(minlength=3) for x in order.split(7)])
    assert counts.sum(1).tolist() == [7] * 30
    assert ((counts == 2) | (counts == 3)).all()
    assert counts.sum(0).tolist() == [70, 70, 70]
    for label in range(3):
        seen = (order - 100).bincount(minlength=28)[labels == label]
        assert seen.max() - seen.min() <= 1


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_batches_are_a_function_of_the_step_alone(batch):
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 2)
    whole = balanced_order(torch.arange(15), labels, batch, Stream(1), 0, 12)
    parts = [
        balanced_order(torch.arange(15), labels, batch, Stream(1), first, steps)
        for first, steps in ((0, 5), (5, 1), (6, 6))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert len(whole) == 12 * batch
    assert labels[whole].bincount(minlength=3).max() - labels[whole].bincount().min() <= 1


# --- weights ---


def test_class_weights_are_scikit_learn_s():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 3)
    expected = torch.tensor(
        compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy()),
        dtype=torch.float32,
    )
    assert torch.allclose(class_weights(labels, 3, 1.0), expected)
    assert torch.allclose(class_weights(labels, 3, 0.5), expected.sqrt())


def test_a_weighted_loss_is_torch_s_and_one_of_torch_s_own_is_weighed_alike(uneven, network):
    ours = metaloss.fit("ce", network, uneven, class_weights="balanced", **SMALL)
    theirs = metaloss.fit(nn.CrossEntropyLoss(), network, uneven, class_weights="balanced", **SMALL)
    plain = metaloss.fit("ce", network, uneven, **SMALL)
    assert [x["train_loss"] for x in ours.history] == pytest.approx(
        [x["train_loss"] for x in theirs.history], rel=1e-5
    )
    assert ours.history[0]["train_loss"] != plain.history[0]["train_loss"]


@pytest.mark.parametrize(
    ("loss", "table", "words"),
    [
        ("class_weights", {"class_weights": 0.5}, "makes up for uneven classes itself"),
        ("logit_adjustment", {"sampling": "balanced"}, "makes up for uneven classes itself"),
        (
            metaloss.load("ce", weight=[1.0, 2.0, 3.0, 4.0]),
            {"class_weights": "balanced"},
            "has weights of its own",
        ),
        (nn.Identity(), {"class_weights": "balanced"}, "a module of your own"),
        (
            "ce",
            {"class_weights": "balanced", "sampling": "balanced"},
            "both make up for uneven classes: give one",
        ),
        ("ce", {"class_weights": -1.0}, "class_weights"),
        ("ce", {"sampling": "even"}, "sampling"),
        ("ce", {"metric": "f2"}, "unknown metric 'f2'"),
    ],
)
def test_what_would_be_done_twice_or_not_at_all_is_refused(uneven, network, loss, table, words):
    with pytest.raises(SettingsError, match=words):
        metaloss.fit(loss, network, uneven, **table, **SMALL)


# --- metric ---


def test_rates_are_chosen_by_the_metric_and_it_is_reported_beside_accuracy(uneven, network):
    fits = metaloss.fit_all(
        ["ce", "mse"], network, uneven, metric="mcc", rates=(1e-5, 0.1), **SMALL | {"lr": None}
    )
    ce = fits.losses[0]
    assert ce.metric == "mcc"
    assert ce.lr == 0.1
    assert {"lr", "val_mcc"} == set(ce.tuning[0])
    assert ce.scores == [fits.summary["trainings"][0]["mcc"]]
    assert ce.mean == ce.scores[0]
    row = fits.table[1]
    assert row["difference"] == pytest.approx(row["mcc"] - fits.table[0]["mcc"])
    lines = text.table(fits)
    assert "Matthews correlation, paired with ce" in lines[0]
    assert lines[1].split()[:5] == ["loss", "rate", "Matthews", "correlation", "accuracy"]


def test_of_a_metric_that_is_to_be_low_the_lowest_rate_s_value_is_taken(uneven, network):
    fitted = metaloss.fit(
        "ce", network, uneven, metric="nll", rates=(1e-5, 0.1), **SMALL | {"lr": None}
    )
    values = {x["lr"]: x["val_nll"] for x in fitted.tuning}
    assert fitted.lr == min(values, key=values.get)
    assert fitted.history[-1]["val_nll"] == values[fitted.lr]


@pytest.mark.parametrize("kind", ["balanced_accuracy", "macro_f1", "accuracy"])
def test_what_is_measured_anyway_is_not_measured_twice(kind):
    target = classification_by({"kind": kind}, ("cat", "dog"))
    seen = Predictions(Stream(0).normal(40, 2), Stream(1).integers(2, 40), 0.5)
    measured = seen.measured(target.by)
    scores = target.scores(measured, ("cat", "dog"))
    assert scores[target.metric.key] == pytest.approx(measured.by_metric, abs=1e-6)
    assert len({metric.key for metric in target.metrics}) == 3


def test_a_summary_tells_its_metric():
    target = classification_by({"kind": "mcc"}, ("cat", "dog"))
    again = target_of(target.scale.entry())
    assert isinstance(again, Classification)
    assert again.metric == target.metric


# --- thresholds ---


def test_thresholds_find_the_shift_that_was_taken_away():
    draw = Stream(3)
    labels = draw.at("y").integers(3, 600)
    logits = 3 * torch.nn.functional.one_hot(labels, 3) + draw.at("z").normal(600, 3)
    spoilt = Predictions(logits - torch.tensor([0.0, 4.0, 0.0]), labels, 0.0)
    found = chosen_thresholds(spoilt, classification_by({"kind": "balanced_accuracy"}, "abc"))
    before, after = (x.measured().balanced_accuracy for x in (spoilt, spoilt.shifted(found)))
    whole = Predictions(logits, labels, 0.0).measured().balanced_accuracy
    assert before < 0.75 < whole - 0.01 <= after


def test_thresholds_that_gain_nothing_are_0():
    assert search_thresholds(lambda offsets: 1.0, 3).tolist() == [0.0, 0.0, 0.0]


def test_thresholds_are_chosen_on_validation_images_alone_and_kept_with_the_model(uneven, network):
    table = {"metric": "balanced_accuracy", "thresholds": True, **SMALL}
    fitted = metaloss.fit("ce", network, uneven, **table)
    wrong = uneven.labels.where(~uneven.test, (uneven.labels + 1) % 4)
    other = metaloss.fit("ce", network, replace(uneven, labels=wrong), **table)
    assert fitted.thresholds == other.thresholds, "test labels have no part in them"
    offsets = torch.tensor(list(fitted.thresholds[0].values()))
    images = uneven.pixels[uneven.test]
    plain, moved = (fitted.model(thresholds=x)(images).detach() for x in (False, True))
    assert torch.equal(moved, plain + offsets)
    right = (moved.argmax(1) == uneven.labels[uneven.test]).double().mean()
    assert fitted.with_thresholds[0]["accuracy"] == pytest.approx(float(right))
    with pytest.raises(SettingsError, match="no thresholds were chosen"):
        metaloss.fit("ce", network, uneven, **SMALL).model(thresholds=True)


# --- resuming ---


@pytest.mark.parametrize(
    "table",
    [
        {"metric": "mcc", "rates": (0.03, 0.1)},
        {"class_weights": 0.5},
        {"sampling": "balanced"},
        {"thresholds": True, "metric": "macro_f1"},
    ],
    ids=["metric", "weights", "batches", "thresholds"],
)
@pytest.mark.parametrize("n", [3, 9])
def test_an_interrupted_training_resumes_to_the_same_bytes(uneven, network, table, n):
    calls = []
    table = {**SMALL, **table}
    if "rates" in table:
        table.pop("lr")
    whole = metaloss.fit("ce", network, uneven, **table)
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", network, uneven, stop=lambda: calls.append(0) or len(calls) == n, **table
        )
    folder = whole.folder.with_name("shapes-given-ce-2")
    metaloss.fit(resume=folder, model=network, data=uneven)
    for name in ("summary.json", "epochs.csv", "model-0.safetensors", "results.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()


# --- what is said ---


def test_a_class_that_is_never_found_is_said_loudly(uneven):
    """A network that tells the first two classes apart, and knows no other."""
    still = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    noted = Noted()
    with torch.no_grad():
        still[1].bias.copy_(torch.tensor([0.0, 0.0, -99.0, -99.0]))
    fits = metaloss.fit_all(["ce"], still, uneven, reporter=noted, **SMALL | {"lr": 1e-9})
    (loud,) = [x for x in noted.warned if "never found" in x]
    assert loud.startswith("ce: in 1 of 1 trainings a class is never found, its recall is 0: 'c' (")
    assert "--class-weights balanced" in loud
    assert loud in fits.summary["cautions"]
    assert loud in json.loads((fits.folder / "summary.json").read_bytes())["cautions"]


def test_what_is_done_already_is_not_advised():
    runs = {"ce": [{"failed": "", "only_answer": None, "recall": {"a": 1.0, "b": 0.0}}]}
    first, again = (cautions.of_results(runs, {"a": 9, "b": 2}, x)[0] for x in (False, True))
    assert "--class-weights balanced" in first
    assert "--class-weights" not in again
    assert "--features" in again


def test_few_images_for_a_threshold_are_said():
    assert cautions.few_for_thresholds({"a": 40, "b": 10}, 0.1) is None
    assert "on 2 images of 'b'" in cautions.few_for_thresholds({"a": 40, "b": 2}, 0.1)


def test_recall_has_the_interval_of_its_test_images_and_the_matrix_its_numbers(uneven, network):
    fits = metaloss.fit_all(["ce"], network, uneven, seeds=2, **SMALL)
    (row,) = fits.table
    sizes = uneven.labels[uneven.test].bincount().tolist()
    for name, n in zip(uneven.classes, sizes, strict=True):
        assert row["recall_interval"][name] == pytest.approx(wilson(row["recall"][name], n))
    tables = torch.tensor(fits.losses[0].confusion)
    assert tables.sum(2).tolist() == [sizes] * 2
    assert row["confusion"] == tables.double().mean(0).tolist()
    assert (fits.folder / "plots" / "confusion.png").is_file()
    line = text.table(fits)[-1]
    low, high = row["recall_interval"]["a"]
    assert f"[{100 * low:.0f}, {100 * high:.0f}]" in line


def test_the_most_wrong_answers_are_those_whose_class_is_least_probable():
    logits = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 9.0], [2.0, 0.0]])
    seen = Predictions(logits, torch.tensor([0, 0, 0, 1]), 0.0)
    found = most_wrong(seen, torch.tensor([10, 11, 12, 13]), ("cat", "dog"))
    assert [x["row"] for x in found] == [12, 13, 11]
    assert (found[0]["class"], found[0]["answer"]) == ("cat", "dog")
    assert found[0]["probability"] == pytest.approx(1 / (1 + math.exp(-9)))


def test_a_failed_training_has_no_matrix():
    runs = [{"recall": {"a": math.nan}, "confusion": [], "failed": "x"}]
    assert results._of_classes(runs) == {}


def test_the_report_is_one_page_with_recall_matrix_and_the_most_wrong_images(uneven, network):
    fits = metaloss.fit_all(
        ["ce", "mse"], network, uneven, metric="mcc", thresholds=True, **SMALL | {"lr": 1e-3}
    )
    page = (fits.folder / "report.html").read_text()
    assert "http" not in page
    assert "Matthews correlation" in page
    assert "Recall of every class" in page
    wrong = sum(any(x["wrong"] for x in fits.summary["trainings"] if x["loss"] == loss)
                for loss in ("ce", "mse"))  # fmt: skip
    assert wrong > 0
    assert page.count('src="data:image/png;base64,') == 1 + wrong
    assert f"metaloss train --config {fits.folder / 'config.toml'}" in page
    low, high = fits.table[0]["recall_interval"]["a"]
    assert f"[{100 * low:.0f}, {100 * high:.0f}]" in page


def test_the_most_wrong_images_are_named_by_their_files(uneven, network):
    named = replace(uneven, files=tuple(f"x/{i}.png" for i in range(len(uneven.labels))))
    fits = metaloss.fit_all(["ce"], network, named, **SMALL | {"lr": 1e-3})
    (run,) = fits.summary["trainings"]
    assert report._file(named, run["wrong"][0]["row"]) == f"x/{run['wrong'][0]['row']}.png"
    assert report.wrong_answers("ce", run["wrong"], in_memory(named, resolve({}), CPU)).png
