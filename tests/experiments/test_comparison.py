"""Losses side by side: fair, independent of each other, with sentences that the numbers allow."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from test_report import check_vector
from test_run_folder import TINY, code, evolved, family, only_the_subset, tree, without_plots

import metaloss
from metaloss import storage
from metaloss.console import comparison_table
from metaloss.core.metric_scale import ACCURACY
from metaloss.core.plot_style import Picture, short_label
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import csv_bytes
from metaloss.data import datasets, image_record
from metaloss.errors import DiskError, Interrupted, SettingsError
from metaloss.evaluation.rivals import RivalMeasures
from metaloss.evaluation.statistics import Draws, Paired, RankTest
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison import figures, results, rivals, sentences
from metaloss.inner.observers import measure
from metaloss.tasks import episodic

# Rivals that are no losses take most of a tiny comparison's time; they have tests of their own.
SMALL = {
    "tuning_tasks": 3,
    "test_tasks": 12,
    "curve_tasks": 3,
    "rates": (0.1, 1.0),
    "rivals": False,
}
FLAGS = (
    "--no-rivals",
    "--tuning-tasks",
    3,
    "--test-tasks",
    12,
    "--set",
    "curve_tasks=3",
    "--set",
    "rates=[0.1, 1.0]",
)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which are most of a tiny comparison's time."""
    monkeypatch.setattr(figures, "draw", lambda summary: [])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two families, a formula that equals cross-entropy, and a name with HTML in it."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        tasks = family(folder), family(folder, "five", TINY.replace("ways = 3", "ways = 5"))
        yield metaloss.compare(["mse", "-y*logp", "-y*logp"], tasks, out=folder / "out", **SMALL)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        return evolved(folder).folder


def rows(report, loss):
    """A loss's rows without what depends on the number of tests, which Holm's correction is for."""
    found = json.loads(json.dumps([row for row in report.table if row["loss"] == loss]))
    for row in found:
        if row["against"]:
            del row["against"]["p"]
    return found


def compare(folder, *losses, **changes):
    return metaloss.compare(losses, family(folder), out=folder / "out", **{**SMALL, **changes})


# --- fairness ---


def test_a_loss_s_results_do_not_depend_on_the_others(tmp_path, undrawn):
    few = compare(tmp_path, "mse")
    many = compare(tmp_path, "focal", "mae", "mse", "ngl", "a2")
    assert rows(few, "mse") == rows(many, "mse")
    assert rows(few, "ce") == rows(many, "ce")

    def tasks(report):
        with (report.folder / "per_task.csv").open() as file:
            return [row for row in csv.DictReader(file) if row["loss"] == "mse"]

    assert tasks(few) == tasks(many)
    assert len(tasks(few)) == 12


def test_a_loss_under_another_name_does_not_differ(report):
    for row in rows(report, "-y*logp"):
        found = row["against"]
        assert (found["gain"]["mean"], found["gain"]["low"], found["gain"]["high"]) == (0, 0, 0)
        assert (found["test"]["wins"], found["test"]["losses"], found["test"]["p"]) == (0, 0, 1)
    assert (
        report.sentences.count(
            "-y*logp: these tasks show no difference from cross-entropy at 3 steps."
        )
        == 2
    )


def test_two_of_a_name_are_told_apart(report):
    assert [x["loss"] for x in report.summary["losses"]] == ["mse", "-y*logp", "-y*logp #2", "ce"]


@pytest.mark.parametrize("name", ["ce", "tree-fashionmnist", "mln-fashionmnist"])
def test_a_file_cannot_pass_for_a_published_or_shipped_loss(name, tmp_path, undrawn):
    loss = metaloss.load("mse")
    loss.about["name"] = name
    found = metaloss.compare([loss], family(tmp_path), **SMALL)
    assert [x["loss"] for x in found.summary["losses"]] == [f"./{name}", "ce"]
    assert found.table[0]["at"] != found.table[1]["at"]
    assert found.table[0]["data"] == "unknown"


