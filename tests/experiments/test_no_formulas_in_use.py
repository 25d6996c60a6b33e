"""Losses of a whole batch, and of all classes of an image, in commands that train."""

import pytest
from test_run_folder import code, only_the_subset, without_plots

import metaloss
from metaloss.errors import SettingsError
from metaloss.experiments.comparison import figures, losses
from metaloss.experiments.recommendation import folds
from metaloss.losses import zoo
from metaloss.tasks import step_counts
from metaloss.training import session

LOSSES = ("soft_f1", "confusion", "bootstrap_hard(beta=0.7)")
TAIL = """
dataset = "fashionmnist"
ways = 3
shots = { most = 6, least = 1 }
val = 5
metric = "balanced_accuracy"
classifier = { kind = "mlp", hidden = [4] }
inner = { steps = 3, lr = 0.1, batch = 4 }
"""
FEW = {"tuning_tasks": 2, "test_tasks": 3, "rates": (0.1, 1.0)}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(figures, "draw", lambda summary: [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tail.toml").write_text(TAIL)


def test_compare_trains_each_on_a_long_tail_whatever_is_beside_it():
    tasks = ["tail.toml"]
    many = metaloss.compare([*LOSSES], tasks, out="many", rivals=False, **FEW)
    one = metaloss.compare(["confusion"], tasks, out="one", rivals=False, **FEW)
    assert {*LOSSES, "ce"} == {row["loss"] for row in many.table}
    assert all(row["at"]["diverged"] == 0 for row in many.table)

    def scores(report):
        rows = [row for row in report.table if row["loss"] == "confusion"]
        return [(row["setting"], row["at"], row["plain"]) for row in rows]

    assert scores(many) == scores(one) != []


def test_their_own_parameters_are_tuned_where_that_is_asked_for(tmp_path):
    (compared, _), _ = losses.read_losses(["confusion"], "ce", tmp_path, own=True)
    found = {spec: len(variant) for spec, variant in compared.variants().items()}
    assert found == dict.fromkeys(zoo.entry("confusion").variants, 1)


def test_recommend_tries_them(monkeypatch, dataset):
    monkeypatch.setattr(folds, "load", lambda name, options: dataset)
    monkeypatch.setattr(step_counts, "STEPS", (6,))
    small = {
        "ways": 4,
        "shots": 2,
        "inner": {"steps": 3},
        "classifier": {"kind": "mlp", "hidden": [4]},
        **FEW,
    }
    found = metaloss.recommend("digits", ["confusion", "soft_f1"], **small)
    assert {"confusion", "soft_f1"} <= {row["loss"] for row in found.table}


@pytest.mark.parametrize("loss", ["confusion", "nce_rce"])
def test_train_takes_them(loss, shapes, network, monkeypatch):
    monkeypatch.setattr(session.figures, "curves", lambda *_: [])
    fitted = metaloss.fit(loss, network, shapes, epochs=2, batch=16, lr=0.1, validation=0.2)
    assert fitted.loss == loss
    assert fitted.mean > 0.3  # of four classes


def test_show_says_what_they_are(capsys):
    assert code("show", "confusion(f1=true)") == 0
    out = capsys.readouterr().out
    assert "loss       confusion(f1=True)\n" in out
    assert "scope      it reads a whole batch" in out
    assert "phenotype" not in out
    assert code("show", "nce_rce") == 0
    out = capsys.readouterr().out
    assert "phenotype" in out
    assert "latex" in out


def test_searches_refuse_them_with_the_reason():
    with pytest.raises(SettingsError, match="nce_rce has no numbers to refine"):
        metaloss.refine("nce_rce")
