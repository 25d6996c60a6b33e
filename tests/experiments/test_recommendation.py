"""Which loss for these images: tested on images that no choice has seen."""

import csv
import json
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_run_folder import TINY, code, evolved, family, only_the_subset, tree, without_plots

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import DataError, Interrupted, SettingsError
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import code as use_code
from metaloss.experiments.recommendation import folds, selection, sentences
from metaloss.experiments.recommendation.losses import usual_losses
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict
from metaloss.inner.loop import Inner
from metaloss.tasks import episodic_family, step_counts

SMALL = {
    "rivals": False,
    "tuning_tasks": 2,
    "test_tasks": 3,
    "rates": (0.1, 1.0),
    "inner": {"steps": 3},
    "classifier": {"kind": "mlp", "hidden": [4]},
}
FLAGS = (
    "--no-rivals",
    "--tuning-tasks",
    2,
    "--test-tasks",
    3,
    "--set",
    "rates=[0.1, 1.0]",
    "--set",
    "inner.steps=3",
)
LOSSES = {name: {"": metaloss.load(name).losses()} for name in ("ce", "mse", "focal")}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(step_counts, "STEPS", (6,))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(monkeypatch, dataset):
    """Four classes of thirty images stand for every folder."""
    monkeypatch.setattr(folds, "load", lambda name, options: dataset)
    return dataset


@pytest.fixture
def ask(images, tmp_path):
    """A recommendation for these images."""

    def asked(*losses, **changes):
        out = tmp_path / "out"
        return metaloss.recommend(
            "folder:scans", list(losses) or None, out=out, **{**SMALL, **changes}
        )

    return asked


@pytest.fixture
def advice(ask):
    return ask("mse", "-y*logp")


def pictures(root, **classes):
    """A folder with so many different gray images of each class."""
    for place, (name, n) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            value = Stream(i).at(name).integers(256, 4, 4).to(torch.uint8) // 2 + 64 * place
            Image.fromarray(value.numpy()).save(root / name / f"{i}.png")
    return f"folder:{root}"


def cut_of(changes=None):
    """The folds of whatever stands for the folder."""
    return folds.make_folds("folder:scans", changes or {}, Stream(0))


def rows(advice, loss):
    return [
        {k: v for k, v in row.items() if k != "chosen"}
        for row in advice.table
        if row["loss"] == loss
    ]


# --- folds ---


def test_every_image_is_held_out_once_and_judges_no_choice_that_saw_it(images):
    cut = cut_of()
    key = Stream(0)
    held = []
    for number in range(cut.folds):
        choosing, judging = cut.fold(number, CPU)
        seen = set(torch.cat(choosing.pools["validation"]).tolist())
        tasks = judging.sample([key.at(t) for t in range(20)], "test")
        assert set(tasks.train.rows.flatten().tolist()) <= seen
        assert not set(tasks.val.rows.flatten().tolist()) & seen
        assert set(tasks.val.rows.flatten().tolist()) <= set(
            torch.cat(judging.held_out["test"]).tolist()
        )
        held += torch.cat(judging.held_out["test"]).tolist()
    assert sorted(held) == list(range(120))


def test_a_choice_is_blind_to_the_images_that_judge_it(images, monkeypatch):
    def choice(data):
        monkeypatch.setattr(folds, "load", lambda name, options: data)
        cut = cut_of({k: SMALL[k] for k in ("inner", "classifier")})
        choosing, judging = cut.fold(1, CPU)
        with Local() as engine:
            how = LOSSES, selection.ChoiceOptions((0.1, 1.0), 4)
            chosen = selection.choose(EpisodeEvaluation(engine, choosing, Stream(0)), *how)
            found = selection.evaluate_choice(
                EpisodeEvaluation(engine, judging, Stream(0)), chosen, 3
            )
        return torch.cat(judging.held_out["test"]), chosen, found

    held_out, before, judged = choice(images)
    spoiled = replace(images, pixels=images.pixels.clone())
    spoiled.pixels[held_out] = 255 - spoiled.pixels[held_out]
    _, after, other = choice(spoiled)
    assert before == after
    assert not torch.equal(judged.measures["ce"].right, other.measures["ce"].right)


def test_tasks_fit_into_what_a_fold_leaves(images):
    cut = cut_of()
    family = cut.family
    assert (cut.folds, family.ways, family.shots, family.val, cut.val) == (5, 4, 8, 16, 6)
    assert family.shots + family.val == 24, "what the choice of a fold has of every class"
    assert cut_of({"shots": 20}).family.val == 4


