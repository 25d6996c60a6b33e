"""Tasks of features: beside images and without any, seen only where they may be, and on record."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_run_folder import SMALL, without_plots

import metaloss as package
from metaloss import storage
from metaloss.core.streams import Stream
from metaloss.data import datasets, image_record, places
from metaloss.data.versions import TaskAugment
from metaloss.engines.local import Local
from metaloss.errors import DataError, SettingsError
from metaloss.experiments.recommendation import folds
from metaloss.inner.classifiers.linear import Linear
from metaloss.losses import zoo
from metaloss.losses.formulas import Formulas
from metaloss.search import program, refinement
from metaloss.search.run_folder import find
from metaloss.tasks import episodic, episodic_family

KEYS = [Stream(5).at("task", t) for t in range(4)]
CLASSES = 4
EACH = 30


def columns(seed=0, features=5):
    """Features that tell four classes apart, and the labels."""
    labels = np.arange(CLASSES).repeat(EACH)
    key = Stream(seed).at("features")
    centres = 3 * key.at("centres").normal(CLASSES, features).numpy()
    return centres[labels] + key.at("noise").normal(len(labels), features).numpy(), labels


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A file of features and labels in the working folder; the spec that names it."""
    monkeypatch.chdir(tmp_path)
    features, labels = columns()
    np.savez("wine.npz", features=features, labels=labels)
    return "file:wine.npz"


def test_a_table_is_a_family_that_fits_it(table):
    family = episodic_family.read(table)
    assert (family.name, family.ways, family.shots, family.val) == ("wine", 4, 2, 4)
    tasks = episodic.open_episodes(family).sample(KEYS)
    assert tasks.train.x().shape == (4, 8, 5, 1, 1)
    assert tasks.val.x().shape == (4, 16, 5, 1, 1)


def test_a_table_has_nothing_to_augment(table):
    family = replace(episodic_family.read(table), augment=TaskAugment(kind="shift"))
    with pytest.raises(SettingsError, match="here classifiers are fed a table of features: leave"):
        episodic.open_episodes(family)


