"""`fit` trains, tests once, leaves a folder that loads and resumes, and says what it cannot do."""

import csv
import json
import math
import os
import re
import signal
import statistics
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_trainings import SMALL, Noted, without_curves, without_pauses
from torch import nn

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.errors import DamagedFile, Interrupted, MetalossError, SettingsError
from metaloss.training import figures, fitting, folders, session
from metaloss.training import text as training_text
from metaloss.training.figures import contact_sheet
from metaloss.training.images import in_memory
from metaloss.training.settings import Augment, resolve

FILES = {
    *(
        "config.toml",
        "provenance.json",
        "epochs.csv",
        "timing.csv",
        "results.csv",
        "summary.json",
        "report.html",
        "model.json",
        "places.json",
        "lock",
    ),
    *(
        f"plots/{name}.{kind}"
        for name in ("accuracy", "confusion", "f1", "loss")
        for kind in ("pdf", "png")
    ),
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_pauses(monkeypatch)


@pytest.fixture
def quick(monkeypatch):
    """Figures are most of a tiny training's time."""
    without_curves(monkeypatch)
    monkeypatch.setattr(session.figures, "confusions", lambda *_: [])


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def essence(folder):
    """What must not depend on how a training was interrupted."""
    names = [
        x
        for x in files(folder)
        if x.endswith((".safetensors", "epochs.csv", "summary.json", "model.json"))
    ]
    return {name: (folder / name).read_bytes() for name in names}


def stopper(n):
    """Says to stop when it is asked for the nth time."""
    calls = []
    return lambda: calls.append(0) or len(calls) == n


def test_a_training_leaves_a_folder_that_says_everything(shapes, network):
    fitted = metaloss.fit("ce", network, shapes, seeds=2, seed=5, **SMALL)
    folder = fitted.folder
    assert folder.as_posix() == "trainings/shapes-given-ce"
    kept = {
        "losses/ce/card.md",
        "losses/ce/loss.json",
        "state/ce-0.1-5/done.json",
        "state/ce-0.1-6/done.json",
    }
    assert files(folder) == FILES | kept | {"model-5.safetensors", "model-6.safetensors"}
    assert resolve(tomllib.loads((folder / "config.toml").read_text())).epochs == 2
    about = json.loads((folder / "provenance.json").read_bytes())
    assert about["data"]["shares"]["test"]["images"] == 30
    assert about["conditions"]["data"] == shapes.fingerprint()
    rows = list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))
    assert [(row["seed"], row["epoch"], row["step"]) for row in rows] == [
        ("5", "1", "4"),
        ("5", "2", "8"),
        ("6", "1", "4"),
        ("6", "2", "8"),
    ]
    assert list(rows[0]) == ["loss", "seed", "rate", *folders.COLUMNS]
    assert len(fitted.history) == 4
    assert fitted.history[0]["val_loss"] == float(rows[0]["val_loss"])


def test_results_are_those_of_the_models_that_come_with_them(shapes, network, quick):
    fitted = metaloss.fit("ce", network, shapes, seeds=2, **SMALL)
    images = shapes.pixels[shapes.test]
    labels = shapes.labels[shapes.test]
    for seed, accuracy, value in zip(fitted.seeds, fitted.accuracy, fitted.test_loss, strict=True):
        logits = fitted.model(seed)(images).detach()
        assert float((logits.argmax(1) == labels).double().mean()) == accuracy
        assert float(nn.functional.cross_entropy(logits, labels)) == pytest.approx(value, rel=1e-5)
    assert fitted.mean == statistics.fmean(fitted.accuracy) > 0.5
    assert fitted.std == statistics.stdev(fitted.accuracy)
    assert fitted.f1[0] <= 1
    assert fitted.loss == "ce"
    assert fitted.lr == 0.1
    recalls = [
        x / int((labels == c).sum()) for c, x in enumerate(_hits(fitted.model(1)(images), labels))
    ]
    assert fitted.recall[1] == pytest.approx(recalls)
    assert fitted.balanced_accuracy[1] == pytest.approx(statistics.fmean(recalls))
    row = json.loads((fitted.folder / "summary.json").read_bytes())["trainings"][1]
    assert list(row["recall"].values()) == fitted.recall[1]
    assert list(row["recall"]) == list(shapes.classes)
    rows = list(csv.DictReader((fitted.folder / "results.csv").read_text().splitlines()))
    assert [x["seed"] for x in rows] == ["0", "1"]
    assert float(rows[1]["balanced_accuracy"]) == row["balanced_accuracy"]
    assert float(rows[1]["recall.b"]) == row["recall"]["b"]
    with pytest.raises(SettingsError, match="no trained model of seed 7; there is one of 0, 1"):
        fitted.model(7)


