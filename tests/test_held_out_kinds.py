"""The benchmark of held-out kinds of tasks: what it stores, compares and prints, on tiny tasks."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import metaloss
from metaloss.core.streams import Stream

FOLDER = Path(metaloss.__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks live in the checkout")


@pytest.fixture
def scripts(monkeypatch):
    """The folder of benchmarks, to import from."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in [x for x, m in sys.modules.items() if _is_of_benchmarks(m)]:
        del sys.modules[name]


@pytest.fixture
def script(scripts, monkeypatch, tmp_path):
    """The script, on kinds of tiny tasks; it keeps its rows in a file of the test's own folder."""
    loaded = importlib.import_module("held_out_kinds")
    tasks = importlib.import_module("held_out_tasks")
    whole = tasks.Budget.kinds

    def small(self, part):
        """The first kind of the part, with few images and steps."""
        kinds = whole(self, part)
        return [
            replace(
                x,
                family=replace(x.family, ways=3, val=4, classifier=classifier(x)),
                steps=(3, 100),
                rivals_at=(100,) if x.rivals_at else (),
                rates=(0.03, 0.1),
            )
            for x in {x.network: x for x in reversed(kinds)}.values()
        ]

    monkeypatch.setattr(tasks.Budget, "kinds", small)
    monkeypatch.setattr(importlib.import_module("held_out_cells"), "BETWEEN", (5,))
    monkeypatch.setattr(loaded, "WITHOUT_NOISE", ("mse",))
    monkeypatch.setattr(loaded, "WITH_NOISE", ("soft_f1",))
    monkeypatch.chdir(tmp_path)
    return loaded


def classifier(kind):
    small = {"MLP": {"kind": "mlp", "hidden": [4]}, "CNN": {"kind": "cnn", "filters": [2, 2]}}
    return small.get(kind.network, {"kind": "linear"})


def _is_of_benchmarks(module):
    return str(getattr(module, "__file__", "")).startswith(str(FOLDER))


def features(path):
    """A table of three classes that features tell apart."""
    key = Stream(0)
    labels = np.arange(600) % 3
    values = key.normal(600, 5).numpy() + labels[:, None]
    np.savez(path, features=values, labels=labels)


def run(script, *arguments):
    script.main([*arguments, "--store", "x.jsonl", "--tasks", "8", "--tuning-tasks", "4"])
    return [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]


def test_a_loss_equal_to_cross_entropy_gains_nothing_in_any_cell(script, capsys):
    features("f.npz")
    rows = run(script, "-1.0 * y * logp", "--features", "f.npz")
    cells = [row for row in rows if row["what"] == "cell"]
    assert {x["network"] for x in cells} == {"MLP", "CNN", "linear head"}
    assert {x["part"] for x in cells} == {"episodes", "features", "digits", "cnn", "noise"}
    # The same loss by other operations, whose last bit may turn an answer of a convolutional one.
    assert {x["versus"]["ce"]["mean"] for x in cells if x["network"] != "CNN"} == {0.0}
    assert all(abs(x["versus"]["ce"]["mean"]) < 0.1 for x in cells)
    assert any("published" in x["versus"] for x in cells)
    changes = [x["changes"] for x in rows if x["what"] == "changed"]
    assert len(changes) == 2
    assert changes[0] == changes[1], "cross-entropy loses as much at other rates"
    out = capsys.readouterr().out
    assert "| 0 of 8 | aim reached |" in out
    assert "0.0 [0.0, 0.0] (2 cells, the least 0.0)" in out


def test_a_stored_file_is_taken_up_again_and_takes_further_losses(script, monkeypatch, capsys):
    first = run(script, "mse", "--parts", "digits")
    printed = capsys.readouterr().out
    trainings = importlib.import_module("held_out_trainings").KindTrainings
    monkeypatch.setattr(trainings, "of", None)  # nothing may be opened
    assert run(script, "mse", "--parts", "digits") == first
    assert capsys.readouterr().out == printed


def test_rows_that_a_stop_has_cut_off_are_made_again(script):
    whole = run(script, "mse", "--parts", "digits")
    path = Path("x.jsonl")
    path.write_text(path.read_text()[:-20])
    again = run(script, "mse", "--parts", "digits")
    assert again == whole


def test_the_figure_is_drawn_from_a_stored_file_alone(script, monkeypatch):
    run(script, "mse", "--parts", "digits")
    trainings = importlib.import_module("held_out_trainings").KindTrainings
    monkeypatch.setattr(trainings, "of", None)  # nothing may be opened
    script.main(["mse", "--store", "x.jsonl", "--figure", "x.png"])
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="no cells of a2: measure them first"):
        script.main(["a2", "--store", "x.jsonl", "--figure", "x.png"])


def test_rivals_that_were_left_out_are_added_by_a_second_call(script):
    alone = run(script, "mse", "--parts", "noise", "--without-rivals")
    assert not any("published" in x.get("versus", ()) for x in alone)
    both = run(script, "mse", "--parts", "noise")
    assert both[: len(alone)] == alone, "what was measured is kept"
    cells = importlib.import_module("held_out_report").cells_of(both, "mse")
    assert "published" in {x["steps"]: x["versus"] for x in cells}[100]


@pytest.mark.usefixtures("scripts")
def test_large_trainings_have_fewer_tasks_where_time_is_short():
    tasks = importlib.import_module("held_out_tasks")
    budgets = [tasks.Budget(200, 32, Path("none.npz"), fewer_large=x) for x in (False, True)]
    all_tasks, fewer = (
        {(x.network, x.shots): x.tasks for part in ("episodes", "cnn") for x in b.kinds(part)}
        for b in budgets
    )
    assert all_tasks == {("MLP", n): 200 for n in (1, 5, 20, 50)} | {
        ("CNN", n): 50 for n in (5, 20)
    }
    assert fewer == {
        **{("MLP", 1): 200, ("MLP", 5): 200, ("MLP", 20): 100, ("MLP", 50): 50},
        **{("CNN", 5): 25, ("CNN", 20): 25},
    }


@pytest.mark.usefixtures("scripts")
def test_the_starts_of_a_linear_layer_are_set_beside_each_other(monkeypatch, tmp_path, capsys):
    starts = importlib.import_module("linear_start")
    monkeypatch.setattr(starts, "SHOTS", (1,))
    monkeypatch.setattr(starts, "STEPS", (2, 5))
    monkeypatch.setattr(starts, "SMOOTHINGS", (0.1,))
    tasks = importlib.import_module("held_out_tasks")
    monkeypatch.setattr(tasks, "RATES_ON_FEATURES", (0.01, 0.1))
    key = Stream(0)
    labels = np.arange(10 * 1100) % 10
    np.savez(
        tmp_path / "f.npz",
        features=key.normal(len(labels), 20).numpy() + 2 * np.eye(10, 20)[labels],
        labels=labels,
    )
    starts.main(["--features", str(tmp_path / "f.npz"), "--tasks", "4", "--tuning-tasks", "2"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows[2:]]
    assert len(cells) == 2 * 2 * 3  # numbers of steps, starts, losses
    assert {row[2] for row in cells} == {"torch's", "0"}
    own = [row[-1] for row in cells if row[2:4] == ["torch's", "cross-entropy"]]
    assert own == ["0.0 [0.0, 0.0]"] * 2, "it stands beside itself"