def test_few_images_make_few_folds(tmp_path):
    cut = folds.make_folds(pictures(tmp_path / "few", a=6, b=9), {}, Stream(0))
    assert (cut.folds, cut.val, cut.family.shots, cut.family.val) == (3, 2, 1, 3)


def test_copies_are_left_out(images):
    images.pixels[7] = images.pixels[3]
    cut = cut_of()
    assert cut.copies == 1
    assert len(cut.rows[3]) == 29
    assert cut.scarcest == 29


def test_the_official_test_split_stays_unseen_unless_it_is_all_that_is_asked_for(
    images, monkeypatch
):
    half = replace(images, test=torch.arange(120) % 8 < 4)
    monkeypatch.setattr(folds, "load", lambda name, options: half)
    for which, official in (("all", False), ("test", True)):
        cut = folds.make_folds("folder:scans", {}, Stream(0), which)
        assert bool((half.test[torch.cat(cut.rows)] == official).all())
        assert sum(map(len, cut.rows)) == 60


@pytest.mark.parametrize(
    ("classes", "asked", "words"),
    [
        ({}, {}, "classes: found 0, expected at least 2 sub-folders, one per class"),
        ({"a": 9}, {}, "classes: found 1 (a), expected at least 2"),
        (
            {"a": 5, "b": 9},
            {},
            "a has 5 different images; every class needs at least 6 for 2 in each of 3 folds: "
            "add 1",
        ),
        (
            {"a": 9, "b": 9, "c": 1},
            {},
            "c has 1 different image; every class needs at least 3 for 1 in each of 3 "
            "folds: leave it out or add 2",
        ),
        (
            {"a": 9, "b": 9},
            {"folds": 5},
            "a has 9 different images, b 9; every class needs at least 10",
        ),
        (
            {"a": 9, "b": 9},
            {"shots": 7},
            "2-way 7-shot tasks do not fit: 2 classes, and 6 images of the smallest one "
            "outside a fold (a 9, b 9 images). This fits: ways = 2, shots = 2",
        ),
        ({"a": 9, "b": 9}, {"ways": 3}, "3-way 2-shot tasks do not fit"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_line(classes, asked, words, tmp_path):
    root = tmp_path / "scans"
    root.mkdir()
    with pytest.raises(DataError) as caught:
        metaloss.recommend(pictures(root, **classes), ["mse"], **{**SMALL, **asked})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "recommend").exists()


# --- fairness ---


def test_a_loss_s_results_do_not_depend_on_the_others(ask):
    few = ask("mse")
    many = ask("focal", "mae", "mse", "ngl")
    assert rows(few, "mse") == rows(many, "mse")
    assert rows(few, "ce") == rows(many, "ce")


def test_a_seed_gives_the_same_recommendation_and_another_one_other_folds(ask):
    first = ask("mse")
    again = ask("mse")
    other = ask("mse", seed=1)
    assert first.table == again.table
    assert first.sentences == again.sentences
    assert first.table != other.table


def test_cross_entropy_under_another_name_is_never_chosen(advice):
    (row,) = rows(advice, "-y*logp")
    assert advice.name == "ce"
    assert not advice.evidence
    assert all("-y*logp" not in fold["chosen"] for fold in advice.summary["folds"])
    assert row["lr"] in (0.1, 1.0)


def test_a_rescaled_cross_entropy_does_not_win_by_a_rate_between_two(ask):
    advice = ask("3.16 * -y * logp", rates=(0.1, 1.0), tuning_tasks=8)
    assert advice.gain.mean <= 0
    assert not advice.evidence
    assert 0.316 in selection.with_rates_between((1.0, 0.1))
    assert len(selection.with_rates_between((1.0, 0.1))) == 3


def test_the_gain_is_that_of_each_fold_s_choice(advice):
    with (advice.folder / "per_task.csv").open() as file:
        scores = {
            (int(x["fold"]), x["loss"], int(x["task"])): float(x["accuracy"])
            for x in csv.DictReader(file)
        }
    assert len(scores) == 5 * 3 * 3
    gains = [
        scores[number, fold["chosen"], task] - scores[number, "ce", task]
        for number, fold in enumerate(advice.summary["folds"])
        for task in range(3)
    ]
    assert advice.gain.mean == pytest.approx(sum(gains) / 15)
    assert advice.gain.low <= advice.gain.mean <= advice.gain.high


def test_each_loss_is_tuned_and_cross_entropy_has_its_best_number_of_steps_beside_it(advice, ask):
    names = [row["loss"] for row in advice.table]
    assert names == ["ce", "mse", "-y*logp", "ce, best steps"]
    assert advice.table[-1]["steps"] in (3, 6)
    assert all(row["steps"] == 3 for row in advice.table[:-1])
    both = ask("mse", tune="steps")
    assert [row["loss"] for row in both.table] == ["ce", "mse"]
    assert both.summary["verdict"]["late"] is None
    assert {row["steps"] for row in both.table} <= {3, 6}


def test_more_certainty_makes_wider_intervals(ask):
    little = ask("mse", certainty=0.5).table[1]["gain"]
    much = ask("mse", certainty=0.99).table[1]["gain"]
    assert little["mean"] == much["mean"]
    assert much["low"] < little["low"] <= little["high"] < much["high"]


# --- what has been seen ---


def test_a_run_that_has_learned_from_the_images_is_refused_unless_the_rest_is_asked_for(tmp_path):
    run = evolved(tmp_path).folder
    tasks = family(tmp_path, text=TINY.replace("val = 3", "val = 40"))
    with pytest.raises(SettingsError, match=r"has learned from \d+ of these images.*--images test"):
        metaloss.recommend(tasks, [run], **SMALL)
    assert run.name in [
        row["loss"] for row in metaloss.recommend(tasks, [run], images="test", **SMALL).table
    ]
    allowed = metaloss.recommend(tasks, [run], allow_seen=True, **SMALL)
    assert allowed.summary["settings"]["allow_seen"] is True


def test_a_usual_loss_that_was_evolved_on_the_data_set_is_left_out(tmp_path):
    heard = []

    class Listener(Reporter):
        def on_warning(self, text):
            heard.append(text)

    found = metaloss.recommend(family(tmp_path), reporter=Listener(), **SMALL)
    assert "mln-fashionmnist" not in [row["loss"] for row in found.table]
    assert len(found.table) == 9
    assert any(
        re.fullmatch(r"mln-fashionmnist has learned from \d+ of these images and is left out", x)
        for x in heard
    )
    with pytest.raises(SettingsError, match="mln-fashionmnist has learned from"):
        metaloss.recommend(family(tmp_path), ["mln-fashionmnist"], **SMALL)


def test_usual_stands_for_the_usual_losses_beside_others(ask):
    found = ask("usual", "mae", "ngl")
    names = [row["loss"] for row in found.table]
    assert names[0] == "ce"
    # Cross-entropy, once more with its best number of steps, and mae.
    assert len(names) == len(set(names)) == len(usual_losses()) + 3
    assert {"mae", "ngl", "tree-fashionmnist"} <= {*names}
    assert found.summary["command"][4:8] == ["--losses", "mae", "ngl", "usual"]


# --- what is said ---


def gain(mean, width=0.01):
    return ScoreGain(mean, mean - width, mean + width)


def said(by, width=0.01, late=None, chosen=None, best="mine", steps=160):
    final = selection.LossChoice(
        {"ce": Setting(0.2, 20), "mine": Setting(0.1, 20)}, Setting(0.05, steps)
    )
    low = by - width
    loss = best if low > 0 else "ce"
    after = None if late is None else gain(late)
    found = Verdict(
        loss, final.settings[loss], best, gain(by, width), after, chosen or {"mine": 5}, 0.95
    )
    return found, " ".join(sentences.sentences(found, final, 400))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            said(0.03, late=0.03),
            "Use mine at learning rate 0.1 with 20 steps: choosing so gains 3.0 points (95 % "
            "interval +2.0 to +4.0) over cross-entropy on new images.",
        ),
        (
            said(0.03, late=0.03),
            "With 160 steps (learning rate 0.05) cross-entropy does not reach it: mine generalises "
            "better here.",
        ),
        (
            said(0.03, late=0.0),
            "Where training takes 20 steps, use mine at learning rate 0.1: choosing so gains 3.0",
        ),
        (
            said(0.03, late=0.0),
            "cross-entropy reaches the same: mine is faster, not better; --set inner.steps=160 ",
        ),
        (said(0.03, late=-0.03), "cross-entropy is better still, by 3.0 points: train for longer"),
        (
            said(0.03, late=0.03, steps=20),
            "At its best number of steps, the same one, cross-entropy does not reach it",
        ),
        (
            said(0.005),
            "No evidence for anything but cross-entropy (learning rate 0.2, 20 steps): choosing "
            "another gains 0.5 points (95 % interval -0.5 to +1.5) on new images.",
        ),
        (
            said(0.005),
            "With these 400 images gains below about 1.0 points cannot be told from none; four "
            "times",
        ),
        (
            said(0.0, chosen={"ce": 5}, best="ce"),
            "No evidence for anything but cross-entropy (learning rate 0.2, 20 "
            "steps): no fold found a better one. Chosen by the 5 folds: cross-entropy 5; on all "
            "images: cross-entropy.",
        ),
        (
            said(0.03, best="ce"),
            "it is the best on all images, though choosing another, as folds did, gains 3.0 points",
        ),
        (
            said(0.03, late=0.0, chosen={"other": 1, "mine": 4}),
            "Chosen by the 5 folds: mine 4, other 1; on all images: mine.",
        ),
    ],
)
def test_the_sentences_say_what_the_numbers_allow(found, words):
    decision, text = found
    assert words in text
    assert ("Use" in text or "use" in text) == decision.evidence
    assert ("generalises" in text) == (decision.evidence and decision.late.low > 0)


