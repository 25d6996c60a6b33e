"""Kendall's τ of a study stands beside the printed one; what the study departs in is said."""

import json
import shlex
from pathlib import Path

import archive
import pytest
from archive import SCANS

import metaloss
from metaloss.errors import SettingsError
from metaloss.experiments.rank_study.settings import read
from metaloss.experiments.reproduction import lines, reproduce

LOSSES = ("ce", "mse", "a2", "ngl")
SETTING = "train:data=folder:scans,model=convnet,steps=4,epoch_steps=2,batch=4,warmup=1"


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    archive.surroundings(monkeypatch, tmp_path)


@pytest.fixture
def study():
    """A finished study of base and mixup on small images."""
    settings = [f"{SETTING},augment={kind}" for kind in ("mixup", "base")]
    return metaloss.study(LOSSES, settings, out="studies", clusters=1, resamples=20)


def pairs(found):
    return {(row["first"], row["second"]): row for row in found.rows}


def test_where_there_is_no_study_one_command_makes_it():
    found = reproduce("morgan-tau")
    assert {row["state"] for row in found.rows} == {"not run"}
    assert len(found.rows) == 10
    words = shlex.split(found.missing["study"])
    assert words[:6] == ["metaloss", "study", "rank", "--losses", "random:1000", "--settings"]
    settings = [read(spec) for spec in words[6:]]
    assert (
        [x["name"] for x in settings]
        == ["base", "cutout", "mixup", "randaug", "all"]
        == [x["augment"]["kind"] for x in settings]
    )
    assert all(
        (x["steps"], x["optimiser"], x["data"]) == (20000, "adam", "cifar10") for x in settings
    )


def test_a_study_fills_its_pairs_where_it_is_asked_for(study):
    assert pairs(reproduce("morgan-tau"))["base", "mixup"]["state"] == "not run", (
        "its settings are not the protocol's"
    )
    found = reproduce("morgan-tau", **SCANS)
    row = pairs(found)["base", "mixup"]
    own = study.pairs[0]
    assert (row["printed"], row["printed_best"]) == (0.711, 0.056)
    assert (row["ours"], row["ours_best"]) == (own["all"]["tau"], own["both"]["tau"])
    assert row["of_all"]["n"] == 4
    assert row["folder"] == "studies/rank-0"
    assert sum(x["state"] == "run" for x in found.rows) == 1
    assert "optimiser sgd (protocol adam)" in row["departures"]
    assert "batch 4 (protocol 128)" in row["departures"]
    assert any("model convnet (protocol resnet9)" in line for line in lines(found))
    given = pairs(reproduce("morgan-tau", study="rank-0"))["base", "mixup"]
    assert given["ours"] == row["ours"], "a study that is named needs no stand-ins"
    json.dumps(found.plain(), allow_nan=False)


def test_a_study_that_is_not_finished_or_not_there_is_an_error(study):
    (study.folder / "taus.json").unlink()
    with pytest.raises(
        SettingsError, match="not finished: metaloss study rank --resume studies/rank-0"
    ):
        reproduce("morgan-tau", study=study.folder)
    with pytest.raises(SettingsError, match="no study 'nowhere'"):
        reproduce("morgan-tau", study="nowhere")
    assert {row["state"] for row in reproduce("morgan-tau", studies=Path("none")).rows} == {
        "not run"
    }
