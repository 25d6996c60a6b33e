"""A folder of few, uneven images: all of them take part as they are, beside what is no loss."""

import csv
import json
import re
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from test_run_folder import code, only_the_subset, without_plots

import metaloss
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.proportions import wilson
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.shapes import ProportionalShots
from metaloss.errors import DataError, Interrupted
from metaloss.evaluation.rivals.fitting import FittedChoice
from metaloss.evaluation.rivals.logits import ChangeChoice
from metaloss.evaluation.rivals.methods import METHODS, TaskArrays
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import code as use_code
from metaloss.experiments.recommendation import folds, report, rivals, selection, sentences
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict, worth_searching
from metaloss.inner.loop import Inner
from metaloss.tasks import step_counts

FAST = {
    "tuning_tasks": 2,
    "test_tasks": 3,
    "rates": (0.1, 1.0),
    "classifier": {"kind": "mlp", "hidden": [4]},
}
UNEVEN = {"benign": 24, "malign": 9, "rare": 4}
BALANCED = MetricScale("balanced_accuracy", "balanced accuracy", guess=1 / 3)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(step_counts, "STEPS", (6,))
    monkeypatch.chdir(tmp_path)


def pictures(root, **classes):
    """A folder with so many different gray images of each class."""
    for place, (name, n) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            value = Stream(i).at(name).integers(256, 4, 4).to(torch.uint8) // 2 + 40 * place
            Image.fromarray(value.numpy()).save(root / name / f"{i}.png")
    return f"folder:{root}"


@pytest.fixture
def scans(tmp_path):
    return pictures(tmp_path / "scans", **UNEVEN)


@pytest.fixture
def advice(scans):
    return metaloss.recommend(scans, ["mse", "logit_adjustment(tau=1)"], **FAST)


# --- the shape of tasks ---


def test_uneven_images_are_all_used_in_their_own_proportions(scans):
    cut = folds.make_folds(scans, {}, Stream(0))
    assert cut.folds == 3
    assert isinstance(cut.family.shots, ProportionalShots)
    assert cut.family.metric["kind"] == "balanced_accuracy"
    assert cut.usual_metric
    held = [[len(x) for x in part] for part in cut.parts]
    assert np.sum(held, 0).tolist() == [24, 9, 4]
    assert all(max(of_class) - min(of_class) <= 1 for of_class in zip(*held, strict=True))
    for number in range(cut.folds):
        choosing, judging = cut.fold(number, torch.device("cpu"))
        for episodes, pool in ((choosing, "validation"), (judging, "test")):
            tasks = episodes.sample([Stream(t) for t in range(8)], pool)
            counts = tasks.train.class_counts[0].tolist()
            sizes = dict(zip(tasks.classes[0].tolist(), counts, strict=True))
            # Two thirds of what is outside the fold: 16, 6 and 2 or 3 images.
            assert (sizes[0], sizes[1]) == (11, 4)
            assert sizes[2] in (1, 2)
            assert not set(tasks.train.rows[0].tolist()) & set(tasks.val.rows[0].tolist())
            assert tasks.val.label.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("classes", "changes", "kind", "metric"),
    [
        ({"a": 12, "b": 9}, {}, int, None),
        (UNEVEN, {"shots": 2, "val": 1, "inner": {"steps": 3}}, int, None),
        (UNEVEN, {"metric": "accuracy"}, ProportionalShots, None),
        (UNEVEN, {"metric": "macro_f1"}, ProportionalShots, "macro_f1"),
    ],
)
def test_even_images_and_what_the_user_says_stay(classes, changes, kind, metric, tmp_path):
    classes = {**classes, "rare": 6} if "shots" in changes else classes
    cut = folds.make_folds(pictures(tmp_path / "x", **classes), changes, Stream(0))
    assert isinstance(cut.family.shots, kind)
    assert (cut.family.metric or {}).get("kind") == metric
    assert not cut.usual_metric
    assert cut.usual_steps == ("inner" not in changes)


def test_three_images_of_a_class_are_enough_and_two_are_not(tmp_path):
    found = metaloss.recommend(
        pictures(tmp_path / "few", a=12, b=7, c=3), ["mse"], rivals=False, **FAST
    )
    assert found.summary["data"]["folds"] == 3
    with pytest.raises(DataError, match="c has 2 different images; every class needs at least 3"):
        metaloss.recommend(pictures(tmp_path / "fewer", a=12, b=7, c=2), ["mse"], **FAST)


