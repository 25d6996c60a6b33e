"""Losses side by side on a mixture: tuned and tested alike at every kind of its tasks."""

import csv
import json

import pytest
import torch
from test_mixture_search import MIXTURE
from test_run_folder import family, only_the_subset

import metaloss
from metaloss.console.comparison_table import comparison_lines
from metaloss.core.metric_scale import ACCURACY
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.mixture_evaluation import MixtureEvaluation
from metaloss.evaluation.references import with_references
from metaloss.evaluation.statistics import Paired, RankTest
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.results import BaselineDifference, LossResult, performance
from metaloss.experiments.comparison.sentences import mixture_sentence
from metaloss.inner.observers import measure
from metaloss.losses.base import CrossEntropies
from metaloss.tasks import opening
from metaloss.tasks.mixture import FACTORS

SMALL = {"tuning_tasks": 4, "test_tasks": 12, "rates": (0.1, 1.0), "out": "out"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A mixture beside an ordinary family."""
    folder = tmp_path_factory.mktemp("mixture")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        patch.chdir(folder)
        tasks = family(folder, "mix", MIXTURE), family(folder)
        yield metaloss.compare(["mse"], tasks, **SMALL)


def rows_of(report, name):
    return {row["loss"]: row for row in report.table if row["family"] == name}


def test_a_row_is_over_all_kinds_with_rates_in_units_of_cross_entropys_best(report):
    rows = rows_of(report, "mix")
    assert set(rows) == {"mse", "ce"}, "what is no loss is not fitted to a mixture"
    assert all(row["setting"]["lr"] in FACTORS for row in rows.values())
    against = rows["mse"]["against"]
    assert against["gain"]["tasks"] == 12
    assert against["low"] <= against["gain"]["mean"] <= against["high"]
    assert against["gain"]["mean"] == pytest.approx(
        rows["mse"]["at"]["accuracy"] - rows["ce"]["at"]["accuracy"]
    )


def test_gains_at_the_kinds_average_to_the_gain_over_all(report):
    about = next(x for x in report.summary["families"] if x["name"] == "mix")
    by_kind = about["by_kind"]
    assert len(by_kind) == 4
    assert sum(row["tasks"] for row in by_kind) == 12
    mean = sum(row["gains"]["mse"] * row["tasks"] for row in by_kind) / 12
    assert mean == pytest.approx(rows_of(report, "mix")["mse"]["against"]["gain"]["mean"])
    assert {row["ce_lr"] for row in by_kind} <= {0.1, 1.0}
    assert "by_kind" not in next(x for x in report.summary["families"] if x["name"] == "tiny")


def test_the_report_tells_of_kinds_and_draws_curves_of_ordinary_families_alone(report):
    page = (report.folder / "report.html").read_text()
    assert "Gain at each kind of tasks" in page
    assert (report.folder / "curves.png").is_file()
    (sentence,) = [
        x["text"] for x in report.summary["sentences"] if (x["family"], x["loss"]) == ("mix", "mse")
    ]
    assert "of 4 kinds" in sentence
    assert "cross-entropy" in sentence
    lines = comparison_lines(report.summary)
    assert any("4 kinds of tasks, each at its own number of steps" in line for line in lines)
    json.dumps(report.summary)
    with (report.folder / "per_task.csv").open() as file:
        tasks = [row for row in csv.DictReader(file) if row["family"] == "mix"]
    assert len(tasks) == 2 * 12


def test_a_mixture_alone_has_no_curves(tmp_path, monkeypatch):
    only_the_subset(monkeypatch, tmp_path)
    report = metaloss.compare(
        ["mse"], family(tmp_path, "mix", MIXTURE), **{**SMALL, "out": tmp_path / "out"}, kinds=3
    )
    assert not (report.folder / "curves.png").exists()
    assert (report.folder / "paired.png").is_file()
    assert len(report.summary["families"][0]["by_kind"]) == 3


def test_what_is_measured_of_each_task_is_what_a_search_scores(tmp_path, monkeypatch):
    only_the_subset(monkeypatch, tmp_path)
    opened = opening.open_family(opening.read(family(tmp_path, "mix", MIXTURE)))
    ce = CrossEntropies.of(1)
    with Local(workers=1) as engine:
        (tuned,) = with_references(engine, [opened], (0.1, 1.0), None, Reporter())
        evaluation = MixtureEvaluation(engine, tuned, Stream(4))
        ((at_rate, at_own),) = evaluation.test_tuned([ce], [Setting(2.0, 1)], 9)
        scores = evaluation.scores(ce, "test", Stream(4).at("test"), 9, lr=2.0)[0, 0]
        own = evaluation.scores(ce, "test", Stream(4).at("test"), 9)[0, 0]
    torch.testing.assert_close(at_rate.score.float(), scores)
    torch.testing.assert_close(at_own.score.float(), own)
    assert torch.equal(at_rate.answers, at_rate.score)
    assert at_rate.f1.isfinite().all()


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([0.04, 0.02, -0.01], "it is behind at 1 of 3 kinds, and loses 1.0 points at the worst"),
        ([0.04, 0.02, 0.01], "it is behind at 0 of 3 kinds, and gains 1.0 points at the worst"),
    ],
)
def test_a_sentence_names_the_kinds_at_which_a_loss_is_behind(report, gains, words):
    measures = measure(torch.ones(2, 2, 3), torch.ones(2, 2).long(), 2)
    reached = performance(measures)
    gain = Paired(0.02, 0.01, 0.03, 0.005, 12)
    difference = BaselineDifference(gain, 0.01, 0.03, RankTest(0.01, 1.0, 9, 0, 3), 0.01, gain)
    result = LossResult("mse", Setting(1.0, 1), reached, reached, vs_baseline=difference)
    rows = [{"gains": {"mse": x}} for x in gains]
    text = mixture_sentence(result, "ce", rows, ACCURACY)
    assert text.startswith("mse is better than cross-entropy over these kinds of tasks; ")
    assert words in text
