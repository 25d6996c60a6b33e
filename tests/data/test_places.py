"""A run goes on from any working folder, and with the same images at another place."""

import shutil
from pathlib import Path

import pytest
import scans
from test_leakage import TASKS, pictures
from test_run_folder import SMALL, Listener, code, without_plots

import metaloss
from metaloss import storage
from metaloss.data import image_record, places
from metaloss.errors import DataError, SettingsError
from metaloss.experiments.rank_study.regimes import _placed
from metaloss.experiments.rank_study.settings import resolve
from metaloss.search import elimination, program, refinement
from metaloss.search.run_folder import find

FORMULAS = {"genome": {"kind": "tree"}, "strategy": {"kind": "random_search", "population": 3}}


@pytest.fixture(scope="module")
def began(tmp_path_factory):
    """The folder where a search began on `folder:scans`; nobody changes it."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("began")
        patch.chdir(home)
        without_plots(patch)
        pictures(Path("scans"))
        program.evolve("folder:scans", **{**SMALL, **TASKS, **FORMULAS, "generations": 1})
    return home


@pytest.fixture
def home(began, tmp_path, monkeypatch):
    """A search that began at `home`; the working folder is another one."""
    without_plots(monkeypatch)
    home = Path(shutil.copytree(began, tmp_path / "home"))
    run = find(next((home / "runs").iterdir()))
    places.keep_places(run.folder, {"scans": f"folder:{home / 'scans'}"})  # as if it had begun here
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home


@pytest.fixture
def run(home):
    return next((home / "runs").iterdir())


def images(run):
    return storage.read_record(run / places.FILE)


def test_what_a_relative_path_meant_is_on_record_and_nowhere_in_the_loss(began):
    run = next((began / "runs").iterdir())
    assert images(run) == {"scans": f"folder:{began / 'scans'}"}
    assert find(run).settings.tasks == ("folder:scans",)
    assert not any(str(began).encode() in path.read_bytes() for path in (run / "loss").iterdir())


def test_a_run_goes_on_from_another_working_folder(run):
    found = program.resume(run, changes={"generations": 2})
    assert [x["generation"] for x in found.history] == [1, 2]


def test_a_run_goes_on_with_its_images_elsewhere_and_remembers_where(home, run):
    there = (home / "scans").rename(home.parent / "photos")
    with pytest.raises(
        DataError,
        match=r"scans: no images at .*home/scans; .*evolve --resume .* --tasks folder:NEWPATH",
    ):
        program.resume(run)
    heard = Listener()
    program.resume(run, changes={"tasks": ["folder:../photos"], "generations": 2}, reporter=heard)
    assert heard.warnings == []
    assert images(run) == {"scans": f"folder:{Path.cwd() / '../photos'}"}
    program.resume(run, changes={"generations": 3})
    assert (
        code("evolve", "--resume", run, "--tasks", f"folder:{there}", "--generations", 4, "-q") == 0
    )


def test_other_images_are_refused_unless_allowed_and_then_counted_as_seen(home, run):
    before = image_record.read(run).digests
    (home / "scans" / "c0" / "00.png").unlink()
    shutil.copytree(home / "scans", "fewer")
    with pytest.raises(SettingsError, match=r"began elsewhere \(data scans: was .*--allow-changes"):
        program.resume(run, changes={"tasks": ["folder:fewer"]})
    assert images(run) == {"scans": f"folder:{home / 'scans'}"}
    program.resume(run, changes={"tasks": ["folder:fewer"], "generations": 2}, allow_changes=True)
    after = image_record.read(run).digests
    assert set(before.tolist()) < set(after.tolist())
    assert image_record.read(run / "loss").digests.tolist() == after.tolist()


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["folder:a", "folder:b"], "expected folder:PATH, got folder:a folder:b"),
        (["imagenet:a"], "expected folder:PATH, got imagenet:a"),
        (["fashionmnist"], "a resumed run keeps its settings: tasks"),
        (["folder:none"], "none: folder: found none"),
    ],
)
def test_what_cannot_be_a_new_place_is_refused(run, tasks, said):
    with pytest.raises((SettingsError, DataError), match=said):
        program.resume(run, changes={"tasks": tasks})


def test_images_that_moved_together_with_the_run_are_found_from_there(home, run, monkeypatch):
    moved = home.rename(home.parent / "moved")
    monkeypatch.chdir(moved)
    program.resume(moved / "runs" / run.name, changes={"generations": 2})


def test_an_elimination_finds_the_runs_images(home, run):
    stages = [{"keep": 1, "tasks": 2}]
    elimination.eliminate(run, changes={"start": 2, "stages": stages})
    (home / "scans").rename(home.parent / "photos")
    with pytest.raises(DataError, match=r"eliminate .* --data folder:NEWPATH"):
        elimination.eliminate(run, changes={"start": 2, "stages": stages})
    elimination.eliminate(
        run, changes={"start": 2, "stages": stages}, data=[f"folder:{home.parent / 'photos'}"]
    )
    assert image_record.read(run / "elimination" / "loss") is not None


def test_what_refines_a_run_finds_its_images(home, run):
    storage.write(
        run / "loss" / "loss.json",
        b'{"format": 1, "kind": "formula", "formula": "-1.5 * y * logp", "about": {}}',
    )
    small = {**SMALL, "strategy": {"kind": "random_search", "population": 2}, "generations": 1}
    table = refinement.resolved(
        run, {k: x for k, x in small.items() if k != "genome"}, Path("runs")
    )
    assert table.families[0].dataset == f"folder:{home / 'scans'}"


def test_a_training_finds_its_images_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scans.written(tmp_path)
    how = {"model": "convnet", "steps": 2, "epoch_steps": 2, "batch": 4}
    folder = metaloss.fit("ce", data="folder:scans", **how).folder.absolute()
    Path("scans").rename("photos")
    with pytest.raises(DataError, match=r"no images at .*train --resume .* --data folder:NEWPATH"):
        metaloss.fit(resume=folder)
    metaloss.fit(resume=folder, data="folder:photos")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert metaloss.fit(resume=folder).folder == folder


def test_a_study_names_its_sources_by_its_settings():
    settings = [
        "tasks:folder:scans,shots=2",
        "train:data=folder:scans,steps=2",
        "tasks:fashionmnist",
    ]
    study = resolve({"losses": ["ce", "mse"], "settings": settings})
    assert list(study.sources.values()) == ["folder:scans", "folder:scans", "fashionmnist"]
    where = {study.settings[0]["name"]: "folder:/new", study.settings[1]["name"]: "folder:/other"}
    placed = [_placed(where, x) for x in study.settings]
    assert [x.get("family") or x.get("data") for x in placed] == [
        "folder:/new",
        "folder:/other",
        "fashionmnist",
    ]