def test_all_losses_train_for_cross_entropy_s_best_number_of_steps(advice):
    losses = [row for row in advice.table if row["kind"] == "loss"]
    assert [row["loss"] for row in losses] == ["ce", "mse", "logit_adjustment(tau=1)"]
    assert len({row["steps"] for row in losses}) == 1
    assert losses[0]["steps"] in (6, 20)
    assert advice.summary["verdict"]["late"] is None


def test_the_usual_losses_suit_the_classes(scans, tmp_path):
    uneven = metaloss.recommend(scans, rivals=False, **FAST)
    specs = {row["loss"]: row.get("spec", "") for row in uneven.table}
    assert specs["logit_adjustment_smoothed"].startswith("logit_adjustment_smoothed(tau=")
    assert specs["class_weights"].startswith("class_weights(kappa=")
    assert specs["label_smoothing"] == ""
    even = pictures(tmp_path / "even", a=7, b=8)
    names = [row["loss"] for row in metaloss.recommend(even, rivals=False, **FAST).table]
    assert "class_weights" not in names
    assert "focal" in names


# --- what is no loss ---


def test_what_is_no_loss_is_judged_on_the_same_folds(advice):
    others = [row for row in advice.table if row["kind"] != "loss"]
    assert {row["loss"] for row in others} >= {
        "ce, prior correction",
        "ce, temperature",
        "ce, thresholds",
        "logistic regression",
        "extra trees",
        "RBF SVM, class weights",
    }
    assert all(row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"] for row in others)
    with (advice.folder / "per_task.csv").open() as file:
        tasks = [x for x in csv.DictReader(file) if x["loss"] == "ce, prior correction"]
    (row,) = (x for x in others if x["loss"] == "ce, prior correction")
    assert len(tasks) == 3 * 3
    mean = np.mean([float(x["balanced_accuracy"]) for x in tasks])
    assert row["balanced_accuracy"] == pytest.approx(mean)
    assert {"prior correction", "thresholds"} <= {
        name.removeprefix("ce, ") for fold in advice.summary["folds"] for name in fold["rivals"]
    }


def test_thresholds_for_every_class_are_not_chosen_where_images_are_few(advice):
    change = ChangeChoice("ce, thresholds", "largest offset", 1.0, 0.9, lambda x: x, (0.0, 1.0))
    both = {"ce, thresholds": change}
    assert rivals.too_flexible(both, 49) == {"ce, thresholds"}
    assert not rivals.too_flexible(both, 50)
    settings = {"ce": Setting(0.1, 20, 0.5)}
    assert selection.LossChoice(settings, None, {}, both).winner == "ce, thresholds"
    shown = frozenset(both)
    assert selection.LossChoice(settings, None, {}, both, shown).winner == "ce"
    assert all("thresholds" not in fold["chosen"] for fold in advice.summary["folds"])


def said_of(rival, steps=120):
    setting = Setting(0.1, steps)
    verdict = Verdict(
        rival.name, setting, rival.name, ScoreGain(0.05, 0.02, 0.08), None, {rival.name: 3}, 0.95,
        BALANCED, rival,
    )  # fmt: skip
    final = selection.LossChoice({"ce": setting}, None, {}, {rival.name: rival})
    return verdict, " ".join(sentences.sentences(verdict, final, 183)), final


def test_what_is_no_loss_may_be_the_recommendation():
    correction = ChangeChoice("ce, prior correction", "τ", 1.5, 0.6, lambda x: x)
    verdict, text, final = said_of(correction)
    assert text.startswith(
        "Train with cross-entropy at learning rate 0.1 with 120 steps, then prior correction "
        "(τ = 1.5): choosing so gains 5.0 points of balanced accuracy"
    )
    lines = use_code.lines("ce", verdict, final, Inner(), [], [120, 45, 18])
    names = {
        "metaloss": metaloss,
        "torch": torch,
        "model": torch.nn.Linear(2, 3),
        "images": torch.randn(4, 2),
    }
    exec("\n".join(lines), names)
    share = torch.tensor([120, 45, 18]) / 183
    expected = names["model"](names["images"]) - 1.5 * share.log()
    torch.testing.assert_close(names["logits"], expected)
    _, text, _ = said_of(FittedChoice(METHODS[0], 10.0, 0.6))
    assert text.startswith("Use logistic regression (C = 10), which is no loss: choosing so gains")


@pytest.mark.parametrize("method", METHODS, ids=lambda x: x.name)
def test_the_code_of_a_method_answers_as_the_method_does(method):
    key = Stream(3)
    y = np.repeat([0, 1, 2], [20, 9, 6])
    pattern = key.at("pattern").normal(3, 12).numpy()
    x = 50 * (pattern[y] + key.at("x").normal(35, 12).numpy()) + 90
    rival = FittedChoice(method, method.grid[1] if method.grid else 0.0, 0.5)
    verdict, _, final = said_of(rival)
    names = {"x": x, "y": y}
    exec("\n".join(use_code.lines("ce", verdict, final, Inner(), [])), names)
    ours = names["classifier"].predict(names["x"])
    normal = (x - x.mean()) / x.std()
    task = TaskArrays(normal, y, normal, 3, 0)
    theirs = method.logits(task, rival.value).argmax(1)
    assert (ours == theirs).mean() > 0.9
    assert balanced_accuracy_score(y, ours) > 0.6


def test_the_code_of_a_method_loads_the_folder_s_training_images(scans):
    verdict, _, final = said_of(FittedChoice(METHODS[0], 10.0, 0.6))
    lines = use_code.lines("ce", verdict, final, Inner(), [], data=scans)
    names = {}
    exec("\n".join(lines), names)
    assert names["classifier"].score(names["x"], names["y"]) > 0.6
    assert np.bincount(names["y"]).tolist() == list(UNEVEN.values())


# --- what is said ---


def test_what_the_rarest_class_can_tell_is_said(advice):
    text = " ".join(advice.sentences)
    assert (
        "The rarest class, rare, has 4 images, each held out once: one of them is 25.0 points of "
        "its recall and 8.3 of balanced accuracy." in text
    )
    assert "--set shots=N draws N of every class instead" in text
    assert "balanced accuracy" not in sentences.rarest(("a", "b"), (9, 2), ACCURACY)


def test_the_command_says_how_tasks_are_drawn_and_what_is_measured(scans, tmp_path, capsys):
    flags = ("--tuning-tasks", 2, "--test-tasks", 3, "--set", "rates=[0.1]", "--losses", "mse")
    assert code("recommend", "--data", scans, *flags) == 0
    out = capsys.readouterr().out
    (report,) = (tmp_path / "recommend").glob("*/report.txt")
    assert "as uneven as your images" in report.read_text()
    assert "No losses, on the same folds:" in report.read_text()
    assert "metric  balanced accuracy, as classes are uneven (--metric NAME: another)" in out
    assert "ce, prior correction" in report.read_text()
    assert "more are in results.csv" in out
    assert code("recommend", "--data", scans, *flags, "--json", "--no-rivals") == 0
    summary = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in summary["rows"]} == {"loss"}