@pytest.mark.parametrize("late", [-0.03, 0.0, 0.03])
def test_the_code_says_what_else_would_do_where_training_may_take_longer(late):
    decision, _ = said(0.03, late=late)
    final = selection.LossChoice(
        dict.fromkeys(("ce", "mine"), decision.setting), Setting(0.05, 160)
    )
    lines = use_code.lines("mine", decision, final, Inner(steps=20), [])
    assert lines[:2] == [
        'loss = metaloss.load("mine")',
        "optimiser = torch.optim.SGD(model.parameters(), lr=0.1)",
    ]
    assert lines[2:] == (['# with 160 steps: metaloss.load("ce"), lr=0.05'] if late < 0.03 else [])


def test_no_number_of_images_is_promised_where_another_choice_is_worse():
    assert "four times" not in said(-0.03)[1]
    assert "four times" in said(-0.005)[1]


def test_the_size_and_the_level_of_the_small_trainings_are_said():
    text = sentences.small(3, "7 images of each", 20, "mlp", 0.36)
    assert "3 classes (near chance: 3 classes, 33.3 %), 7 images of each, mlp, 20 steps" in text
    assert (
        "cross-entropy reaches 36.0 %. A real training on all images reaches another level" in text
    )
    assert "near chance" not in sentences.small(3, "7 images of each", 20, "mlp", 0.8)