def test_every_loss_has_its_own_best_rate_and_the_family_s_one_beside_it(tmp_path, undrawn):
    loss = "100*-y*logp"
    found = compare(tmp_path, loss, rates=(0.001, 0.1), tuning_tasks=8, inner={"steps": 12})
    (row,), (ce,) = rows(found, loss), rows(found, "ce")
    assert (row["setting"]["lr"], ce["setting"]["lr"]) == (0.001, 0.1)
    assert row["at"]["accuracy"] == pytest.approx(ce["at"]["accuracy"], abs=0.02), (
        "a rescaling is no other loss"
    )
    assert row["plain"]["accuracy"] != row["at"]["accuracy"]


def test_steps_are_tuned_for_all_or_for_cross_entropy_alone(tmp_path, undrawn):
    plain = compare(tmp_path, "mse")
    both = compare(tmp_path, "mse", tune="steps")
    (row,), (ce,) = rows(plain, "mse"), rows(plain, "ce")
    assert row["best"] is None
    assert row["latest"] is None
    assert row["late"] is not None
    assert ce["best"] is not None
    (row,) = rows(both, "mse")
    assert row["best"]["steps"] in (3, 20, 30, 40, 60, 80, 120, 160, 200)
    assert row["latest"] is not None
    assert row["at_best"]["accuracy"] > 0


def test_another_baseline_has_cross_entropy_beside_it(tmp_path, undrawn):
    found = compare(tmp_path, "focal", against="mse")
    assert [x["loss"] for x in found.summary["losses"]] == ["focal", "ce", "mse"]
    assert found.summary["baseline"] == "mse"
    assert rows(found, "mse")[0]["against"] is None
    assert rows(found, "ce")[0]["against"] is not None


# --- what is said ---


def gain(mean, width=0.01):
    return Paired(mean, mean - width, mean + width, width / 2, 300)


def result_of(by, p=0.001, images=0.01, vs_ce=0.0, both=None, at_family_rate=0.0):
    performance = results.performance(
        measure(torch.zeros(10, 4, 3), torch.zeros(10, 4, dtype=torch.int64), 2)
    )
    difference = results.BaselineDifference(
        gain(by), by - images, by + images, RankTest(p, 0.5, 9, 0, 1), p, gain(at_family_rate)
    )
    return results.LossResult(
        "mine",
        Setting(0.1, 20),
        tuned=performance,
        at_family_rate=performance,
        best_setting=Setting(0.1, 160) if both is not None else None,
        vs_baseline=difference,
        vs_ce_best_steps=gain(vs_ce),
        both_best_steps=None if both is None else gain(both),
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            result_of(0.03, vs_ce=-0.03),
            "mine is better than cross-entropy at 20 steps on these tasks; with 200 steps "
            "cross-entropy is better still.",
        ),
        (result_of(0.03), "with 200 steps cross-entropy reaches the same."),
        (
            result_of(0.03, both=0.02),
            "reaches the same; mine with 160 steps is ahead of that by 2.0 points.",
        ),
        (result_of(0.03, both=0.0), "reaches the same; mine with 160 steps is level with that."),
        (result_of(0.03, vs_ce=0.03), "does not reach it: it generalises better there."),
        (result_of(0.03, vs_ce=0.03, both=0.02), "generalises better"),
        (
            result_of(0.03, vs_ce=0.03, both=0.0),
            "do not differ where each has its best number of steps.",
        ),
        (
            result_of(0.03, vs_ce=-0.03, both=-0.02),
            "is better still; mine with 160 steps is behind that.",
        ),
        (result_of(-0.03), "mine is worse than cross-entropy at 20 steps on these tasks."),
        (
            result_of(-0.03, at_family_rate=0.05),
            "at the family's own learning rate only, as a mere rescaling may be.",
        ),
        (result_of(0.005), "no difference"),
        (result_of(0.03, p=0.2), "mine: too few images to tell it from cross-entropy at 20 steps."),
        (result_of(0.03, images=0.04), "too few images to tell it from cross-entropy"),
    ],
)
def test_the_sentence_says_what_the_numbers_allow(row, words):
    text = sentences.sentence(row, "ce", 20, Setting(0.1, 200))
    assert words in text
    reached_by_more_steps = row.vs_ce_best_steps.low <= 0 or (
        row.both_best_steps is not None and row.both_best_steps.low <= 0
    )
    assert not ("generalises" in text and (reached_by_more_steps or row.vs_baseline.direction < 1))


