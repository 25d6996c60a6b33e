"""Cells show the trainings that belong to them and how they depart; `run` trains the others."""

import functools
import json
import shlex
import statistics
from pathlib import Path

import archive
import pytest
from archive import SCANS

import metaloss as package
from metaloss import storage
from metaloss.core.reporting import Reporter
from metaloss.errors import DataError, Interrupted, MetalossError, SettingsError
from metaloss.experiments.reproduction import lines, reproduce
from metaloss.training import fitting, folders


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    archive.surroundings(monkeypatch, tmp_path)


@pytest.fixture
def written(tmp_path):
    """Writes a training's folder under `trainings`."""
    return functools.partial(archive.written, tmp_path)


def cells(found):
    return {(row["column"], row["printed_as"]): row for row in found.rows}


def stopper(n):
    """Says to stop when it is asked for the nth time."""
    calls = []
    return lambda: calls.append(0) or len(calls) == n


def test_where_nothing_was_run_every_cell_says_so_and_one_command_a_column_runs_it():
    found = reproduce("morgan-cars", columns=["base", "ALL"], loss=["ce", "A2_0.10"])
    assert [row["state"] for row in found.rows] == ["not run"] * 4
    assert found.missing == {
        kind: f"metaloss train --protocol morgan-finetune --augment {kind} --loss ce "
        "'a2_smoothed(alpha=0.1)'"
        for kind in ("base", "all")
    }
    last = lines(found)[-1]
    assert last.startswith(
        "not run: 4 of 4 cells; all of them: metaloss reproduce morgan-cars --run --column base all"
    )


def test_a_printed_command_makes_the_training_that_fills_the_cell(metaloss):
    wanted = {"loss": "CE", "columns": "cutout", "seeds": 2, **SCANS}
    (command,) = reproduce("morgan-cifar10", **wanted).missing.values()
    code, out, err = metaloss(*shlex.split(command)[1:], "-q")
    assert (code, out) == (0, "")
    assert all(line.startswith("warning: ") for line in err.splitlines())
    found = reproduce("morgan-cifar10", **wanted)
    (folder,) = Path("trainings").iterdir()
    table = json.loads((folder / "summary.json").read_bytes())["table"][0]
    row = found.rows[0]
    assert (row["ours"], row["ours_std"]) == (100 * table["accuracy"], 100 * table["accuracy_std"])
    assert (row["n"], row["lr"], row["state"], found.missing) == (2, [0.1], "run", {})
    assert row["difference"] == row["ours"] - 95.4
    assert row["departures"] == [
        "data folder:scans (protocol cifar10)",
        "model convnet (protocol wrn-28-10)",
        "length 4 steps (protocol 117300 steps)",
        "batch 4 (protocol 128)",
        "warmup 1 (protocol 1000)",
    ]


def test_on_real_images_what_is_missing_is_trained_once(monkeypatch, tmp_path):
    monkeypatch.setattr("metaloss.data.datasets.fashionmnist.SYSTEM", tmp_path / "no-such-folder")
    small = {
        "data": "fashionmnist",
        "model": "convnet",
        "subset": "5-per-class",
        "steps": 3,
        "warmup": 1,
        "seeds": 1,
    }
    started = []
    monkeypatch.setattr(
        fitting,
        "start",
        lambda *args, start=fitting.start, **how: started.append(0) or start(*args, **how),
    )
    first = reproduce(
        "loss-report", run=True, loss=["Focal2", "CE"], lr=0.1, schedule="one_cycle", **small
    )
    again = reproduce(
        "loss-report", run=True, loss=["Focal2", "CE", "L1"], lr=0.1, schedule="one_cycle", **small
    )
    assert len(started) == 2
    assert [len(x.rows) for x in (first, again)] == [2, 3]
    assert again.rows[:2] == first.rows[:2]
    assert again.missing == {}
    trained = [
        folders.find(path.parent, Path())[1].loss
        for path in sorted(Path("trainings").glob("*/config.toml"))
    ]
    assert sorted(trained) == [("ce", "focal(gamma=2)"), ("mae",)]
    (order,) = again.details["orders"]
    assert order["printed"] == ["Focal2", "Focal.5", "CE", "L1"]
    assert set(order["ours"]) == {
        "Focal2",
        "CE",
        "L1",
    }
    own = {row["printed_as"]: row["ours"] for row in again.rows}
    assert sorted(order["ours"], key=lambda x: -own[x]) == order["ours"]
    text = "\n".join(lines(again))
    assert "order on cifar10: printed Focal2 > Focal.5 > CE > L1; ours " in text
    assert "artefact" in text


