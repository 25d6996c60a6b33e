"""The loss for few-shot tasks that comes with the package, as compare and recommend use it."""

from dataclasses import replace

import pytest
from shipped_losses import FEW_SHOT, with_few_shot, without_few_shot
from test_run_folder import TINY, family, only_the_subset, without_plots

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.criterion.loss_module import LossModule
from metaloss.evaluation.tuning import Setting, steps_of_tuning
from metaloss.experiments.comparison import figures
from metaloss.experiments.recommendation import code, folds, losses, question
from metaloss.experiments.recommendation.cross_validation import choice_options, training_steps
from metaloss.experiments.recommendation.losses import read_losses
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict
from metaloss.inner.loop import Inner
from metaloss.tasks import step_counts
from metaloss.training import images as training_images
from metaloss.training import models

SMALL = {"rivals": False, "tuning_tasks": 2, "test_tasks": 3, "rates": (0.1, 1.0)}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(step_counts, "STEPS", (4, 6))
    monkeypatch.chdir(tmp_path)
    with_few_shot(monkeypatch, tmp_path)


class Listener(Reporter):
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def on_warning(self, text):
        self.warnings.append(text)


def asked(folder, data, **changes):
    table = {"data": data, **SMALL, **changes}
    heard = Listener()
    return question.open_question(table, None, (folder, ""), folder, heard), heard.warnings


def test_nothing_changes_where_none_is_shipped(monkeypatch, tmp_path):
    without_few_shot(monkeypatch, tmp_path / "without")
    assert losses.usual_losses() == list(losses.LOSSES)
    assert FEW_SHOT not in read_losses(None, tmp_path).specs


def test_it_is_tried_before_all_others_and_once(tmp_path):
    labels = [x.label for x in read_losses(None, tmp_path).losses]
    assert labels == ["ce", FEW_SHOT, *losses.LOSSES]
    named = read_losses([FEW_SHOT, "usual"], tmp_path)
    assert sorted(x.label for x in named.losses) == sorted(labels)
    assert FEW_SHOT not in named.usual


def test_it_is_left_out_of_a_recommendation_on_images_that_it_has_learned_from(tmp_path):
    of_fashion, warnings = asked(tmp_path, family(tmp_path))
    assert FEW_SHOT not in [x.label for x in of_fashion.compared]
    assert any(
        x.startswith(f"{FEW_SHOT} has learned from ") and x.endswith("images and is left out")
        for x in warnings
    )
    digits = family(tmp_path, "numbers", TINY.replace("fashionmnist", "digits"))
    of_digits, warnings = asked(tmp_path, digits)
    assert FEW_SHOT in [x.label for x in of_digits.compared]
    assert not warnings


def test_a_comparison_says_which_data_it_has_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda summary: [])
    tasks = family(tmp_path), family(tmp_path, "numbers", TINY.replace("fashionmnist", "digits"))
    found = metaloss.compare([FEW_SHOT], tasks, curve_tasks=2, **SMALL)
    assert [x["data"] for x in found.table if x["loss"] == FEW_SHOT] == [
        "same data, same classes",
        "new data, new classes",
    ]


def test_it_may_be_chosen_and_says_nothing_of_a_search():
    scores = {"ce": 0.5, FEW_SHOT: 0.9, "mse": 0.6}
    choice = LossChoice({name: Setting(0.1, 20, score) for name, score in scores.items()}, None)
    assert choice.winner == FEW_SHOT
    assert choice.best_loss == "mse"


def test_code_for_a_loop_tells_it_how_far_the_training_is(tmp_path):
    setting = Setting(0.1, 40, 0.9)
    gain = ScoreGain(0.03, 0.01, 0.05)
    verdict = Verdict(FEW_SHOT, setting, FEW_SHOT, gain, None, {FEW_SHOT: 5}, 0.95)
    final = LossChoice(dict.fromkeys(("ce", FEW_SHOT), setting), None)
    compared = read_losses([FEW_SHOT, "mse"], tmp_path).losses
    assert code.lines(FEW_SHOT, verdict, final, Inner(steps=40), compared) == [
        'loss = metaloss.load("few-shot", steps=40)',
        "optimiser = torch.optim.SGD(model.parameters(), lr=0.1)",
        "# before every step, from 0: loss.at(step, 40)",
    ]
    plain = code.lines("mse", replace(verdict, loss="mse"), final, Inner(steps=40), compared)
    assert plain[0] == 'loss = metaloss.load("mse")'
    assert len(plain) == 2


@pytest.mark.parametrize("tune", ["rate", "steps"])
def test_the_estimate_counts_each_number_of_steps_as_a_training_of_its_own(
    tune, tmp_path, monkeypatch, dataset
):
    monkeypatch.setattr(folds, "load", lambda name, options: dataset)
    whole, _ = asked(tmp_path, "folder:scans", tune=tune, inner={"steps": 3})
    inner = whole.images.family.inner
    options = choice_options(whole.recommendation, whole.images)

    def steps(compared):
        return training_steps(whole.recommendation, options, compared, whole.images)

    with_it = whole.compared
    without = [x for x in with_it if x.label != FEW_SHOT]
    assert len(without) == len(with_it) - 1
    choices = (whole.images.folds + 1) * SMALL["tuning_tasks"]
    each = steps_of_tuning(inner, True) if tune == "steps" else inner.steps
    assert steps_of_tuning(inner, True) == 3 + 4 + 6 > steps_of_tuning(inner)
    judged = whole.images.folds * SMALL["test_tasks"] * (4 if tune == "steps" else 3)
    assert steps(with_it) - steps(without) == choices * len(SMALL["rates"]) * each + judged


def test_a_recommendation_sets_it_beside_the_others(tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(folds, "load", lambda name, options: dataset)
    settings = {**SMALL, "inner": {"steps": 3}, "classifier": {"kind": "mlp", "hidden": [4]}}
    found = metaloss.recommend("folder:scans", out=tmp_path / "out", **settings)
    assert [row["loss"] for row in found.table][:3] == ["ce", FEW_SHOT, losses.LOSSES[0]]


def test_real_trainings_tell_it_how_far_they_are(shapes, network, monkeypatch, tmp_path):
    monkeypatch.setitem(models._OURS, "convnet", lambda channels, classes, size: network())
    monkeypatch.setattr(training_images.datasets, "load", lambda name, options: shapes)
    told = set()
    at = LossModule.at

    def noted(self, step, steps):
        if self.reads_clock:
            told.add((step, steps))
        return at(self, step, steps)

    monkeypatch.setattr(LossModule, "at", noted)
    settings = {
        **{"folds": 2, "splits": 2, "steps": 4, "rates": (0.05,), "own": 1, "seeds": 3},
        **{"stages": ({"length": 0.5, "splits": 1}, {}), "workers": 1},
    }
    found = metaloss.recommend("mnist", [FEW_SHOT], train="convnet", **settings)
    # A short training is one of its own, and no beginning of a longer one.
    assert told == {(step, steps) for steps in (2, 4) for step in range(steps)}
    assert found.table[0]["loss"] == "ce"
