"""A search on a mixture: fitness is what is gained at each kind of tasks, wherever it stopped."""

import json
import tomllib

import pytest
import torch
from test_run_folder import SMALL, essence, family, only_the_subset, without_plots

from metaloss.console.text import summary_lines
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import DamagedFile, Interrupted, SettingsError
from metaloss.evaluation.references import with_references
from metaloss.losses.base import CrossEntropies
from metaloss.search import estimate, program, settings
from metaloss.search.run_folder import find
from metaloss.storage import write_record
from metaloss.tasks import opening

MIXTURE = """
kind = "mixture"
datasets = ["fashionmnist", "kmnist"]
kinds = 4
val = 3
reference_tasks = 2
[ranges]
steps = [2, 5]
shots = [1, 2]
ways = [2, 3]
width = 16
depth = 1
augmented = 0
"""
SETTINGS = {**SMALL, "tasks_per_generation": 4, "report_every": 1}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def searched(folder, out="runs", tasks=(), **changes):
    mixture = family(folder, "mix", MIXTURE)
    return program.evolve([mixture, *tasks], out=folder / out, **{**SETTINGS, **changes})


class Stopper(Reporter):
    """Asks to stop after so many generations, and keeps what work is told of."""

    def __init__(self, generations):
        self.left = generations
        self.work = []

    def on_generation(self, record, seconds, trainings):
        self.left -= 1

    def on_work(self, what, plain=True):
        self.work.append(what)

    def stop(self):
        return self.left <= 0


def test_a_search_that_is_resumed_equals_the_uninterrupted_one(tmp_path):
    whole = searched(tmp_path, out="whole")
    stopper = Stopper(1)
    with pytest.raises(Interrupted):
        searched(tmp_path, reporter=stopper, stop=stopper.stop)
    assert any("for 4 kinds of tasks" in what for what in stopper.work)
    folder = tmp_path / "runs" / whole.folder.name
    again = Stopper(9)
    program.resume(folder, reporter=again)
    assert essence(folder) == essence(whole.folder)
    assert not any("kinds" in what for what in again.work), "references are read, not tuned again"


def test_growing_numbers_of_tasks_are_of_whole_kinds(tmp_path):
    result = searched(tmp_path, growth=2.5, tasks_per_generation=4)
    assert [record["tasks"] for record in result.history] == [4, 6, 10]