@pytest.mark.parametrize("n", [3, 6], ids=["first loss", "second loss"])
def test_an_interrupted_column_goes_on_in_its_folder(n):
    wanted = {"columns": ["base", "all"], "loss": ["CE", "A2"], "seeds": 1, "run": True, **SCANS}
    with pytest.raises(Interrupted):
        reproduce("morgan-cifar10", stop=stopper(n), **wanted)
    cut = reproduce("morgan-cifar10", **{**wanted, "run": False})
    (folder,) = Path("trainings").iterdir()
    assert cut.missing["base"] == f"metaloss train --resume {folder}"
    whole = reproduce("morgan-cifar10", **wanted)
    assert {row["state"] for row in whole.rows} == {"run"}
    assert len(list(Path("trainings").iterdir())) == 2
    other = reproduce("morgan-cifar10", folder="elsewhere", **wanted)
    assert [row["ours"] for row in other.rows] == [row["ours"] for row in whole.rows]


def test_a_training_with_too_few_seeds_is_shown_and_made_again_by_a_run():
    wanted = {"columns": "base", "loss": "CE", "run": True, **SCANS}
    assert reproduce("morgan-cifar10", seeds=1, **wanted).rows[0]["n"] == 1
    assert reproduce("morgan-cifar10", seeds=2, **{**wanted, "run": False}).rows[0]["n"] == 1
    found = reproduce("morgan-cifar10", seeds=2, **wanted)
    assert found.rows[0]["n"] == 2
    assert found.rows[0]["folders"][0].endswith("-2")


# --- which trainings belong to a cell ---


def test_only_what_agrees_with_the_protocol_belongs_to_a_cell_unless_it_is_asked_for(written):
    for i, (key, value) in enumerate(
        {
            "data": "cifar100",
            "model": "resnet9",
            "subset": "50-per-class",
            "augment": "mixup",
            "steps": 500,
            "epochs": 3,
        }.items()
    ):
        written(f"x{i}", "morgan-wrn", {"ce": (0.5 + i / 100, 0.01)}, **{key: value})
        assert cells(reproduce("morgan-cifar10"))["base", "CE"]["state"] == "not run"
        if key != "augment":
            row = cells(reproduce("morgan-cifar10", columns="base", **{key: value}))["base", "CE"]
            assert row["ours"] == pytest.approx(50 + i)
            assert len(row["departures"]) == 1
    assert cells(reproduce("morgan-cifar10"))["mixup", "CE"]["ours"] == pytest.approx(53)
    written("y", "morgan-wrn", {"ce": (0.94, 0.002)}, augment="base", batch=64, rates=[0.1, 0.2])
    row = cells(reproduce("morgan-cifar10"))["base", "CE"]
    assert row["departures"] == ["batch 64 (protocol 128)", "rate best of 0.1, 0.2 (protocol 0.1)"]
    assert row["difference"] == pytest.approx(94 - 94.116)


def test_the_nearest_training_fills_a_cell_and_of_equal_ones_that_with_most_seeds(written):
    written("a", "morgan-wrn", {"ce": (0.90, 0.0)}, augment="base", batch=64, seeds=50)
    written("b", "morgan-wrn", {"ce": (0.91, 0.0)}, augment="base", seeds=2)
    written("c", "morgan-wrn", {"ce": (0.92, 0.0)}, augment="base", seeds=1)
    assert cells(reproduce("morgan-cifar10"))["base", "CE"]["ours"] == pytest.approx(91)
    assert cells(reproduce("morgan-cifar10", batch=64))["base", "CE"]["ours"] == pytest.approx(90)
    assert cells(reproduce("morgan-cifar10", batch=32))["base", "CE"]["state"] == "not run"


@pytest.mark.parametrize("loss", ["-y * logp", "Focal(gamma=0)", "sum(-(logp * y))"])
def test_a_loss_is_known_by_what_it_computes(written, loss):
    written(
        "a", "morgan-wrn", {loss: (0.9, 0.0), "-y * (1 - p) * logp": (0.8, 0.0)}, augment="base"
    )
    found = cells(reproduce("morgan-cifar10", columns="base"))
    expected = ["CE"] if "gamma" not in loss else []
    assert [name for (_, name), row in found.items() if row["state"] == "run"] == expected