def _hits(logits, labels):
    """How many images of every class are found."""
    return labels[logits.argmax(1) == labels].bincount(minlength=4).tolist()


def test_a_model_by_name_loads_from_the_folder_alone(shapes, quick):
    fitted = metaloss.fit("ce", "convnet", shapes, subset="4-per-class", **SMALL)
    classifier = folders.load(fitted.folder, "model-0.safetensors")
    found = classifier(shapes.pixels[shapes.test]).argmax(1) == shapes.labels[shapes.test]
    assert float(found.double().mean()) == fitted.accuracy[0]
    (fitted.folder / "model-0.safetensors").write_bytes(b"no weights")
    with pytest.raises(DamagedFile, match=r"model-0.safetensors is damaged"):
        fitted.model()


def test_a_size_is_what_the_model_sees(shapes, quick):
    fitted = metaloss.fit("ce", "convnet", shapes, size=16, **SMALL)
    assert fitted.model().network.hidden.in_features == 8 * 2 * 2


def test_two_trainings_of_one_seed_have_equal_bytes_and_folders_of_their_own(
    shapes, network, quick
):
    one, other = (metaloss.fit("ce", network, shapes, **SMALL) for _ in range(2))
    assert other.folder.name == "shapes-given-ce-2"
    assert essence(one.folder) == essence(other.folder)


def test_rates_are_chosen_by_validation_and_the_test_share_is_looked_at_once_per_seed(
    shapes, network, quick, monkeypatch
):
    looked = []
    batches = session.until_stopped  # of the test share alone, in this module
    monkeypatch.setattr(session, "until_stopped", lambda *x: looked.append(0) or batches(*x))
    warned = []
    reporter = type("Told", (Reporter,), {"on_warning": lambda self, text: warned.append(text)})()
    fitted = metaloss.fit(
        "ce", network, shapes, rates=(1e-5, 0.1), seeds=2, reporter=reporter, **SMALL
    )
    assert fitted.lr == 0.1
    assert [x["lr"] for x in fitted.tuning] == [1e-5, 0.1]
    assert fitted.tuning[1]["val_accuracy"] > fitted.tuning[0]["val_accuracy"]
    assert len(looked) == 2
    assert warned[-1] == "ce: the best rate, 0.1, is at the end of those tried; try more"
    assert len(list((fitted.folder / "state").iterdir())) == 3, (
        "the chosen rate's first seed is not trained again"
    )


def test_several_losses_are_paired_with_cross_entropy_seed_by_seed(shapes, network):
    fits = metaloss.fit_all(
        ["mse", "ce", nn.CrossEntropyLoss(label_smoothing=0.1)], network, shapes, seeds=2, **SMALL
    )
    assert [row["loss"] for row in fits.table] == ["mse", "ce", "CrossEntropyLoss"]
    mse, ce, _ = fits.losses
    assert fits.summary["baseline"] == "ce"
    assert "difference" not in fits.table[1]
    differences = [a - b for a, b in zip(mse.accuracy, ce.accuracy, strict=True)]
    assert fits.table[0]["differences"] == differences
    assert fits.table[0]["difference"] == statistics.fmean(differences)
    assert (fits.folder / "model-crossentropyloss-1.safetensors").is_file()
    assert ce.accuracy == metaloss.fit("ce", network, shapes, seeds=2, **SMALL).accuracy, (
        "blind to its rivals"
    )


def test_seeds_start_from_a_module_s_own_weights_which_stay(shapes, network, quick):
    start = network()
    before = [p.clone() for p in start.parameters()]
    fitted = metaloss.fit("ce", start, shapes, seeds=2, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))
    assert not torch.equal(fitted.model(0).network[1].weight, fitted.model(1).network[1].weight)


