"""A finished run becomes a loss that comes with the package."""

import importlib.util
from pathlib import Path

import pytest
import torch
from test_mixture_search import MIXTURE, SETTINGS
from test_run_folder import code, family, only_the_subset, without_plots

import metaloss
from metaloss.cli import listing
from metaloss.criterion import loss_io
from metaloss.criterion.export import export
from metaloss.errors import SettingsError
from metaloss.search import program

SCRIPT = Path(__file__).parents[2] / "scripts" / "ship.py"
MEASURED = "| steps | gain |\n|---|---|\n"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(loss_io, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def ship():
    spec = importlib.util.spec_from_file_location("ship", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found.ship


@pytest.fixture
def run(tmp_path):
    changes = {"genome": {"kind": "targets", "clock": True}, "unit_gain": True, "generations": 2}
    mixture = family(tmp_path, "mix", MIXTURE)
    return program.evolve([mixture], out=tmp_path / "runs", **{**SETTINGS, **changes})


def test_a_winner_of_a_mixture_is_a_loss_that_says_what_it_has_learned_from(ship, run, tmp_path):
    folder = ship("few-shot", str(run.folder), MEASURED)
    loss = metaloss.load("Few-Shot", steps=30)
    assert loss.identity == run.best.identity
    assert loss.normalise
    assert loss.reads_clock
    assert loss.steps == 30
    export(loss, tmp_path / "loss.py")
    space = {}
    exec((tmp_path / "loss.py").read_text(), space)
    logits, label = torch.randn(6, 4), torch.arange(6) % 4
    values = [x.at(20, 30)(logits, label) for x in (loss, space["Loss"]())]
    torch.testing.assert_close(*values)
    assert not torch.allclose(loss.at(0, 30)(logits, label), values[0])
    # KMNIST is not here, so nothing of it was learned.
    assert loss.about["data sets"] == "fashionmnist"
    assert loss.about["evolved on"].startswith("a mixture of 4 kinds of tasks on fashionmnist: 2 ")
    (row,) = [x for x in listing.rows("losses", tmp_path) if x["name"] == "few-shot"]
    assert "evolved on a mixture of 4 kinds" in row["about"]
    card = (folder / "card.md").read_text()
    assert card.startswith("# few-shot\n")
    for text in (f"## Measured\n\n{MEASURED}", "call loss.at(", "2 meta-test tasks", "T-shirt"):
        assert text in card
    assert "It is divided by its gain" in card
    assert b"kmnist" not in (folder / "search.toml").read_bytes()
    assert {x.name for x in folder.iterdir()} == {
        *("card.md", "loss.json", "search.toml", "weights.safetensors")
    }
    assert not any(str(tmp_path).encode() in x.read_bytes() for x in folder.iterdir())


def test_the_settings_beside_the_card_evolve_it_again(ship, run, tmp_path, monkeypatch):
    folder = ship("few-shot", str(run.folder))
    monkeypatch.chdir(tmp_path)
    assert code("evolve", "--config", folder / "search.toml", "--out", "again", "-q") == 0
    (again,) = (tmp_path / "again").iterdir()
    weights = "weights.safetensors"
    assert (again / "loss" / weights).read_bytes() == (folder / weights).read_bytes()


@pytest.mark.parametrize("name", ["ce", "Few-Shot", "a/b"])
def test_a_name_that_means_another_loss_is_refused(ship, name):
    with pytest.raises(SettingsError, match="shipped under a new name in small letters"):
        ship(name, "runs/one")


def test_a_run_that_is_not_finished_is_refused(ship, run, tmp_path):
    (run.folder / "summary.json").unlink()
    with pytest.raises(SettingsError, match="is not finished: metaloss evolve --resume"):
        ship("few-shot", str(run.folder))
    assert not (tmp_path / "shipped").exists()