def test_a_row_holds_what_its_tasks_came_to():
    label = torch.zeros(20, 4, dtype=torch.int64)
    found = torch.zeros(20, 4, 3)
    found[:10, :2, 0] = 1  # ten tasks half right, nine right, one diverged
    found[19] = torch.nan
    row = results.performance(measure(found, label, 2))
    assert row.accuracy == pytest.approx((10 * 0.5 + 9) / 20)
    assert row.worst_decile == pytest.approx((0 + 0.5) / 2)
    assert row.diverged == pytest.approx(0.05)
    assert row.nll == 0


def test_holms_correction_spans_all_families(report):
    found = [row["against"] for row in report.table if row["against"]]
    assert len(found) == 6
    assert min(x["p"] for x in found) == pytest.approx(
        min(1, 6 * min(x["test"]["p"] for x in found))
    )


# --- images that were seen ---


def test_a_run_meets_its_own_data_set_s_test_images_and_knows_what_they_are_to_it(
    searched, tmp_path, undrawn
):
    found = compare(tmp_path, str(searched))
    assert rows(found, searched.name)[0]["data"] == "same data, same classes"
    assert not any(row["seen"] for row in found.table)
    new = family(tmp_path, "numbers", TINY.replace("fashionmnist", "digits"))
    found = metaloss.compare([searched], new, **SMALL)
    assert rows(found, searched.name)[0]["data"] == "new data, new classes"


def test_what_data_published_shipped_and_other_losses_have_met(tmp_path, undrawn):
    (tmp_path / "runs").mkdir()
    run = metaloss.load("tree-fashionmnist").about["run"]
    # One of a shipped loss's run's name is another run.
    evolved(tmp_path).folder.rename(tmp_path / "runs" / run)
    shipped = [
        "tree-fashionmnist",
        metaloss.load("mln-fashionmnist"),
        metaloss.load("graph-fashionmnist"),
    ]
    tasks = family(tmp_path), family(tmp_path, "numbers", TINY.replace("fashionmnist", "digits"))
    found = metaloss.compare([*shipped, "focal(gamma=2)", "-y*logp"], tasks, **SMALL)
    for name in ("tree-fashionmnist", "mln-fashionmnist", "graph-fashionmnist"):
        assert [x["data"] for x in rows(found, name)] == [
            "same data, same classes",
            "new data, new classes",
        ]
    assert {x["data"] for name in ("focal(gamma=2)", "ce") for x in rows(found, name)} == {
        "none here: a published formula"
    }
    assert {x["data"] for x in rows(found, "-y*logp")} == {"unknown"}


@pytest.fixture
def without_record(searched, tmp_path):
    """A run that kept no record of its images, and whose pools were not those of today."""
    run = Path(shutil.copytree(searched, tmp_path / "runs" / "other"))
    table = storage.read_record(run / "provenance.json")
    table["data"]["tiny"]["pools"]["train"]["sha256"] = "0" * 64
    storage.write_record(run / "provenance.json", table)
    for folder in (run, run / "loss"):
        (folder / image_record.FILE).unlink()
    return run


def test_a_run_that_may_have_seen_test_images_is_refused_unless_allowed(
    without_record, tmp_path, undrawn, monkeypatch
):
    data = datasets.load("fashionmnist")
    monkeypatch.setattr(
        episodic, "load", lambda name, options: replace(data, test=torch.zeros_like(data.test))
    )
    with pytest.raises(
        SettingsError,
        match=r"other may have learned from the test images.* of tiny  \(--allow-seen",
    ):
        compare(tmp_path, str(without_record))
    assert not (tmp_path / "out").exists()
    found = compare(tmp_path, str(without_record), allow_seen=True)
    assert rows(found, "other")[0]["seen"].startswith("may have learned")
    assert found.summary["settings"]["allow_seen"] is True


# --- the folder ---


FILES = [
    "accuracy.pdf",
    "accuracy.png",
    "curves.pdf",
    "curves.png",
    "paired.pdf",
    "paired.png",
    "per_task.csv",
    "ranks.pdf",
    "ranks.png",
    "report.html",
    "results.csv",
    "summary.json",
]