def test_the_answer_has_each_class_s_recall_on_held_out_images(advice):
    by_class = {x["name"]: x for x in advice.summary["recalls"]}
    assert set(by_class) == set(UNEVEN)
    # Few tasks, which need not look at all images of a fold.
    assert all(0 < x["images"] <= UNEVEN[name] for name, x in by_class.items())
    (ce,) = (row for row in advice.table if row["loss"] == "ce")
    mean = np.mean([x["ce"] for x in by_class.values()])
    assert ce["balanced_accuracy"] == pytest.approx(mean, abs=1e-6)
    low, high = by_class["rare"]["ce_interval"]
    assert low <= by_class["rare"]["ce"] <= high
    assert advice.answer[0]["label"] == "answer"
    kept = [x.partition(" ")[0] for row in advice.summary["recognised"] for x in row.values()]
    assert {"benign", "malign", "rare"} <= set(kept)


# --- what is refused ---


def test_a_copy_is_left_out_and_named_and_one_in_another_class_is_refused(scans, tmp_path):
    first = tmp_path / "scans" / "benign" / "0.png"
    (tmp_path / "scans" / "benign" / "copy.png").write_bytes(first.read_bytes())
    cut = folds.make_folds(scans, {}, Stream(0))
    assert (cut.copies, cut.copies_in_words) == (1, "benign/copy.png of benign/0.png")
    assert cut.counts == [24, 9, 4]
    (tmp_path / "scans" / "malign" / "copy.png").write_bytes(first.read_bytes())
    with pytest.raises(
        DataError, match=r"1 image copied into another class \(malign/copy.png of benign/0.png\)"
    ):
        folds.make_folds(scans, {}, Stream(0))