# --- interrupted ---


@pytest.mark.parametrize("n", [1, 6, 12, 18], ids=lambda n: f"step {n}")
def test_an_interrupted_training_resumes_to_the_same_bytes(shapes, network, n):
    table = {"rates": (0.03, 0.1), "seeds": 2, **SMALL}
    whole = metaloss.fit("ce", network, shapes, **table)
    with pytest.raises(Interrupted):
        metaloss.fit("ce", network, shapes, stop=stopper(n), **table)
    folder = whole.folder.with_name("shapes-given-ce-2")
    assert not (folder / "summary.json").exists()
    resumed = metaloss.fit(resume=folder, model=network, data=shapes)
    assert essence(folder) == essence(whole.folder)
    assert (resumed.accuracy, resumed.history) == (whole.accuracy, whole.history)


def test_a_finished_training_is_read_back(shapes, network, quick):
    whole = metaloss.fit("ce", network, shapes, **SMALL)
    again = metaloss.fit(resume=whole.folder.name, model=network, data=shapes, stop=stopper(1))
    assert (again.accuracy, again.history, again.files) == (
        whole.accuracy,
        whole.history,
        whole.files,
    )


def test_ctrl_c_says_how_to_go_on(shapes, network):
    def told(*_):
        os.kill(os.getpid(), signal.SIGINT)

    reporter = type("Told", (Reporter,), {"on_epoch": told})()
    with pytest.raises(
        KeyboardInterrupt,
        match=r"stopped; metaloss.fit\(resume='trainings/shapes-given-ce'\) goes on",
    ):
        metaloss.fit("ce", network, shapes, reporter=reporter, **SMALL)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert metaloss.fit(resume="shapes-given-ce", model=network, data=shapes).accuracy[0] > 0


def test_a_resumed_training_keeps_its_settings_and_its_objects(shapes, network, quick):
    folder = metaloss.fit("ce", network, shapes, **SMALL).folder
    with pytest.raises(
        SettingsError, match="a resumed training keeps its settings: epochs: it has 2, given 3"
    ):
        metaloss.fit(resume=folder, model=network, data=shapes, epochs=3)
    with pytest.raises(SettingsError, match="was handed a data as an object: hand it over again"):
        metaloss.fit(resume=folder, model=network)
    with pytest.raises(SettingsError, match="no training 'elsewhere'"):
        metaloss.fit(resume="elsewhere")


def test_other_images_are_recognised(shapes, network):
    with pytest.raises(Interrupted):
        metaloss.fit("ce", network, shapes, stop=stopper(3), **SMALL)
    other = (shapes.pixels.roll(1, 0), shapes.labels)
    with pytest.raises(
        SettingsError, match=r"this training began elsewhere .data: was .*--allow-changes"
    ):
        metaloss.fit(resume="shapes-given-ce", model=network, data=other)
    metaloss.fit(resume="shapes-given-ce", model=network, data=other, allow_changes=True)
    about = json.loads(Path("trainings/shapes-given-ce/provenance.json").read_bytes())
    assert len(about["resumed"]) == 1


def test_the_loss_is_kept_with_the_training(shapes, network, tmp_path):
    from metaloss.criterion import loss_io

    (tmp_path / "mine").mkdir()
    loss_io.save(tmp_path / "mine", metaloss.load("-y * logp + 0.1 * p * p"), "mine")
    with pytest.raises(Interrupted):
        metaloss.fit("./mine", network, shapes, stop=stopper(5), **SMALL)
    for path in (tmp_path / "mine").iterdir():
        path.unlink()
    (folder,) = (tmp_path / "trainings").iterdir()
    assert metaloss.fit(resume=folder, model=network, data=shapes).loss == "./mine"


# --- what misleads ---