def test_a_damaged_folder_is_warned_of_and_hides_no_other(written):
    written("a", "morgan-wrn", {"ce": (0.9, 0.0)}, augment="base")
    (written("b", "morgan-wrn", {"ce": (0.8, 0.0)}, augment="base") / "config.toml").write_text(
        "seeds = ["
    )
    told = []
    reporter = type("Told", (Reporter,), {"on_warning": lambda self, text: told.append(text)})()
    row = cells(reproduce("morgan-cifar10", reporter=reporter))["base", "CE"]
    assert row["ours"] == pytest.approx(90)
    assert len(told) == 1
    assert told[0].startswith("left out: ")
    assert "b/config.toml" in told[0]


# --- differences, means over networks, what cannot be run ---


def test_means_over_two_networks_stand_against_cross_entropy(written):
    for model, (ce, ngl) in {"resnet50": (0.90, 0.92), "inception_v3": (0.80, 0.86)}.items():
        assert cells(reproduce("ngl-scratch"))["cifar10", "NGL"]["state"] == "not run"
        size = {"size": 75} if model == "inception_v3" else {}
        written(model, "ngl-small", {"ce": (ce, 0.03), "ngl": (ngl, 0.04)}, model=model, **size)
    found = cells(reproduce("ngl-scratch"))
    ce = found["cifar10", "CE"]
    ngl = found["cifar10", "NGL"]
    assert (ce["ours"], ce["difference"], ce["delta"]) == (
        pytest.approx(85),
        pytest.approx(85 - 92.8),
        None,
    )
    assert (ngl["ours"], ngl["ours_std"], ngl["n"]) == (pytest.approx(89), pytest.approx(4), 10)
    assert (ngl["delta"], ngl["difference"]) == (pytest.approx(4), pytest.approx(4 - 0.12))
    assert ngl["departures"] == []
    assert found["fashionmnist", "NGL"]["state"] == "not run"
    alone = cells(reproduce("ngl-scratch", model="resnet50"))["cifar10", "NGL"]
    assert alone["ours"] == pytest.approx(92)
    assert alone["departures"][0] == "model resnet50 (protocol resnet50, inception_v3)"


def test_a_difference_to_cross_entropy_needs_cross_entropy(written):
    written("a", "ngl-small", {"ngl": (0.9, 0.01)}, model="resnet50")
    found = reproduce("ngl-scratch", columns="cifar10", model="resnet50")
    row = cells(found)["cifar10", "NGL"]
    assert (row["ours"], row["delta"], row["difference"]) == (pytest.approx(90), None, None)
    assert any("90.00 ± 1.00 (no CE)" in line for line in lines(found))


def test_what_cannot_be_run_says_why_and_a_stand_in_makes_it_run(written):
    found = reproduce("ngl-scratch")
    rows = cells(found)
    assert (
        rows["malaria", "CE"]["state"] == "Malaria has no source here" == found.missing["malaria"]
    )
    assert rows["cifar10", "f3"]["state"] == "formula lost, cannot be run" == found.missing["f3"]
    assert rows["mean", "CE"]["printed"] is None
    assert rows["mean", "SCE"]["printed"] == -0.58
    written("a", "ngl-small", {"ce": (0.9, 0.0)}, model="resnet50", data="folder:cells")
    row = reproduce(
        "ngl-scratch", columns="Malaria", loss="CE", data="folder:cells", model="resnet50"
    ).rows[0]
    assert row["departures"][0] == "data folder:cells (Malaria has no source here)"
    with pytest.raises(
        SettingsError, match="columns 'malaria' and 'pcam' are the same: name one by --column"
    ):
        reproduce("ngl-scratch", data="folder:cells")


def test_segmentation_is_judged_by_mean_iou(written):
    folder = written("a", "ngl-voc", {"dice": (0.9, 0.01)}, seeds=3)
    table = storage.read_record(folder / "summary.json")
    table["table"][0] |= {"iou": 0.7, "iou_std": 0.02}
    storage.write_record(folder / "summary.json", table)
    found = reproduce("ngl-voc", loss="Dice")
    row = cells(found)["DeepLabv2", "Dice"]
    assert (row["ours"], row["ours_std"]) == (pytest.approx(70), pytest.approx(2))
    assert found.missing == {"U-Net": "U-Net is not among the networks here"}
    assert "DeepLabv2: DeepLabv3 in the place of DeepLabv2, both on ResNet101" in lines(found)