# --- a stop ---


def test_a_stop_leaves_what_the_judged_folds_say(scans, tmp_path):
    class Impatient(Reporter):
        folds = 0
        partial = None

        def on_recommendation_fold(self, fold, folds, found):
            assert "chosen without it: " in found
            self.folds = fold

        def on_recommendation_stop(self, partial):
            self.partial = partial

    impatient = Impatient()
    options = {"out": tmp_path / "out", "reporter": impatient, **FAST, "rivals": False}
    with pytest.raises(Interrupted):
        metaloss.recommend(scans, ["mse"], stop=lambda: impatient.folds == 2, **options)
    summary = impatient.partial.summary
    assert summary["partial"] == {"folds": 2, "of": 3}
    assert summary["verdict"] is None
    assert summary["code"] == []
    assert summary["sentences"][0].startswith("Stopped after 2 folds of 3: this is part of an")
    whole = metaloss.recommend(scans, ["mse"], **{**options, "reporter": None})
    assert summary["folds"] == whole.summary["folds"][:2]
    assert summary["held_out"][0]["loss"] == "ce"
    text = (impatient.partial.folder / "report.html").read_text()
    assert "Stopped after 2 folds of 3" in text
    with (impatient.partial.folder / "per_task.csv").open() as file:
        assert {x["fold"] for x in csv.DictReader(file)} == {"0", "1"}


# --- the report ---


def test_the_answers_to_held_out_images_are_in_the_summary(advice):
    ce, other, *rest = advice.summary["held_out"]
    assert ce["loss"] == "ce"
    assert other["loss"] in {advice.summary["verdict"]["best"], report.CHOSEN}
    assert all(x["loss"] == report.CHOSEN for x in rest)
    assert all(ce["images"][name] <= n for name, n in UNEVEN.items())
    for record in (ce, other):
        assert record["images"] == ce["images"]
        sums = [sum(row) for row in record["confusion"]]
        assert sums == pytest.approx(list(ce["images"].values()))
        for place, (name, recall) in enumerate(record["recall"].items()):
            low, high = record["recall_interval"][name]
            assert low <= recall <= high
            assert record["confusion"][place][place] == pytest.approx(recall * ce["images"][name])
    shares = [x["wrong"] for x in ce["wrong"]]
    assert shares == sorted(shares, reverse=True)
    assert all(x["image"].startswith(f"{x['class']}/") for x in ce["wrong"])
    saved = json.loads((advice.folder / "summary.json").read_text())
    assert saved["held_out"] == advice.summary["held_out"]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_recall_is_the_share_of_right_answers_and_its_interval_counts_images(
    metric, scans, monkeypatch
):
    told = []

    def held_out(images, results, verdict):
        told.append(results)
        return real(images, results, verdict)

    real = report.held_out
    monkeypatch.setattr(report, "held_out", held_out)
    # Two of three classes in every task, so that labels of tasks are not those of the folder.
    found = metaloss.recommend(
        scans, ["mse"], rivals=False, metric=metric, ways=2, shots=1, val=1, folds=2, **FAST
    )
    right = {name: {} for name in UNEVEN}
    for fold in told[0].judged:
        for t, of_task in enumerate(fold.measures["ce"].right.tolist()):
            for v, answer in enumerate(of_task):
                name = list(UNEVEN)[int(fold.tasks.val_classes[t, v])]
                right[name].setdefault(int(fold.tasks.val.rows[t, v]), []).append(answer)
    record = found.summary["held_out"][0]
    for name, images in right.items():
        numbers = np.array([len(x) for x in images.values()])
        recall = np.concatenate(list(images.values())).mean()
        assert record["images"][name] == len(images)
        assert record["recall"][name] == pytest.approx(recall)
        interval = wilson(recall, numbers.sum() ** 2 / (numbers**2).sum())
        assert record["recall_interval"][name] == pytest.approx(interval)


