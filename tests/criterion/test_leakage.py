"""A loss is not tested on images that it has learned from, whatever their names and folders."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_run_folder import SMALL, without_plots

import metaloss
from metaloss.criterion import loss_io
from metaloss.criterion.leakage import Origin, data_overlap
from metaloss.data import datasets, image_record
from metaloss.data.pools import pools
from metaloss.errors import DamagedFile, SettingsError
from metaloss.experiments.comparison.losses import read_losses
from metaloss.search import program, refinement
from metaloss.search.run_folder import find

TASKS = {
    "ways": 3,
    "shots": 2,
    "val": 2,
    "classifier": {"kind": "mlp", "hidden": [4]},
    "inner": {"steps": 2},
}


def pictures(folder, images=24):
    """A folder of so many small images of each of three classes."""
    draw = np.random.default_rng(0)
    for k in range(3):
        (folder / f"c{k}").mkdir(parents=True)
        for i in range(images):
            pixels = draw.normal(60 + 60 * k, 40, (6, 5)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"c{k}" / f"{i:02d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run that learned from its `scans`."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.chdir(home)
        without_plots(patch)
        pictures(Path("scans"))
        program.evolve("folder:scans", out="runs", **{**SMALL, **TASKS, "generations": 1})
    return home


@pytest.fixture
def run(home):
    return find(next((home / "runs").iterdir()))


@pytest.fixture
def copied(home, tmp_path, monkeypatch):
    """A copy of the images, in the working folder, which may be changed."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(home / "scans", tmp_path / "scans"))


def renamed(folder):
    for i, path in enumerate(sorted(folder.glob("*/*"), reverse=True)):
        path.rename(path.with_name(f"z{i:03d}.png"))


def with_one_more(folder):
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5)).save(folder / "c0" / "000.png")


def with_fewer(folder):
    for path in [*folder.glob("*/05.png"), *folder.glob("*/11.png")]:
        path.unlink()


def in_colour(folder):
    Image.new("RGB", (7, 9), (200, 10, 10)).save(folder / "c1" / "a.png")


def meta_test(folder):
    """A folder's data set and the rows of its meta-test pool."""
    data = datasets.load(f"folder:{folder}")
    return data, torch.cat(pools(data)["test"].rows)


@pytest.mark.parametrize("change", [renamed, with_one_more, with_fewer, in_colour])
@pytest.mark.parametrize("spelt", ["scans", "./scans/", "{here}/scans", "{here}/link"])
def test_a_run_is_refused_on_images_that_it_learned_from_however_they_are_spelt(
    run, copied, change, spelt
):
    change(copied)
    Path("link").symlink_to(copied)
    spec = f"folder:{spelt.format(here=Path.cwd())}"
    with pytest.raises(
        SettingsError,
        match=r"has learned from \d+ of the test images of (scans|link)  \(--allow-seen",
    ):
        metaloss.compare([run.folder], spec)