def test_settings_left_open_are_written_down_and_a_resumed_training_keeps_them(
    shapes, network, quick
):
    with pytest.raises(Interrupted):
        metaloss.fit("ce", network, shapes, epochs=2, stop=stopper(20))
    folder = Path("trainings/shapes-given-ce")
    chosen = resolve(tomllib.loads((folder / "config.toml").read_text()))
    assert (chosen.batch, chosen.epochs, chosen.lr) == (8, 2, 0.03), "of 82 images to train on"
    resumed = metaloss.fit(resume=folder, model=network, data=shapes)
    whole = metaloss.fit("ce", network, shapes, epochs=2)
    assert resumed.history == whole.history
    assert len(whole.history) == 2


def test_a_training_that_answers_one_thing_is_warned_of(shapes, quick):
    still = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    noted = Noted()
    still[1].weight.data.zero_()
    still[1].bias.data = torch.tensor([0.0, 0.0, 9.0, 0.0])
    table = {**SMALL, "lr": 1e-9, "seeds": 2, "validation": 0.1}
    fits = metaloss.fit_all(["ce", "mse"], still, shapes, reporter=noted, **table)
    few, short, *constant = noted.warned
    assert few.startswith("8 images to validate")
    assert short.startswith("10 steps are few")
    text = "in 2 of 2 trainings the answer to every test image is the same class ('c')"
    assert [x.partition(";")[0].partition(":")[0] for x in constant] == [
        "ce",
        "mse",
    ]
    assert text in constant[0]
    assert fits.losses[0].recall == [[0.0, 0.0, 1.0, 0.0]] * 2
    assert [row["one_answer"] for row in fits.table] == [2, 2]
    _, head, ce, mse, classes, *recalls = training_text.table(fits)
    assert "+0.00" not in mse
    assert mse.endswith("– (one answer each)")
    assert "balanced" in head
    assert classes.split() == ["recall", "a", "b", "c", "d"]
    assert re.sub(r" \[[\d, ]+\]", "", recalls[0]).split() == [
        *("ce", "0.00", "%", "0.00", "%", "100.00", "%", "0.00", "%")
    ]
    assert ce


def test_a_loss_that_explodes_is_warned_of_once(shapes, quick):
    noted = Noted()
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    table = {**SMALL, "lr": 500.0, "schedule": "constant", "seeds": 2}
    nonsense = replace(shapes, labels=Stream(0).permutation(120) % 4)
    metaloss.fit("ce", network, nonsense, reporter=noted, **table)
    (text,) = [x for x in noted.warned if "validation loss" in x]
    assert text.startswith("ce, seed 0: the validation loss is ")
    assert "the rate 500 is probably too high" in text


def test_of_many_classes_those_that_are_found_least_are_printed():
    recall = {f"class {i:02d}": i / 20 for i in range(20)}
    first, last = training_text._recalls([{"loss": "ce", "recall": recall}])
    assert first == "recall, the lowest 10 of 20 classes"
    assert last.startswith("ce  class 00 0.00 %, class 01 5.00 %, ")
    assert last.endswith("class 09 45.00 %")


# --- what fails ---


class Breaks(nn.Module):
    """A loss that is no number."""

    def forward(self, logits, target):
        return logits.sum() * math.nan


def test_a_loss_that_is_no_number_is_an_error(shapes, network):
    with pytest.raises(MetalossError, match="Breaks, seed 0: the loss is nan at step 1"):
        metaloss.fit(Breaks(), network, shapes, **SMALL)


def test_a_failed_training_stays_in_the_table(shapes, network):
    fits = metaloss.fit_all(["ce", Breaks()], network, shapes, **SMALL)
    ce, broken = fits.losses
    assert ce.accuracy[0] > 0
    assert math.isnan(broken.accuracy[0])
    assert broken.files == {}
    assert [row["failed"] for row in fits.table] == [0, 1]


def test_a_rate_that_diverges_is_not_chosen(shapes, network, quick):
    fitted = metaloss.fit("ce", network, shapes, rates=(1e30, 0.1), **SMALL)
    assert fitted.lr == 0.1
    assert fitted.tuning[0]["val_accuracy"] == 0.0