def test_how_much_of_the_images_a_task_has_is_said(ask):
    note = (
        "A task trained on 4 images of each class, of 30 or more that are here; --set shots=8 is "
        "nearer to all."
    )
    assert note in ask("mse", shots=4).sentences
    assert not any("nearer" in text for text in ask("mse", shots=15).sentences)


@pytest.mark.parametrize(
    ("inner", "line"),
    [
        ({}, "optimiser = torch.optim.SGD(model.parameters(), lr=0.1)"),
        (
            {"momentum": 0.9},
            "optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
        ),
        (
            {"optimiser": "adamw", "weight_decay": 0.01},
            "optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, "
            "weight_decay=0.01, betas=(0.9, 0.999), eps=1e-08)",
        ),
        (
            {"optimiser": "adamw"},
            "optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, "
            "weight_decay=0.0, betas=(0.9, 0.999), eps=1e-08)",
        ),
    ],
)
def test_the_code_uses_the_loss_as_its_tasks_did(ask, inner, line):
    found = ask("mse", inner={"steps": 3, **inner}, rates=(0.1,))
    assert found.summary["code"] == [f'loss = metaloss.load("{found.name}")', line]
    names = {"metaloss": metaloss, "torch": torch, "model": torch.nn.Linear(2, 2)}
    exec("\n".join(found.code), names)
    assert names["optimiser"].defaults["lr"] == found.lr == 0.1
    assert found.steps == 3
    assert found.loss is not None
    assert found.loss.describe() == names["loss"].describe()


# --- the folder and the command ---