def test_features_are_standardised_by_the_training_pool_alone(table):
    episodes = episodic.open_episodes(episodic_family.read(table))
    raw = episodes.dataset.values.double()
    seen = raw[torch.cat(episodes.pools["train"])]
    expected = (raw - seen.mean(0)) / seen.std(0, correction=0)
    torch.testing.assert_close(episodes.images.values.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp", "shared", "cnn"])
def test_every_classifier_learns_from_features(table, kind):
    family = replace(episodic_family.read(table), classifier={"kind": kind})
    episodes = episodic.open_episodes(family)
    with Local(workers=1) as engine:
        score = engine.score(Formulas((zoo.read("ce"),)), episodes, episodes.sample(KEYS), KEYS)
    assert score.mean() > 0.35  # guesses: 0.25


def test_a_layer_without_widths_is_not_made_wider(table):
    family = replace(episodic_family.read(table), classifier={"kind": "linear"})
    episodes = episodic.open_episodes(family)
    assert episodes.enlarged(2, 1).steps == 40
    assert episodes.enlarged(2, 1).model == Linear()
    with pytest.raises(SettingsError, match="'linear' has no widths, so a stage cannot have sc"):
        episodes.enlarged(1, 2)


def test_features_take_the_place_of_pixels(open_tiny, dataset, tmp_path):
    values = Stream(3).at("x").normal(120, 7).numpy()
    path = tmp_path / "x.npz"
    np.savez(path, features=values, labels=dataset.labels.numpy())
    plain = open_tiny()
    episodes = open_tiny(features=f"file:{path}")
    tasks = episodes.sample(KEYS)
    assert torch.equal(tasks.train.rows, plain.sample(KEYS).train.rows)
    assert tasks.train.x().shape == (4, 6, 7, 1, 1)
    assert episodes.provenance()["features"]["numbers"] == 7
    digest = episodes.fingerprints()["features tiny"]
    values[3, 3] += 1
    np.savez(path, features=values, labels=dataset.labels.numpy())
    changed = open_tiny(features=f"file:{path}").fingerprints()
    assert changed["features tiny"] != digest
    assert changed["data tiny"] == plain.fingerprints()["data tiny"]


def test_settings_that_do_not_go_together_are_refused(table):
    family = {"dataset": "digits", "ways": 2, "shots": 1, "val": 1}
    for changes, message in (
        ({"features": "resnet18"}, "expected file:PATH, torchvision:NAME or timm:NAME"),
        ({"features": "timm:vit", "size": 32}, "leave out size = 32"),
    ):
        with pytest.raises(SettingsError, match=message):
            episodic_family.of({**family, **changes}, "x", "x.toml")
    with pytest.raises(SettingsError, match=r"file:wine has its own; leave out 'file:wine.npz'"):
        episodic.open_episodes(replace(episodic_family.read(table), features=table))


def test_a_table_with_too_few_rows_says_how_many_are_needed(table):
    features, labels = columns()
    np.savez("few.npz", features=features[28:], labels=labels[28:])
    with pytest.raises(DataError, match=r"file:few.npz: 0 has 2 images; every class needs at leas"):
        episodic_family.read("file:few.npz")


def test_folds_of_a_table_see_only_what_they_may(table):
    features, labels = columns()
    np.savez(
        "twice.npz", features=np.concatenate([features, features[:3]]), labels=[*labels, 0, 0, 0]
    )
    cut = folds.make_folds("file:twice.npz", {"classifier": {"kind": "linear"}}, Stream(0))
    assert cut.copies == 3
    tuning, judge = cut.fold(0, torch.device("cpu"))
    seen = torch.cat(tuning.pools["validation"])
    assert not set(seen.tolist()) & set(torch.cat(judge.held_out["test"]).tolist())
    torch.testing.assert_close(
        tuning.images.values[seen].mean(0), torch.zeros(5), rtol=0, atol=1e-5
    )


# --- runs ---

RUN = {**SMALL, "genome": {"kind": "tree"}, "strategy": {"kind": "random_search", "population": 3}}
TASKS = {"ways": 3, "shots": 2, "val": 4, "classifier": {"kind": "linear"}, "generations": 1}


@pytest.fixture
def run(table, monkeypatch, tmp_path):
    """A search on the table; the working folder is another one."""
    without_plots(monkeypatch)
    folder = program.evolve(table, **{**RUN, **TASKS}).folder.absolute()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_a_run_finds_its_table_from_any_folder_and_at_another_place(run, tmp_path):
    assert storage.read_record(run / places.FILE) == {"wine": f"file:{tmp_path / 'wine.npz'}"}
    assert len(program.resume(run, changes={"generations": 2}).history) == 2
    (tmp_path / "wine.npz").rename("moved.npz")
    with pytest.raises(DataError, match=r"wine: no file at .*wine.npz; .* --tasks file:NEWPATH"):
        program.resume(run, changes={"generations": 3})
    changes = {"generations": 3, "tasks": ["file:moved.npz"]}
    assert len(program.resume(run, changes=changes).history) == 3


def test_other_features_are_other_conditions(run, tmp_path):
    features, labels = columns()
    features[5, 2] += 1
    np.savez(tmp_path / "wine.npz", features=features, labels=labels)
    with pytest.raises(SettingsError, match=r"began elsewhere \(data wine: was .*features wine: w"):
        program.resume(run, changes={"generations": 2})


def test_rows_that_a_loss_has_learned_from_are_known_in_another_file(run, tmp_path):
    record = image_record.read(run)
    features, labels = columns()
    own = datasets.load(f"file:{tmp_path / 'wine.npz'}")
    learned = torch.isin(own.digests, record.digests).nonzero()[:, 0]
    assert len(learned) == 96  # 80 % of 120
    # The rows that it learned from are tested on now: the last in the file come last by no rule.
    order = Stream(1).at("order").permutation(120)
    np.savez("other.npz", features=features[order], labels=labels[order])
    with pytest.raises(SettingsError, match=r"has learned from \d+ of the test images of other"):
        package.compare([run], tasks="file:other.npz", test_tasks=2, tuning_tasks=2)


def test_features_beside_images_move_with_the_run(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    without_plots(monkeypatch)
    monkeypatch.setattr(episodic, "load", lambda name, options: dataset)
    np.savez("x.npz", features=columns()[0], labels=dataset.labels.numpy())
    Path("tiny.toml").write_text('dataset = "digits"\nways = 3\nshots = 2\nval = 4\n')
    folder = program.evolve(
        "tiny.toml", **{**RUN, **TASKS, "features": "file:x.npz"}
    ).folder.absolute()
    assert storage.read_record(folder / places.FILE) == {
        "tiny features": f"file:{tmp_path / 'x.npz'}"
    }
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert len(program.resume(folder, changes={"generations": 2}).history) == 2
    kept = refinement._families(folder, Path("runs"))["families"][0]
    assert kept["features"] == f"file:{tmp_path / 'x.npz'}"
    assert find(folder).settings.families[0].features == "file:x.npz"
    Path(tmp_path / "x.npz").rename("new.npz")
    changes = {"generations": 3, "tasks": ["file:new.npz"]}
    assert len(program.resume(folder, changes=changes).history) == 3