def test_the_report_needs_nothing_else_and_has_the_images(advice):
    text = (advice.folder / "report.html").read_text()
    assert advice.sentences[0].split(":")[0] in unescape(text)
    assert " ".join(advice.summary["command"][:3]) in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    wrong = [x["image"] for record in advice.summary["held_out"] for x in record["wrong"]]
    # A thumbnail for each image that is listed, the gains and the matrices.
    assert len(re.findall(r"<td><img", text)) == len(wrong) > 0
    assert text.count("<figure>") == 2
    assert all(name in text for name in wrong)
    assert "Recall of every class" in text


def test_a_table_of_numbers_has_no_thumbnails(tmp_path):
    key = Stream(0)
    labels = np.repeat([0, 1], 9)
    values = key.at("x").normal(18, 3).numpy() + labels[:, None]
    np.savez(tmp_path / "f.npz", features=values.astype(np.float32), labels=labels)
    found = metaloss.recommend(f"file:{tmp_path / 'f.npz'}", ["mse"], rivals=False, **FAST)
    text = (found.folder / "report.html").read_text()
    assert "<td><img" not in text
    assert "row " in found.summary["held_out"][0]["wrong"][0]["image"]
    assert found.summary["held_out"][0]["wrong"][0]["image"] in text


# --- whether a search is worth it ---


@pytest.mark.parametrize(
    ("low", "high", "worth"),
    [(0.01, 0.05, True), (0.003, 0.009, True), (0.001, 0.05, False), (0.0, 0.0, False)],
)
def test_a_search_is_worth_it_where_losses_gain_more_than_chance(low, high, worth):
    gain = ScoreGain((low + high) / 2, low, high)
    text = sentences.search_in_words(gain, BALANCED, "mae")
    assert worth_searching(gain, BALANCED) == worth == ("may be worth it" in text)
    assert ("is not worth it" in text) == (not worth)
    if worth and low == 0.01:
        assert (
            "the losses tried gain +3.0 points (80 % interval +1.0 to +5.0) over cross-entropy at "
            "its best number of steps" in text
        )
        assert "mae gives most of that without one" in text


def test_what_a_search_could_gain_is_of_losses_alone_on_held_out_images(advice):
    search = advice.summary["search"]
    assert search["worth"] == (search["low"] >= 0.002)
    with (advice.folder / "per_task.csv").open() as file:
        value = {
            (int(x["fold"]), x["loss"], int(x["task"])): float(x["balanced_accuracy"])
            for x in csv.DictReader(file)
        }
    gains = []
    for number, fold in enumerate(advice.summary["folds"]):
        of_losses = {name: x["balanced_accuracy"] for name, x in fold["settings"].items()}
        best = max(of_losses, key=lambda name: of_losses[name])
        gains += [value[number, best, t] - value[number, "ce", t] for t in range(3)]
    assert search["mean"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert any(text.startswith("A search (metaloss evolve) ") for text in advice.sentences)


def command_of(data, spec, verdict, metric="macro_f1", training=None):
    return use_code.train_command(data, spec, verdict, {"kind": metric}, training)


def test_the_command_trains_with_what_is_recommended():
    setting = Setting(0.1, 20)
    gain = ScoreGain(0.05, 0.02, 0.08)
    loss = Verdict("mae", setting, "mae", gain, None, {"mae": 3}, 0.95)
    assert (
        command_of("folder:my scans", "gce(q=0.5)", loss)
        == "metaloss train --data 'folder:my scans' --loss 'gce(q=0.5)' --metric macro_f1"
    )
    patients = use_code.train_command("folder:x", "mae", loss, None, None, "my patients.csv")
    assert patients == "metaloss train --data folder:x --loss mae --groups 'my patients.csv'"
    assert not command_of("file:wine.npz", "mae", loss)
    change = ChangeChoice("ce, thresholds", "largest offset", 1.0, 0.9, lambda x: x, (0.0, 1.0))
    changed, _, _ = said_of(change)
    command = command_of("folder:x", "ce", changed)
    assert command == "metaloss train --data folder:x --loss ce --metric macro_f1 --thresholds"
    fitted, _, _ = said_of(FittedChoice(METHODS[0], 10.0, 0.6))
    assert not command_of("folder:x", "ce", fitted)
