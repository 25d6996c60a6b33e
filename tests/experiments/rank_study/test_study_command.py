"""`metaloss study rank`: what it prints, and how it goes on."""

import json

import pytest
from scans import TASKS, TRAIN, written

SMALL = ("--tasks", "3", "--device", "cpu")


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)


def test_scores_and_rank_correlations_are_printed(metaloss):
    losses = ("--losses", "ce", "mse", "-y * (1 - p) * logp")
    code, out, err = metaloss("study", "rank", *losses, "--settings", TASKS, TRAIN, *SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "3 losses under 2 settings" in lines[0]
    assert lines[1] == f"setting {TASKS}: accuracy, mean over meta-validation tasks; own rate 0.1"
    assert sum("/3 " in line for line in lines) == 6
    assert any(line.startswith("  best 2 of the first ") for line in lines)
    assert lines[-1] == "saved   studies/rank-0/"


def test_a_study_is_repeated_from_its_config_and_goes_on_from_its_folder(metaloss):
    given = (
        "--losses",
        "ce",
        "random:2",
        "--settings",
        TASKS,
        f"{TASKS},inner.lr=0.3",
        "--set",
        "clusters=1",
    )
    code, out, _ = metaloss("study", "rank", *given, *SMALL, "--json")
    first = json.loads(out)
    assert code == 0
    assert len(first["pairs"][0]["clusters"]) == 1
    _, out, _ = metaloss("study", "rank", "--config", f"{first['folder']}/config.toml", "--json")
    assert json.loads(out)["pairs"] == first["pairs"]
    _, out, _ = metaloss("study", "rank", "--resume", first["folder"], "--json")
    assert json.loads(out) == first


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), "error: a study orders losses under several settings: give 1 or more losses, got 0"),
        (
            ("--resume", "x"),
            "error: no study 'x': neither a study's folder nor a study under studies",
        ),
        (("--resume", "x", "--best", "3"), "error: --resume keeps the study's losses and settings"),
        (
            ("--losses", "ce", "mse", "--settings", "convnet", "x"),
            "error: a setting is 'tasks:FAMILY' or",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(metaloss, args, line):
    code, out, err = metaloss("study", "rank", *args)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