def test_equal_departures_share_a_footnote(written):
    written("a", "morgan-wrn", {"ce": (0.9, 0.0), "a2": (0.9, 0.0)}, augment="base", batch=64)
    written("b", "morgan-wrn", {"ce": (0.9, 0.0)}, augment="all", batch=64)
    written("c", "morgan-wrn", {"ce": (0.9, 0.0)}, augment="mixup", batch=32)
    text = lines(reproduce("morgan-cifar10"))
    assert [x for x in text if x.startswith("(")] == [
        "(a) batch 64 (protocol 128)",
        "(b) batch 32 (protocol 128)",
    ]
    assert [sum(x.endswith(f"({mark})") for x in text) for mark in "ab"] == [3, 1]


def test_a_loss_that_failed_on_every_seed_has_no_number(written):
    folder = written("a", "morgan-wrn", {"ce": (None, None)}, augment="base")
    table = storage.read_record(folder / "summary.json")
    table["table"][0]["failed"] = 5
    storage.write_record(folder / "summary.json", table)
    found = reproduce("morgan-cifar10", columns="base", loss="CE")
    assert (found.rows[0]["state"], found.rows[0]["ours"], found.rows[0]["difference"]) == (
        "run",
        None,
        None,
    )
    assert any("5, 5 failed" in line for line in lines(found))


# --- what goes wrong ---


def test_a_column_that_fails_leaves_the_others(monkeypatch):
    start = fitting.start

    def fails(chosen, *args, **how):
        if chosen.augment.kind == "base":
            raise MetalossError("the loss is nan at step 1")
        return start(chosen, *args, **how)

    monkeypatch.setattr(fitting, "start", fails)
    found = reproduce(
        "morgan-cifar10", columns=["base", "mixup"], loss="CE", run=True, **{**SCANS, "seeds": 1}
    )
    assert [row["state"] for row in found.rows] == ["not run", "run"]
    assert found.missing == {"base": "the loss is nan at step 1"}
    assert any(line == "base: the loss is nan at step 1" for line in lines(found))


def test_images_that_are_nowhere_are_an_error_that_names_them():
    with pytest.raises(DataError, match=r"^no column has its images: .*cifar10"):
        reproduce("morgan-cifar10", run=True, columns=["base", "all"])
    assert not Path("trainings").exists()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "morgan-cifar",
            {},
            "unknown table 'morgan-cifar'. Did you mean 'morgan-cifar10'?  (metaloss list tables)",
        ),
        ("morgan-cars", {"columns": ["mixpu"]}, "unknown column 'mixpu'. Did you mean 'mixup'?"),
        ("morgan-cars", {"loss": "a22"}, "unknown loss 'a22'. Did you mean 'a2'?"),
        (
            "morgan-cars",
            {"modle": "convnet"},
            "train: unknown setting 'modle'. Did you mean 'model'?",
        ),
        (
            "morgan-cars",
            {"evolve": True},
            "evolve is for a table of few-shot tasks, which morgan-cars is not",
        ),
        (
            "morgan-tau",
            {"run": True},
            "run is for a table of full-size trainings, which morgan-tau is not",
        ),
        (
            "morgan-cars",
            {"study": "x"},
            "study is for a table of correlations, which morgan-cars is not",
        ),
        (
            "morgan-tau",
            {"loss": "ce"},
            "morgan-tau is over all losses of a study: none can be named",
        ),
        ("mln", {"loss": ["a2", "ce"]}, "one loss stands for the paper's own, got 2"),
        ("morgan-cars", {"augment": "base"}, "columns 'base' and 'cutout' are the same"),
    ],
)
def test_wrong_input_names_what_is_wrong(name, given, message):
    with pytest.raises(SettingsError) as caught:
        package.reproduce(name, **given)
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_a_result_is_plain_values(written):
    written("a", "morgan-wrn", {"ce": (0.9, 0.01)}, augment="base")
    found = reproduce("morgan-cifar10")
    table = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert set(table) >= {"rows", "missing", "note", "source", "protocol", "n", "stand_ins"}
    assert statistics.fmean(row["n"] for row in table["rows"]) == 5 / 90