def test_the_folder_holds_everything_and_nothing_is_overwritten(ask, advice):
    assert sorted(path.name for path in advice.folder.iterdir()) == [
        "per_task.csv",
        "report.html",
        "report.txt",
        "results.csv",
        "summary.json",
    ]
    assert json.loads((advice.folder / "summary.json").read_text()) == json.loads(
        json.dumps(advice.summary)
    )
    with (advice.folder / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [x["loss"] for x in found] == [row["loss"] for row in advice.table]
    assert [float(x["accuracy"]) for x in found] == [row["accuracy"] for row in advice.table]
    assert advice.folder.name == "scans-0"
    assert ask("mse", "-y*logp").folder.name == "scans-0-2"


def test_one_that_is_dropped_leaves_nothing(ask, tmp_path):
    with pytest.raises(Interrupted):
        ask("mse", stop=lambda: True)
    assert not (tmp_path / "out").exists()


def test_a_family_brings_its_own_settings(tmp_path):
    found = metaloss.recommend(
        family(tmp_path), ["mse"], **{k: SMALL[k] for k in ("tuning_tasks", "test_tasks", "rates")}
    )
    own = episodic_family.read(family(tmp_path))
    assert (
        (found.summary["family"]["ways"], found.summary["family"]["shots"])
        == (own.ways, own.shots)
        == (3, 2)
    )
    assert found.steps == own.inner.steps == 3


def test_the_bar_has_about_as_many_steps_as_there_are(ask):
    class Counter(Reporter):
        total = done = 0

        def on_recommendation_start(self, chosen, images, losses, work):
            self.total = work

        def on_progress(self, work):
            self.done += work

    counter = Counter()
    ask("mse", "focal", reporter=counter)
    assert 0.5 * counter.total < counter.done < 2 * counter.total


def test_the_command_prints_the_best_of_a_table_and_then_the_answer_on_one_screen(tmp_path, capsys):
    data = pictures(tmp_path / "scans", benign=12, malign=14)
    assert (
        code(
            "recommend", "--data", data, "--losses", "mse", "-y*logp", "--classifier", "cnn", *FLAGS
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    # Before it stands what a look at the folder says.
    lines = lines[[line[:8] for line in lines].index("folds   ") - 1 :]
    assert lines[1].startswith("folds   5 parts of 26 images, each held out once: 3 losses tuned")
    assert lines[2].endswith("; cnn, 3 steps")
    assert [line[:8] for line in lines[3:8]] == [f"fold {n}/5" for n in range(1, 6)]
    assert lines[8].startswith("tried   on images held out, beside cross-entropy (ce)")
    assert lines[9].startswith("loss or method  settings ")
    assert sorted(line.split()[0] for line in lines[10:14]) == ["-y*logp", "ce", "ce,", "mse"]
    answer = lines[15:]
    assert answer[0].startswith("answer  ")
    assert len(answer) <= 24
    assert all(len(line) <= 100 for line in answer if data not in line and "wrote" not in line)
    assert any(line.startswith("command metaloss train --data ") for line in answer)
    files = "{per_task.csv, report.html, report.txt, results.csv, summary.json}"
    assert answer[-2] == f"wrote recommend/scans-0/{files}"
    assert answer[-1] == "report  recommend/scans-0/report.html"
    report = (tmp_path / "recommend" / "scans-0" / "report.txt").read_text()
    assert set(answer[:-2]) <= set(report.splitlines())
    assert "Notes:\n" in report
    assert "    loss = metaloss.load(" in report


def test_the_printed_command_makes_the_same_again(tmp_path, capsys):
    data = pictures(tmp_path / "scans", benign=12, malign=14)
    assert code("recommend", "--data", data, "--losses", "mse", *FLAGS, "--seed", 3, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert code(*first["command"][1:], "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["folder"] == "recommend/scans-3-2"
    assert again["rows"] == first["rows"]
    assert again["sentences"] == first["sentences"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "folder:nowhere"], "nowhere: folder: found none"),
        (["--data", "fashonmnist"], "unknown data 'fashonmnist'. Did you mean 'fashionmnist'?"),
        (["--data", "digits", "--losses", "cee"], "no loss 'cee'"),
        (["--data", "digits", "--certainty", "95"], "certainty"),
        (["--data", "digits", "--folds", "1"], "folds"),
        (["--data", "digits", "--images", "some"], "images"),
        (["--data", "digits", "--classifier", "mlq"], "unknown classifier 'mlq'"),
        (
            ["--data", "digits", "--set", "tets_tasks=3"],
            "unknown setting 'tets_tasks'. Did you mean 'test_tasks'?",
        ),
        ([], "--data"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing_behind(args, words, tmp_path, capsys):
    before = tree(tmp_path)
    assert code("recommend", *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert "bug" not in err
    assert tree(tmp_path) == before
    assert not (tmp_path / "recommend").exists()