def test_a_run_may_be_judged_on_the_images_that_it_was_tested_on_and_on_others(run, copied):
    origin = Origin(folder=run.folder)
    loss = metaloss.load(run.folder)
    found = data_overlap(origin, loss, *meta_test(shutil.copytree(copied, "photos")))
    assert (found.data, found.classes, found.refusal) == ("same", "same", "")
    for path in copied.glob("*/*"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    found = data_overlap(origin, loss, *meta_test(copied))
    assert (found.data, found.classes, found.refusal) == ("new", "same", "")


def test_a_loss_is_judged_alike_wherever_its_files_were_copied_to(run, copied):
    renamed(copied)
    test = meta_test(copied)
    shutil.copytree(run.folder / "loss", "mine")
    loss_io.save(Path("again"), metaloss.load("mine", normalise=True), "")
    specs = [
        run.folder,
        run.folder / "loss",
        str(run.folder / "loss" / "loss.json"),
        "mine",
        metaloss.load("again"),
    ]
    entries = [read_losses([spec], "ce", Path("runs"))[0][0] for spec in specs]
    found = {data_overlap(one.origin, one.criterion, *test).seen for one in entries}
    assert len(found) == 1
    assert min(found) > 0


def test_a_run_without_a_record_is_judged_by_how_its_data_is_cut(run, home, copied, monkeypatch):
    old = Path(shutil.copytree(run.folder, Path.cwd() / "old"))
    for folder in (old, old / "loss"):
        (folder / image_record.FILE).unlink()
    one = Origin(folder=old), metaloss.load(old)
    assert data_overlap(*one, *meta_test(copied)).refusal == ""
    assert data_overlap(*one, *meta_test(copied)).data == "same"
    renamed(copied)
    monkeypatch.chdir(home)
    assert "of the test images" in data_overlap(*one, *meta_test(copied)).refusal


def test_a_damaged_record_is_named(run, copied):
    mine = Path(shutil.copytree(run.folder / "loss", "mine"))
    data = bytearray((mine / image_record.FILE).read_bytes())
    data[40] ^= 1
    (mine / image_record.FILE).write_bytes(data)
    with pytest.raises(DamagedFile, match=r"images\.json"):
        metaloss.compare([mine], "folder:scans")


def test_what_is_refined_remembers_what_its_formula_learned_from(
    home, copied, tmp_path, monkeypatch
):
    formula = {"genome": {"kind": "tree"}, "strategy": {"kind": "random_search", "population": 3}}
    without_plots(monkeypatch)
    base = {key: x for key, x in SMALL.items() if key not in formula}
    first = program.evolve(
        "folder:scans", out="runs", **{**base, **formula, **TASKS, "generations": 1}
    ).folder
    loss_io.save(tmp_path / "mine", metaloss.load("-1.5 * y * logp"), "", image_record.read(first))
    renamed(copied)
    with pytest.raises(SettingsError, match=r"scans: \d+ of the test images are among those"):
        refinement.refine(tmp_path / "mine", "folder:scans", **{**base, **TASKS})
    pictures(tmp_path / "more", 25)
    for path in (tmp_path / "more").glob("*/*"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    more = {
        **base,
        **TASKS,
        "generations": 1,
        "strategy": {"kind": "random_search", "population": 2},
    }
    found = refinement.refine(tmp_path / "mine", "folder:more", **more)
    names = [source.name for source in image_record.read(found.folder / "loss").sources]
    assert names == ["folder:scans", "folder:more"]


def test_a_search_does_not_learn_from_another_of_its_families_test_images(copied):
    renamed(Path(shutil.copytree(copied, "photos")))
    with pytest.raises(
        SettingsError, match=r"\d+ of the test images are among those that .* another family"
    ):
        program.evolve(["folder:scans", "folder:photos"], **{**SMALL, **TASKS})


# --- the record itself ---


def test_images_that_another_data_set_shares_are_found_by_their_pixels(dataset, episodes):
    test = torch.cat(episodes.pools["test"])
    copy = replace(dataset, name="copy", pixels=dataset.pixels ^ 1)
    mine = torch.cat(pools(copy)["train"].rows)
    n = 3
    copy.pixels[mine[:n]] = dataset.pixels[test[:n]]
    assert image_record.record_of(copy).count_seen(dataset, test) == n
    assert image_record.record_of(dataset).count_seen(dataset, test) == 0


def test_an_image_of_one_colour_is_no_leak(dataset):
    own = pools(dataset)
    test = torch.cat(own["test"].rows)
    mine = torch.cat(own["train"].rows)
    other = replace(dataset, pixels=dataset.pixels ^ 1)
    for data, rows in ((dataset, test), (other, mine)):
        data.pixels[rows[0]] = 77
    assert torch.isin(dataset.digests[test], image_record.record_of(other).digests).sum() == 1
    assert image_record.record_of(other).count_seen(dataset, test) == 0


def test_images_that_the_runs_own_test_has_twice_are_no_leak(dataset):
    own = pools(dataset)
    dataset.pixels[own["train"].rows[0][0]] = dataset.pixels[own["test"].rows[0][0]]
    assert image_record.record_of(dataset).count_seen(dataset, torch.cat(own["test"].rows)) == 0


def test_a_record_of_very_many_images_keeps_a_fair_sample(dataset, tmp_path, monkeypatch):
    whole = image_record.record_of(dataset)
    monkeypatch.setattr(image_record, "KEPT", 20)
    halves = [replace(dataset, name=name, pixels=dataset.pixels + i) for i, name in enumerate("xy")]
    found = image_record.join_records([image_record.record_of(data) for data in halves])
    assert found.digests.tolist() == sorted(found.digests.tolist())
    assert len(found.digests) == 20
    assert found.highest == found.digests.max()
    assert set(found.digests[torch.isin(found.digests, halves[0].digests)].tolist()) <= set(
        whole.digests.tolist()
    )
    image_record.write(tmp_path, found)
    again = image_record.read(tmp_path)
    assert (again.sources, again.digests.tolist(), again.highest) == (
        found.sources,
        found.digests.tolist(),
        found.highest,
    )