def test_references_do_not_depend_on_the_run_and_a_strangers_are_refused(tmp_path):
    one, other = (searched(tmp_path, seed=seed, generations=1) for seed in (0, 1))
    files = [run.folder / "references-mix.json" for run in (one, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    table = json.loads(files[0].read_text())
    assert len(table["rates"]) == len(table["spreads"]) == 4
    written = {k: v for k, v in table.items() if k != "sha256"}
    (one.folder / "summary.json").unlink()
    write_record(files[0], {**written, "tried": [0.7]})
    with pytest.raises(DamagedFile, match="of another mixture"):
        program.resume(one.folder, changes={"generations": 2})


def test_the_winner_is_tested_against_cross_entropy_at_its_best_rate_for_each_kind(tmp_path):
    result = searched(tmp_path)
    row = result.summary["test"]["mix"]
    assert row["tasks"] == 2
    assert "classes" not in row
    assert row["ce"] == row["ce_steps"], "kinds keep their numbers of steps"
    assert (row["ce"]["lr"], row["ce"]["steps"], row["ce"]["relative"]) == (1.0, 1, True)
    assert result.best.about["classes"] == [2, 3]
    card = (result.folder / "loss" / "card.md").read_text()
    assert card.count("for each kind of task") == card.count("at the kinds' own rates") == 1
    assert card.count("interval over kinds and tasks") == 2
    held_out = [record["held_out"] for record in result.history]
    assert all(isinstance(x["regret"], float) for x in held_out)
    config = tomllib.loads((result.folder / "config.toml").read_text())
    assert config["objective"] == "regret"


def test_the_winner_is_tested_against_cross_entropy_at_its_own_rates_too(tmp_path):
    result = searched(tmp_path, generations=1)
    row = result.summary["test"]["mix"]
    own = row["ce_own"]
    assert not {"lr", "steps"} & own.keys()
    opened = result_family(result.folder)
    with Local() as engine:
        (mixture,) = with_references(engine, [opened], SETTINGS["rates"])
        key = Stream(0).at("test")
        rates = [
            factor * best
            for factor, best in zip(mixture.factors, mixture.references.rates, strict=True)
        ]
        kinds = mixture.kinds_of(key, range(2)).tolist()
        reached = [
            mixture.kinds[kind]
            .evaluate(
                engine, [CrossEntropies.of(1)], "test", key, range(t, t + 1), rates=[rates[kind]]
            )[0]
            .item()
            for t, kind in enumerate(kinds)
        ]
    assert own["accuracy"] == pytest.approx(sum(reached) / 2)
    assert own["gain"]["mean"] == pytest.approx(row["accuracy"] - own["accuracy"])
    line = summary_lines(result.summary)[-1]
    assert line.startswith(f"        CE at the winner's rates {100 * own['accuracy']:.1f} %: ")


def result_family(folder):
    """The mixture of a run, with its images."""
    return opening.open_family(find(folder).settings.families[0])


def test_a_mixture_goes_with_an_ordinary_family_and_a_guard(tmp_path):
    result = searched(
        tmp_path, tasks=[family(tmp_path)], guard={"worst_recall": 50.0}, generations=2
    )
    assert set(result.summary["test"]) == {"mix", "tiny"}
    assert "ce_own" not in result.summary["test"]["tiny"]
    assert result.summary["guard"]["test"]["mix"]["worst_recall"]["ce"] >= 0
    assert result.history[0]["trained"] == 4


def test_a_mixture_may_be_scored_by_another_metric(tmp_path):
    result = searched(tmp_path, metric="macro_f1", generations=1)
    row = result.summary["test"]["mix"]
    assert 0 <= row["macro_f1"] <= 1
    assert 0 <= row["ce_own"]["macro_f1"] <= 1
    assert "accuracy" not in row
    assert "macro F1" in (result.folder / "loss" / "card.md").read_text()


def test_ordinary_families_are_kinds_too(tmp_path):
    result = program.evolve(
        [family(tmp_path), family(tmp_path, "other")],
        out=tmp_path / "runs",
        **{**SMALL, "objective": "regret", "generations": 2, "report_every": 1},
    )
    assert "regret" in result.history[1]["held_out"]


def test_formulas_are_searched_on_mixtures(tmp_path):
    result = searched(
        tmp_path,
        genome={"kind": "tree", "max_size": 12, "max_height": 4, "first_height": 3},
        strategy={"kind": "regularized", "population": 3, "initial": 4, "batch": 2, "refresh": 2},
        screen_steps=0,
    )
    assert result.summary["front"]


def test_what_has_no_sense_on_a_mixture_is_refused_in_words(tmp_path):
    for changes, words in (
        ({"screen_steps": 3}, "screen_steps = 3: mix is a mixture"),
        ({"inner": {"steps": 3}}, "unknown setting 'inner'"),
    ):
        with pytest.raises(SettingsError, match=words):
            searched(tmp_path, **changes)
    assert not (tmp_path / "runs").exists()


def test_its_own_settings_are_changed_from_outside(tmp_path):
    table = {"tasks": (family(tmp_path, "mix", MIXTURE),), "ranges": {"steps": [3, 3]}, "kinds": 2}
    resolved = settings.resolve(table)
    (mixture,) = resolved.families
    assert (mixture.kinds, mixture.ranges.steps, mixture.ranges.ways) == (2, (3, 3), (2, 3))
    assert settings.resolve(resolved.table()) == resolved


def test_an_estimate_counts_the_references(tmp_path, monkeypatch):
    monkeypatch.setattr("metaloss.tasks.episode_costs.time.perf_counter", iter(range(9)).__next__)
    mixture = family(tmp_path, "mix", MIXTURE)
    cost = estimate.estimate_cost(settings.resolve({**SETTINGS, "tasks": (mixture,)}))
    # 4 candidates in each of 3 generations on 4 tasks.
    assert cost["trainings"] == 3 * 4 * 4
    # The 8 examples on two tasks of each of 4 kinds took a second.
    references = 4 * 2 * 2
    others = (10 + 2) * 2 + 2
    assert cost["seconds"] == pytest.approx((48 + references + others) / 64, abs=0.1)


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    mixture = family(tmp_path, "mix", MIXTURE)
    opened = opening.open_family(opening.read(mixture))
    seen = []
    for workers in (1, 3):
        with Local(workers=workers) as engine:
            seen.append(
                opened.evaluate(engine, [CrossEntropies.of(3)], "test", Stream(0), range(8))[0]
            )
    assert torch.equal(*seen)


def test_a_winner_that_sees_the_clock_is_half_way_through_what_its_kinds_train(tmp_path):
    genome = {"kind": "targets", "clock": True}
    best = searched(tmp_path, genome=genome, unit_gain=True, generations=1).best
    assert best.normalise
    assert 2 <= best.steps <= 5