def test_the_folder_holds_everything(report):
    assert sorted(path.name for path in report.folder.iterdir()) == FILES
    assert json.loads((report.folder / "summary.json").read_text()) == json.loads(
        json.dumps(report.summary)
    )
    with (report.folder / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [(x["family"], x["loss"]) for x in found] == [
        (x["family"], x["loss"]) for x in report.table
    ]
    assert [float(x["at.accuracy"]) for x in found] == [x["at"]["accuracy"] for x in report.table]
    with (report.folder / "per_task.csv").open() as file:
        tasks = [
            float(x["accuracy"])
            for x in csv.DictReader(file)
            if (x["family"], x["loss"]) == ("five", "mse")
        ]
    assert sum(tasks) / 12 == pytest.approx(
        next(x for x in rows(report, "mse") if x["family"] == "five")["at"]["accuracy"]
    )


def test_figures_are_pictures_and_vectors(report):
    for path in report.folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 500
        check_vector(path.with_suffix(".pdf"))


class Page(HTMLParser):
    """Collects a page's tags, the attributes that could load something, and its text."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.tags = []
        self.links = []
        self.texts = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_is_one_whole_page_that_loads_nothing(report):
    page = Page((report.folder / "report.html").read_text())
    assert page.open == []
    assert page.tags.count("img") == 4
    assert "script" not in page.tags
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    text = " ".join(page.texts)
    for words in ("mse", "five", "metaloss compare", "fingerprint", *report.sentences):
        assert words in text


def test_names_from_files_are_escaped(report):
    from metaloss.experiments.comparison import webpage

    bad = '<script>alert("x")</script>'
    text = (
        json.dumps(report.summary)
        .replace("-y*logp", json.dumps(bad)[1:-1])
        .replace("tiny", "<img src=x>")
    )
    table = json.loads(text)
    page = Page(webpage.page(table, [Picture("x", bad, b"png", b"")]))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.open == []
    assert any(bad in text for text in page.texts)
    figures.draw(table)  # and a name with a dollar sign or an underscore in front is only a name
    assert short_label("_a$b") == r"a\$b"


def test_control_characters_in_names_from_files_are_spelt_out(report):
    from metaloss.experiments.comparison import webpage

    evil = "\x1b[2J\x9b\u202e"
    text = (
        json.dumps(report.summary)
        .replace("-y*logp", json.dumps(evil)[1:-1])
        .replace("tiny", json.dumps(evil)[1:-1])
    )
    page = webpage.page(json.loads(text), [Picture("x", evil, b"png", b"")])
    assert all(line.isprintable() for line in page.split("\n"))
    assert r"\x1b[2J\x9b\u202e" in page
    table = csv_bytes([{"loss": evil, "p": 0.5}])
    assert table.decode() == "loss,p\n" + r"\x1b[2J\x9b\u202e,0.5" + "\n"


def test_nothing_is_overwritten(report, tmp_path, undrawn):
    first = compare(tmp_path, "mse")
    second = compare(tmp_path, "mse")
    assert [first.folder.name, second.folder.name] == ["tiny-0", "tiny-0-2"]
    assert compare(tmp_path, "mse", name="My report/1").folder.name == "my_report_1"


def test_a_comparison_that_is_dropped_leaves_nothing(tmp_path, undrawn, monkeypatch):
    with pytest.raises(Interrupted):
        compare(tmp_path, "mse", stop=lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr("metaloss.storage.creation.write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compare(tmp_path, "mse")
    assert tree(tmp_path / "out") == {}
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, undrawn):
    (tmp_path / "out").write_text("")
    with pytest.raises(DiskError, match="out"):
        compare(tmp_path, "mse")


def test_a_loss_from_python_takes_part(searched, tmp_path, undrawn):
    found = metaloss.compare(
        [metaloss.load(searched), metaloss.load("focal")], family(tmp_path), **SMALL
    )
    assert [x["loss"] for x in found.summary["losses"]] == [searched.name, "focal", "ce"]
    with pytest.raises(SettingsError, match="CrossEntropyLoss cannot be compared"):
        metaloss.compare([torch.nn.CrossEntropyLoss()], family(tmp_path), **SMALL)


# --- the command ---


def test_the_command_prints_a_table_sentences_and_where_it_wrote(tmp_path, capsys, undrawn):
    assert code("compare", "mse", "-y*logp", "--tasks", family(tmp_path), *FLAGS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("12 meta-test tasks · same tasks")
    assert re.match(r"loss +lr +accuracy +Δ \[95 % CI\] +win/tie/loss +p \(Holm\)", lines[3])
    assert [line.split()[0] for line in lines[4:7]] == ["mse", "-y*logp", "ce"]
    assert "-y*logp: these tasks show no difference from cross-entropy at 3 steps." in lines
    assert (
        lines[-1] == "wrote compare/tiny-0/{per_task.csv, report.html, results.csv, summary.json}"
    )


def test_the_printed_command_makes_the_same_again(tmp_path, capsys, undrawn):
    assert code("compare", "mse", "--tasks", family(tmp_path), *FLAGS, "--seed", 3, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert code(*first["command"][1:], "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["folder"] == "compare/tiny-3-2"
    assert again["rows"] == first["rows"]


def test_without_tasks_named_the_usual_ones_are_taken(capsys, undrawn):
    small = ("inner.steps=2", "val=5", "classifier.hidden=[4]")
    assert (
        code("compare", "mse", *FLAGS, *(x for word in small for x in ("--set", word)), "--json")
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == "compare/fashionmnist-0"
    assert found["command"][3:5] == ["--tasks", "fashionmnist"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["cee"], "no loss 'cee'"),
        (
            ["ce", "--tasks", "fashonmnist"],
            "unknown task family 'fashonmnist'. Did you mean 'fashionmnist'?",
        ),
        (["ce", "--against", "mes"], "no loss 'mes'"),
        (["ce", "--tune", "all"], "tune"),
        (["ce", "--test-tasks", "1"], "test_tasks"),
        (
            ["ce", "--set", "tets_tasks=3"],
            "unknown setting 'tets_tasks'. Did you mean 'test_tasks'?",
        ),
        (["ce", "--set", "inner.lrr=3"], "lrr"),
        (["ce", "--tasks", "digits", "digits"], "two task families are named 'digits'"),
        ([], "LOSS"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing_behind(args, words, tmp_path, capsys):
    before = tree(tmp_path)
    assert code("compare", *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert "bug" not in err
    assert tree(tmp_path) == before
    assert not (tmp_path / "compare").exists()


def test_a_loss_for_another_number_of_classes_is_refused(tmp_path, monkeypatch, undrawn):
    loss = metaloss.load("mse")
    loss.classes = 10
    with pytest.raises(SettingsError, match="works for 10 classes alone, and tiny has 3-way tasks"):
        metaloss.compare([loss], family(tmp_path), **SMALL)


def test_the_bar_has_about_as_many_steps_as_there_are(tmp_path, undrawn):
    class Counter(Reporter):
        total = done = 0

        def on_comparison_start(self, chosen, opened, work):
            self.total = work

        def on_progress(self, work):
            self.done += work

    counter = Counter()
    compare(tmp_path, "mse", "focal", reporter=counter)
    assert 0.5 * counter.total < counter.done < 2 * counter.total


# --- rivals that are no losses ---

FITTED = [
    "logistic regression",
    "linear SVM",
    "RBF SVM",
    "nearest class mean",
    "shrinkage LDA",
    "extra trees",
]


@pytest.fixture(scope="module")
def with_rivals(tmp_path_factory):
    """A comparison with them, and the same without."""
    folder = tmp_path_factory.mktemp("rivals")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        patch.setattr(figures, "draw", lambda summary: [])
        tasks = family(folder)
        return [
            metaloss.compare(["mse"], tasks, out=folder / "out", **{**SMALL, "rivals": rivals})
            for rivals in (True, False)
        ]


def test_rivals_are_rows_that_are_marked_as_no_losses(with_rivals):
    report, without = with_rivals
    kinds = {row["loss"]: row["kind"] for row in report.table}
    assert [name for name, kind in kinds.items() if kind == "fitted"] == FITTED
    after = [name for name, kind in kinds.items() if kind == "after training"]
    assert len(after) == 1
    assert after[0].endswith(" steps, temperature")
    rows = {row["loss"]: row for row in report.table}
    assert set(rows["RBF SVM"]["setting"]) == {"C"}
    assert rows["extra trees"]["setting"] is None
    assert rows["RBF SVM"]["at"]["nll"] is None
    assert rows["shrinkage LDA"]["at"]["nll"] > 0
    assert set(rows["mse"]) <= set(rows["RBF SVM"]) | {"data"}
    # What is said of losses is the same with rivals and without, p-values too.
    assert [row for row in report.table if row["kind"] == "loss"] == without.table
    assert "scikit-learn" in report.summary["conditions"]
    assert "scikit-learn" not in without.summary["conditions"]


def test_the_files_and_the_page_mark_rivals(with_rivals):
    folder = with_rivals[0].folder
    for name in ("results.csv", "per_task.csv"):
        with (folder / name).open() as file:
            kinds = {(x["loss"], x["kind"]) for x in csv.DictReader(file)}
        assert {("mse", "loss"), ("ce", "loss"), ("linear SVM", "fitted")} <= kinds
    page = (folder / "report.html").read_text()
    assert "<h4>No losses, on the same tasks</h4>" in page
    assert page.index("RBF SVM") > page.index("<h4>No losses")
    assert "<h4>" not in (with_rivals[1].folder / "report.html").read_text()


def test_rivals_make_the_same_bytes_again(with_rivals, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda summary: [])
    again = compare(tmp_path, "mse", rivals=True)
    first = with_rivals[0].folder
    assert (again.folder / "per_task.csv").read_bytes() == (first / "per_task.csv").read_bytes()


def test_the_terminal_shows_rivals_in_a_table_of_their_own(with_rivals):
    lines = comparison_table.comparison_lines(with_rivals[0].summary)
    place = lines.index("no losses, on the same tasks:")
    assert lines[place + 1].startswith("no loss ")
    assert [line.split("  ")[0] for line in lines[place + 2 : place + 8]] == FITTED
    assert "no losses, on the same tasks:" not in comparison_table.comparison_lines(
        with_rivals[1].summary
    )


def test_without_scikit_learn_one_line_says_how_to_get_it(tmp_path, undrawn, monkeypatch):
    from metaloss.experiments.comparison import run

    monkeypatch.setattr(run, "available", lambda: False)
    report = compare(tmp_path, "mse", rivals=True)
    assert {row["kind"] for row in report.table} == {"loss"}
    assert comparison_table.comparison_lines(report.summary)[-1].startswith(
        "What is no loss stands beside these with scikit-learn: pip install"
    )


def measures(right):
    """Of tasks of ten images, so many of which are answered right."""
    tasks = [[1.0] * n + [0.0] * (10 - n) for n in right]
    predicted = torch.tensor(tasks).repeat(1, 1)
    seen = torch.stack([predicted, torch.ones_like(predicted), torch.zeros_like(predicted)], -1)
    return measure(seen, torch.ones(len(right), 10, dtype=torch.int64), 2)


@pytest.mark.parametrize(
    ("rival", "loss", "words"),
    [
        ([9] * 20, [5, 6] * 10, "trees, which is no loss, is better than the best loss here, "),
        ([5, 6] * 10, [5, 6] * 10, "trees, which is no loss, does as well as the best loss"),
        ([5, 7] * 10, [6, 6, 5, 7] * 5, "reaches at least what the best loss here, cross-entropy"),
        ([2] * 20, [5, 6] * 10, ""),
    ],
)
def test_a_sentence_says_when_no_loss_is_needed(rival, loss, words):
    key = Stream(0)
    ours = measures(rival)
    theirs = measures(loss)
    rows = torch.arange(200).reshape(20, 10)
    draws = Draws.of(rows, torch.zeros_like(rows), key)
    gain = results.paired(ours.score, theirs.score, key)
    low, high = draws.gain_interval(ours.answers, theirs.answers)
    test = results.rank_test(ours.score, theirs.score)
    beside = results.BaselineDifference(gain, low, high, test, test.p, None)
    strongest = rivals.RivalResult(
        RivalMeasures("trees", "fitted", "", 0.0, ours), results.performance(ours), None
    )
    found = rivals._sentence(strongest, "ce", results.performance(theirs), beside, ACCURACY)
    assert words in found if words else found == ""
