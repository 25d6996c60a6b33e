"""`metaloss reproduce` and `metaloss list tables`: what they print, and how a run is resumed."""

import json
import os
import signal
from pathlib import Path

import archive
import pytest
from archive import SCANS

from metaloss.console import Console
from metaloss.experiments.reproduction import names

STAND_INS = [word for key, value in SCANS.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    archive.surroundings(monkeypatch, tmp_path)


def test_tables_are_listed_by_their_first_lines(metaloss):
    code, out, _ = metaloss("list", "tables")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == names()
    assert all(len(line.split()) > 5 for line in out.splitlines())
    rows = json.loads(metaloss("list", "tables", "morgan-c", "--json")[1])
    assert [x["name"] for x in rows] == [
        "morgan-caltech",
        "morgan-cars",
        "morgan-cifar10",
        "morgan-cifar100",
    ]


@pytest.mark.parametrize("name", [x for x in names() if x != "mln"])
def test_every_table_prints_where_nothing_was_run(metaloss, name):
    code, out, err = metaloss("reproduce", name)
    assert (code, err) == (0, "")
    assert "not run" in out
    assert "arXiv" in out or "report" in out.splitlines()[0]
    assert len(json.loads(metaloss("reproduce", name, "--json")[1])["rows"]) > 3


def test_a_run_trains_and_prints_and_leaves_ordinary_trainings(metaloss):
    args = (
        "morgan-cifar10",
        "--column",
        "base",
        "mixup",
        "--loss",
        "CE",
        "A2_0.10",
        "--seeds",
        "1",
        *STAND_INS,
    )
    code, out, err = metaloss("reproduce", *args, "--run")
    assert code == 0
    assert all(line.startswith("warning: ") for line in err.splitlines())
    lines = out.splitlines()
    assert sum(line.startswith("folder  trainings/") for line in lines) == 2
    head = next(i for i, line in enumerate(lines) if line.startswith("column "))
    assert lines[head + 1].startswith("base    CE       ce ")
    assert lines[head + 1].endswith("(a)")
    assert lines[head + 5].startswith(
        "(a) data folder:scans (protocol cifar10); model convnet (protocol wrn-28-10)"
    )
    code, again, _ = metaloss("reproduce", *args, "--run", "--json")
    assert code == 0
    assert [row["state"] for row in json.loads(again)["rows"]] == ["run"] * 4
    assert len(list(Path("trainings").iterdir())) == 2
    name = next(Path("trainings").iterdir()).name
    assert metaloss("train", "--resume", name, "-q") == (0, "", "")


def test_ctrl_c_leaves_a_run_whose_command_goes_on(metaloss, monkeypatch):
    args = (
        "reproduce",
        "morgan-cifar10",
        "--run",
        "--column",
        "base",
        "--loss",
        "CE",
        "--seeds",
        "1",
        *STAND_INS,
    )
    epoch = Console.on_epoch

    def pressed(*given):
        epoch(*given)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Console, "on_epoch", pressed)
        code, _, err = metaloss(*args)
    assert code == 130
    assert err.splitlines()[-1].startswith(f"interrupted; go on with: metaloss {' '.join(args)}")
    (folder,) = Path("trainings").iterdir()
    assert not (folder / "summary.json").exists()
    code, out, _ = metaloss(*args, "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["folders"] == [str(folder)]
    assert list(Path("trainings").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("morgan-cras",),
            "error: unknown table 'morgan-cras'. Did you mean 'morgan-cars'?  "
            "(metaloss list tables)",
        ),
        (
            ("morgan-cars", "--column", "randug"),
            "error: unknown column 'randug'. Did you mean 'randaug'?",
        ),
        (("morgan-cars", "--loss", "A3"), "error: unknown loss 'A3'. Did you mean 'a"),
        (
            ("morgan-cars", "--set", "model"),
            "error: --set takes path.to.setting=value, got 'model'",
        ),
        (
            ("morgan-cars", "--set", "loss=ce"),
            "error: loss is what a table's rows are told by: name rows by --loss",
        ),
        (("morgan-cars", "--run", "--set", "model=resnet81"), "error: unknown model 'resnet81'"),
        (("mln", "--run"), "error: run is for a table of full-size trainings, which mln is not"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(metaloss, args, line):
    code, out, err = metaloss("reproduce", *args)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