def one_number_a_channel():
    """A network whose normalisation sees one number a channel of every image."""
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 4))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "resnet81"}, "unknown model 'resnet81'"),
        ({"loss": "cee"}, "no loss 'cee'"),
        ({"data": "fashonmnist"}, "unknown data source 'fashonmnist'"),
        ({"epoch": 3}, "unknown setting 'epoch'"),
        (
            {"model": one_number_a_channel, "batch": 1},
            "batch: this model normalises over the batch, and cannot with one image: "
            "--batch 2 or more",
        ),
        (
            {"model": one_number_a_channel, "batch": 2, "devices": 2},
            "one image: --batch 4 or more, for 2 devices",
        ),
        ({"model": "alexnet"}, "'alexnet' cannot take images of 12x12"),
        ({"protocol": "loss-report", "model": "convnet"}, "fit trains one loss, got 4"),
    ],
)
def test_what_cannot_be_is_said_before_there_is_a_folder(shapes, given, message, tmp_path):
    table = {"loss": "ce", "model": "convnet", "data": shapes, **given}
    if "protocol" in given:
        table.pop("loss")
    with pytest.raises(SettingsError) as caught:
        metaloss.fit(**table)
    assert message in str(caught.value)
    assert not (tmp_path / "trainings").exists()


def test_a_loss_for_another_number_of_classes_is_refused(shapes, network):
    loss = metaloss.load("ce")
    loss.classes = 10
    with pytest.raises(SettingsError, match="works for 10 classes alone, and the data has 4"):
        metaloss.fit(loss, network, shapes, **SMALL)


def test_without_lightning_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(fitting, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="needs Lightning: pip install '"):
        metaloss.fit()


def test_a_test_can_be_interrupted_too_and_ends_the_same(shapes, network, tmp_path, quick):
    whole = metaloss.fit("ce", network, shapes, **SMALL, out=tmp_path / "whole")
    asked = []
    metaloss.fit("ce", network, shapes, **SMALL, stop=lambda: bool(asked.append(0)))
    with pytest.raises(Interrupted):
        metaloss.fit(
            "ce", network, shapes, **SMALL, out=tmp_path / "broken", stop=stopper(len(asked))
        )
    (folder,) = (tmp_path / "broken").iterdir()
    assert (next((folder / "state").iterdir()) / "done.json").exists()
    assert not (folder / "summary.json").exists()
    resumed = metaloss.fit(None, network, shapes, resume=folder)
    assert essence(resumed.folder) == essence(whole.folder)


# --- figures ---


def trained(loss, seed, level):
    epochs = [
        {
            "step": 5 * i,
            "train_loss": level,
            "val_loss": level / i,
            "val_accuracy": level,
            "val_f1": level,
        }
        for i in (1, 2)
    ]
    return folders.TrainingRecord(loss, 0.1, seed, epochs, [1.0, 1.0])


@pytest.mark.parametrize(
    "loss", ["ce", "label_smoothing(alpha=0.3)", "-y * (1 - p) * logp + 0.25 * p"]
)
def test_a_legend_is_not_cut_off(loss):
    from io import BytesIO

    from PIL import Image

    for picture in figures.curves([trained(x, 0, 0.5) for x in ("focal(gamma=2)", loss)]):
        grey = Image.open(BytesIO(picture.png)).convert("L")
        edges = [grey.crop((x, 0, x + 1, grey.height)).getextrema()[0] for x in (0, grey.width - 1)]
        assert edges == [255, 255]


def test_a_band_is_as_wide_as_the_table_says():
    seeds = [trained("ce", i, level) for i, level in enumerate((0.4, 0.5))]
    _, middle, spread = figures._over_seeds(seeds, "val_accuracy", 100.0)
    assert middle.tolist() == pytest.approx([45.0, 45.0])
    assert spread.tolist() == pytest.approx([100 * statistics.stdev((0.4, 0.5))] * 2)
    assert figures._over_seeds(seeds[:1], "val_accuracy", 100.0)[2].tolist() == [0.0, 0.0]


def test_a_contact_sheet_shows_every_augmentation(shapes):
    from io import BytesIO

    from PIL import Image

    from metaloss.core.streams import Stream

    material = in_memory(shapes, resolve({}), torch.device("cpu"))
    png = contact_sheet(material, Augment(patch=4, pad=2), Stream(0), images=3)
    assert png == contact_sheet(material, Augment(patch=4, pad=2), Stream(0), images=3)
    width, height = Image.open(BytesIO(png)).size
    assert height > 1.5 * width
