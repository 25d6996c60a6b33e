"""A published loss's own parameters, tuned together with its learning rate."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_run_folder import code, family, only_the_subset

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.evaluation.tuning import Tuned
from metaloss.evaluation.variants import tune_variants
from metaloss.experiments.comparison import figures
from metaloss.losses import zoo
from metaloss.losses.base import CrossEntropies
from metaloss.tasks import step_counts

SMALL = {
    "tuning_tasks": 3,
    "test_tasks": 4,
    "rates": (0.1, 1.0),
    "inner": {"steps": 3},
    "classifier": {"kind": "mlp", "hidden": [4]},
}
VARIANTS = ["temperature(tau=0.5)", "temperature(tau=4)"]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    monkeypatch.setattr(figures, "draw", lambda summary: [])
    monkeypatch.setattr(step_counts, "STEPS", (6,))
    # Few values, so that the tests stay short.
    entry = replace(zoo.entry("temperature"), grid={"tau": (0.5, 4.0)})
    monkeypatch.setitem(zoo.ENTRIES, "temperature", entry)
    monkeypatch.chdir(tmp_path)


def compare(*losses, **changes):
    small = {**SMALL, "curve_tasks": 2, "rivals": False}
    return metaloss.compare(losses, family(Path()), **{**small, **changes})


def row(report, loss):
    return next(x for x in report.table if x["loss"] == loss)


def test_the_best_of_all_parameters_and_rates_is_taken_and_tested_as_if_it_were_alone():
    each = compare(*VARIANTS)
    own = row(compare("temperature", "mse", tune="rate+own"), "temperature")
    best = max((row(each, spec) for spec in VARIANTS), key=lambda x: x["setting"]["accuracy"])
    assert own["setting"] == {**best["setting"], "spec": best["loss"]}
    for what in ("at", "plain", "data"):
        assert own[what] == best[what]
    assert own["against"]["gain"] == best["against"]["gain"]


def test_what_is_named_with_parameters_or_has_none_keeps_them():
    plain = compare("temperature(tau=2)", "-y*logp", "mse")
    own = compare("temperature(tau=2)", "-y*logp", "mse", tune="rate+own")
    assert own.table == plain.table


def test_the_number_of_steps_is_chosen_with_the_parameters():
    each = compare(*VARIANTS, tune="steps")
    own = row(compare("temperature", tune="steps+own"), "temperature")
    best = max((row(each, spec) for spec in VARIANTS), key=lambda x: x["best"]["accuracy"])
    assert own["best"] == {**best["best"], "spec": best["loss"]}
    assert own["at_best"] == best["at_best"]


def test_the_baseline_is_tuned_alike():
    report = compare("mse", against="temperature", tune="rate+own")
    spec = row(report, "temperature")["setting"]["spec"]
    assert spec in VARIANTS
    assert any(f"from {spec}" in x or f"than {spec}" in x for x in report.sentences)


def test_everything_shows_the_parameters_that_were_chosen(capsys):
    flags = ["--no-rivals", "--tuning-tasks", 3, "--test-tasks", 4, "--tune", "rate+own"]
    sets = ["--set", "rates=[0.1, 1.0]", "--set", "inner.steps=3", "--set", "curve_tasks=2"]
    where = ["--tasks", family(Path()), "--name", "one"]
    assert code("compare", "temperature", *where, *flags, *sets) == 0
    printed = capsys.readouterr().out
    summary = json.loads(Path("compare/one/summary.json").read_text())
    spec = summary["rows"][0]["setting"]["spec"]
    assert "learning rate and own parameters tuned per loss" in printed
    assert re.search(rf"^{re.escape(spec)} ", printed, re.MULTILINE)
    assert f"{spec}: " in printed or f"{spec} is " in printed
    for file in ("report.html", "results.csv"):
        assert spec in Path(f"compare/one/{file}").read_text()
    assert summary["losses"][0]["variants"] == VARIANTS
    assert summary["losses"][0]["formula"] == zoo.entry("temperature").text
    assert 'tune="rate+own"' in summary["command"]


def test_the_bar_counts_every_variant():
    class Counter(Reporter):
        total = done = 0

        def on_comparison_start(self, chosen, opened, work):
            self.total = work

        def on_progress(self, work):
            self.done += work

    for tune in ("rate+own", "steps+own"):
        counter = Counter()
        compare("temperature", tune=tune, reporter=counter)
        assert 0.9 * counter.total < counter.done < 1.1 * counter.total


def test_a_recommendation_names_the_parameters_that_were_chosen(monkeypatch, dataset):
    from metaloss.experiments.recommendation import folds

    monkeypatch.setattr(folds, "load", lambda name, options: dataset)
    anti = {"text": "sum(tau*-y*logp)", "parameters": {"tau": (-1.0, -1.0, 1.0)}}
    entry = replace(zoo.entry("temperature"), grid={"tau": (-1.0, 1.0)}, **anti)
    monkeypatch.setitem(zoo.ENTRIES, "temperature", entry)
    small = {**SMALL, "inner": {"steps": 9}, "folds": 2, "tune": "rate+own"}
    advice = metaloss.recommend("folder:scans", ["temperature"], **small)
    rows = {x["loss"]: x for x in advice.table}
    assert rows["temperature"]["spec"] == "temperature(tau=1)"
    for fold in advice.summary["folds"]:
        assert fold["settings"]["temperature"]["spec"] == "temperature(tau=1)"
    assert rows["temperature"]["accuracy"] > 0.3


def test_a_variant_that_fails_cannot_win():
    scores = {0.1: [0.9, torch.nan], 0.2: [0.4, 0.4], 0.3: [0.5, 0.5], 0.4: [0.5, 0.5]}
    losses = {f"x(s={s})": CrossEntropies.of(1, s) for s in scores}

    def tune(many):
        values = (torch.tensor(scores[round(float(x.smoothing), 1)]) for x in many)
        return [Tuned(x, 0.1, 5, v) for x, v in zip(many, values, strict=True)]

    (best,) = tune_variants(tune, [losses])
    assert best.setting.spec == "x(s=0.3)"
    assert best.losses is losses["x(s=0.3)"]
    assert best.setting.score == 0.5
