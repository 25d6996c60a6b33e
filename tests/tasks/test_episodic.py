"""Families are read from TOML; what cannot be is one line with values that can, before training."""

import os
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data.datasets import fashionmnist
from metaloss.data.noise import Noise
from metaloss.data.shapes import LongTail
from metaloss.errors import DataError, SettingsError
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.tasks import episodic, episodic_family, family_files

SHIPPED = sorted(
    p
    for p in family_files.CHECKOUT.glob("*.toml")
    if not family_files.written(str(p))[0].get("kind")
)
GOOD = 'dataset = "digits"\nways = 3\nshots = 2\nval = 4\n'
ON_FEATURES = "fashionmnist-resnet18"  # its weights come with no package
KEYS = [Stream(5).at("task", t) for t in range(60)]


def error(call, *given, kind=SettingsError, **settings):
    with pytest.raises(kind) as caught:
        call(*given, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def written(tmp_path):
    """Writes a family's file and gives its path."""

    def write(text, name="own.toml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


# --- reading ---


@pytest.mark.parametrize("path", SHIPPED, ids=[p.stem for p in SHIPPED])
def test_every_shipped_family_is_found_by_its_name(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    family = episodic_family.read(path.stem)
    assert family.name == path.stem
    assert family == episodic_family.read(str(path))
    assert family.model()


def test_a_shipped_family_on_features_says_how_to_get_the_weights_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    family = episodic_family.read(ON_FEATURES)
    with pytest.raises(DataError, match="metaloss data fetch torchvision:resnet18"):
        episodic.open_episodes(family)


@pytest.mark.parametrize(
    "name", [p.stem for p in SHIPPED if "fashionmnist" in p.stem and p.stem != ON_FEATURES]
)
def test_every_fashionmnist_family_fits_the_embedded_subset(name, monkeypatch, tmp_path):
    monkeypatch.setattr(fashionmnist, "SYSTEM", tmp_path / "none")
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    episodes = episodic.open_episodes(episodic_family.read(name))
    assert "embedded subset" in episodes.dataset.origin
    for pool in ("train", "validation", "test"):
        assert len(episodes.sample(KEYS[:1], pool)) == 1


def test_the_long_tail_of_digits_fits_them():
    tasks = episodic.open_episodes(episodic_family.read("digits-longtail")).sample(KEYS[:3], "test")
    for counts in tasks.train.class_counts:
        assert sorted(counts.tolist(), reverse=True) == LongTail(20, 2).sizes(10)


def test_a_file_gives_all_settings_and_defaults_fill_the_rest(written):
    parts = (
        'noise = { kind = "pair", share = 0.2 }\nclassifier = { kind = "cnn", filters = [4] }\n'
        "inner = { steps = 7, momentum = 0.9 }"
    )
    family = episodic_family.read(written(GOOD + parts))
    assert (family.name, family.dataset, family.ways, family.shots, family.val) == (
        "own",
        "digits",
        3,
        2,
        4,
    )
    assert family.noise == Noise("pair", 0.2)
    assert family.model() == Cnn(filters=(4,))
    assert (family.inner.steps, family.inner.momentum, family.inner.lr) == (7, 0.9, 0.1)
    assert episodic_family.read(written(GOOD)).model() == Mlp()


def test_a_family_in_the_working_folder_goes_before_the_packages(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "fashionmnist.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    family = episodic_family.read("fashionmnist")
    assert family.dataset == "digits"
    assert Path(family.origin) == Path("tasks/fashionmnist.toml")


# --- what cannot be read ---


def test_an_unknown_family_gets_the_nearest_name():
    assert error(episodic_family.read, "fashonmnist") == (
        "unknown task family 'fashonmnist'. Did you mean 'fashionmnist'?  (metaloss list tasks)"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "shotz = 3", "unknown setting 'shotz'. Did you mean 'shots'?"),
        (GOOD + 'name = "other"', "unknown setting 'name'"),
        (GOOD + 'origin = "here"', "unknown setting 'origin'"),
        ("ways = 3\nshots = 2\nval = 4", "dataset: Field required"),
        (
            GOOD.replace("ways = 3", "ways = 1"),
            "ways: Input should be greater than or equal to 2, got 1",
        ),
        (
            GOOD.replace("shots = 2", "shots = 0"),
            "shots: Input should be greater than or equal to 1, got 0",
        ),
        (
            GOOD.replace("val = 4", "val = -1"),
            "val: Input should be greater than or equal to 1, got -1",
        ),
        (GOOD.replace("ways = 3", 'ways = "all"'), "ways: Input should be a valid integer"),
        (
            GOOD + "label_noise = 0.4",
            "unknown setting 'label_noise'. It is now noise = { kind = ",
        ),
        (
            GOOD + "label_noise = 0.2",
            'It is now noise = { kind = "symmetric", share = 0.2 }',
        ),
        (
            GOOD + 'noise = { kind = "pair", share = 1.5 }',
            "noise: share: Input should be at least 0 and at most 1, got 1.5",
        ),
        (
            GOOD.replace("shots = 2", "shots = { most = 2 }"),
            "shots: least: Field required",
        ),
        (
            GOOD.replace("shots = 2", 'shots = "asis"'),
            "shots: expected a number of images, [fewest, most], { most = …, least = … } or",
        ),
        (
            GOOD.replace("val = 4", "val = [2, 4]"),
            'val: expected a number of images or "as-is", got [2, 4]',
        ),
        (GOOD + "inner = { lr = 0 }", "inner.lr: Input should be greater than 0"),
        (GOOD + "inner = { lr = nan }", "inner.lr: "),
        (
            GOOD + "inner = { steps = 0 }",
            "inner.steps: Input should be greater than or equal to 1, got 0",
        ),
        (GOOD + "inner = { stepz = 3 }", "inner: unknown setting 'stepz'. Did you mean 'steps'?"),
        (GOOD + 'classifier = { kind = "mpl" }', "unknown classifier 'mpl'. Did you mean 'mlp'?"),
        (
            GOOD + "classifier = { hidden = [3] }",
            "classifier: needs a kind, one of cnn, linear, mlp, shared",
        ),
        (
            GOOD + 'classifier = { kind = "mlp", hiden = [3] }',
            "unknown setting 'hiden'. Did you mean 'hidden'?",
        ),
        (
            GOOD + 'classifier = { kind = "mlp", hidden = [0] }',
            "hidden.0: Input should be greater than or equal to 1",
        ),
        ("dataset = ", "cannot be read as a task family: "),
    ],
)
def test_one_line_says_what_a_file_may_not_hold(written, text, line):
    message = error(episodic_family.read, written(text))
    assert line in message
    assert "own.toml" in message or "classifier 'mpl'" in message


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    assert error(episodic_family.read, str(tmp_path / "none.toml")).endswith(
        "none.toml: cannot be read as a task family: No such file or directory"
    )
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "binary.toml: cannot be read as a task family" in error(
        episodic_family.read, str(tmp_path / "binary.toml")
    )
    (tmp_path / "folder.toml").mkdir()
    line = error(episodic_family.read, str(tmp_path / "folder.toml"))
    assert "folder.toml is no task family. It is a folder; its images are folder:" in line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ways": 5}, "5-way needs 5 classes, found 4"),
        (
            {"val": 5},
            "a has 30 images, b 30, c 30, d 30; every class needs at least 33 for shots + val = 7 "
            "in every "
            "pool: add 3, 3, 3, 3. This fits",
        ),
        (
            {"shots": 60, "val": 200},
            "a has 30 images, b 30, c 30, d 30; every class needs at least 1298",
        ),
        ({"shots": 5, "val": 2}, "a has 30 images"),
        (
            {"ways": 9, "shots": 9, "val": 9},
            "9-way needs 9 classes, found 4 (a 30, b 30, c 30, d 30 images); a has",
        ),
    ],
)
def test_an_impossible_family_gets_values_that_fit(open_tiny, changes, line):
    message = error(open_tiny, kind=DataError, **changes)
    assert message.startswith(f"tiny.toml: {line}")
    fits = re.search(r"This fits: ways = (\d+), shots = (\d+), val = (\d+)$", message)
    episodes = open_tiny(
        **dict(zip(("ways", "shots", "val"), map(int, fits.groups()), strict=True))
    )
    for pool in ("train", "validation", "test"):
        assert len(episodes.sample(KEYS[:2], pool)) == 2


def test_the_scarcest_class_decides_what_fits(open_tiny, dataset, monkeypatch):
    # 11 of class c: 7, 2 and 2 in its pools.
    keep = (dataset.labels != 2) | (torch.arange(120) < 44)
    scarce = replace(
        dataset, **{x: getattr(dataset, x)[keep] for x in ("pixels", "labels", "index", "test")}
    )
    monkeypatch.setattr(episodic, "load", lambda name, options: scarce)
    with pytest.raises(DataError) as caught:
        open_tiny().sample(KEYS[:1])
    few = (
        "c has 11 images; every class needs at least 28 for shots + val = 6 in every pool: "
        "leave it out or add 17. "
    )
    assert few in str(caught.value)
    assert str(caught.value).endswith("This fits: ways = 3, shots = 1, val = 1")
    monkeypatch.undo()
    monkeypatch.setattr(episodic, "load", lambda name, options: scarce)
    family = episodic_family.of(
        {"dataset": "tiny", "ways": 3, "shots": 1, "val": 1}, "tiny", "tiny.toml"
    )
    episodic.open_episodes(family).sample(KEYS, "test")


def test_too_few_images_for_any_task_are_refused_without_a_suggestion(
    open_tiny, dataset, monkeypatch
):
    few = replace(
        dataset, **{x: getattr(dataset, x)[:12] for x in ("pixels", "labels", "index", "test")}
    )
    monkeypatch.setattr(episodic, "load", lambda name, options: few)
    family = episodic_family.of(
        {"dataset": "tiny", "ways": 2, "shots": 1, "val": 1}, "tiny", "tiny.toml"
    )
    message = error(episodic.open_episodes, family, kind=DataError)
    assert message.endswith(
        "No task can be drawn: 2 classes with 2 images in every pool are the least"
    )


# --- a user's own folder ---


def pictures(root, counts):
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((4, 5), 40 + 2 * i, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("each", "classes", "shots", "val"),
    [(10, 2, 1, 1), (30, 3, 2, 4), (90, 2, 5, 13), (10, 12, 1, 1)],
)
def test_a_folder_is_a_family_whose_sizes_follow_from_its_images(
    tmp_path, each, classes, shots, val
):
    spec = pictures(tmp_path / "scans", {f"class{c}": each for c in range(classes)})
    family = episodic_family.read(spec)
    assert family.name == "scans"
    assert family.dataset == family.origin == spec
    assert (family.ways, family.shots, family.val) == (min(classes, 10), shots, val)
    episodes = episodic.open_episodes(family)
    for pool in ("train", "validation", "test"):
        assert episodes.sample(KEYS[:2], pool).train.x().shape[2:] == (1, 4, 5)


def test_a_folder_with_too_few_images_is_refused(tmp_path):
    spec = pictures(tmp_path / "scans", {"a": 20, "b": 3})
    message = error(episodic_family.read, spec, kind=DataError)
    assert message == f"{spec}: b has 3 images; every class needs at least 8: add 5"


def test_rare_classes_are_named_with_the_number_that_is_needed(tmp_path):
    spec = pictures(tmp_path / "scans", {"a": 12, "b": 7, "c": 12, "d": 3})
    message = error(episodic_family.read, spec, kind=DataError)
    assert (
        message
        == f"{spec}: d has 3 images, b 7; every class needs at least 8: leave them out or add 5, 1"
    )
    pictures(tmp_path / "more", {"a": 12, "b": 8, "c": 12, "d": 8})
    assert (
        episodic.open_episodes(episodic_family.read(f"folder:{tmp_path / 'more'}")).family.ways == 4
    )


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert str(tmp_path / "none") in error(
        episodic_family.read, f"folder:{tmp_path / 'none'}", kind=DataError
    )


def test_a_family_read_from_a_file_may_use_a_folder(tmp_path, written):
    spec = pictures(tmp_path / "scans", {"a": 10, "b": 10})
    family = episodic_family.read(written(f'dataset = "{spec}"\nways = 2\nshots = 1\nval = 1\n'))
    assert episodic.open_episodes(family).dataset.name == "folder:scans"
    shutil.rmtree(tmp_path / "scans")
    error(episodic.open_episodes, family, kind=DataError)


# --- episodes ---


def test_no_image_is_in_tasks_of_two_pools(episodes):
    seen = {}
    for pool in ("train", "validation", "test"):
        tasks = episodes.sample(KEYS, pool)
        seen[pool] = set(torch.cat([tasks.train.rows, tasks.val.rows], 1).flatten().tolist())
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert set().union(*seen.values()) == set(range(120))


def test_images_keep_their_class(episodes):
    tasks = episodes.sample(KEYS)
    for t in range(len(tasks)):
        classes = episodes.dataset.labels[tasks.val.rows[t]]
        assert len(set(zip(classes.tolist(), tasks.val.label[t].tolist(), strict=True))) == 3


def test_the_first_tasks_are_the_same_however_many_there_are(episodes):
    assert torch.equal(episodes.sample(KEYS[:5]).train.rows, episodes.sample(KEYS)[:5].train.rows)


def test_a_search_may_validate_on_fewer_images_but_never_on_more(episodes):
    assert episodes.sample(KEYS, val=2).val.rows.shape == (60, 6)
    assert episodes.sample(KEYS, val=100).val.rows.shape == (60, 12)


def test_label_noise_reaches_the_training_labels(open_tiny):
    clean = open_tiny().sample(KEYS)
    noisy = open_tiny(noise={"kind": "symmetric", "share": 0.5}).sample(KEYS)
    assert ((noisy.train.label != clean.train.label).sum(1) == 3).all()
    assert torch.equal(noisy.val.label, clean.val.label)


def test_augment_reaches_the_training_images_and_says_what_it_is(open_tiny):
    plain = open_tiny().sample(KEYS)
    episodes = open_tiny(augment={"kind": "shift", "pad": 1, "copies": 3})
    tasks = episodes.sample(KEYS)
    assert tasks.train.x().shape == (60, 18, 1, 6, 6)
    assert torch.equal(tasks.train.originals.x(), plain.train.x())
    assert torch.equal(tasks.val.x(), plain.val.x())
    assert ", 3 versions of every image (shift), mlp" in episodes.family.describe()
    again = episodes.enlarged(2, 1)
    assert again.family.augment == episodes.family.augment


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"augment": "blur"}, "augment: kind: unknown augmentation 'blur'"),
        ({"augment": {"kind": "base", "copies": 1}}, "augment: copies: expected a whole number"),
        ({"augment": "cutout"}, "tiny.toml: augment: patch = 16 must be below the side of the"),
        (
            {"augment": {"kind": "shift", "pad": 1}, "features": "torchvision:resnet18"},
            "augment changes pixels, and here classifiers are fed torchvision:resnet18",
        ),
    ],
    ids=str,
)
def test_an_augmentation_that_cannot_be_is_refused(open_tiny, changes, line):
    assert line in error(open_tiny, **changes)


def test_confusion_takes_its_classes_from_the_meta_training_pool_alone(open_tiny, dataset):
    """Classes a and b look alike; so they do in the meta-training pool only."""
    noise = {"kind": "confusion", "share": 1.0}
    train = open_tiny(ways=4).pools["train"]
    even = torch.arange(18) % 2 == 0
    # Half of each class is of the other one's images.
    for one, other in ((0, 1), (2, 3)):
        swapped = dataset.pixels[train[one][even]].clone()
        dataset.pixels[train[one][even]] = dataset.pixels[train[other][even]]
        dataset.pixels[train[other][even]] = swapped
    episodes = open_tiny(ways=4, noise=noise)
    tasks = episodes.sample(KEYS)
    for pool in ("validation", "test"):
        dataset.pixels[torch.cat(episodes.pools[pool])] = 255
    again = open_tiny(ways=4, noise=noise).sample(KEYS)
    assert torch.equal(tasks.train.label, again.train.label)
    partner = torch.tensor([1, 0, 3, 2])
    means = [
        tasks.classes[t][label] == partner[dataset.labels[rows]]
        for t, (label, rows) in enumerate(zip(tasks.train.label, tasks.train.rows, strict=True))
    ]
    assert torch.cat(means).float().mean() > 0.55


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"shots": [1, 3], "val": 2}, {(n, n, n) for n in (1, 2, 3)}),
        ({"shots": {"most": 4, "least": 1}, "val": 2}, {(4, 2, 1)}),
        ({"shots": {"kind": "as-is", "share": 0.5}, "val": 3}, {(3, 3, 3)}),
    ],
    ids=str,
)
def test_shots_reach_the_tasks(open_tiny, changes, sizes):
    tasks = open_tiny(**changes).sample(KEYS)
    found = {tuple(sorted(map(int, counts), reverse=True)) for counts in tasks.train.class_counts}
    assert found == sizes


def test_validation_as_it_is_follows_a_long_tail_and_is_as_large_as_fits(open_tiny):
    episodes = open_tiny(shots={"most": 4, "least": 1}, val="as-is")
    # Of 6 images in the smallest pool 4 are to train with, and 2 of the largest class are left.
    assert episodes.family.val.mean == 1
    tasks = open_tiny(shots={"most": 2, "least": 1}, val={"kind": "as-is", "mean": 2}).sample(KEYS)
    for t in range(len(tasks)):
        counts = tasks.val.label[t].bincount(minlength=3)
        assert counts.sort().values.tolist() == [1, 1, 4] or counts.sum() == 6
        assert counts.argmax() == tasks.train.class_counts[t].argmax()


UNEVEN = {
    "long tail": (
        {"shots": {"most": 9, "least": 2}},
        "shots = { most = 9, least = 2 } and val = 4",
    ),
    "drawn": ({"shots": [1, 9]}, "shots = [1, 9] and val = 4"),
    "as it is": ({"shots": "as-is", "val": 9}, "and val = 9"),
    "validation": ({"val": {"kind": "as-is", "mean": 30}}, "mean = 30 }"),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_a_shape_that_does_not_fit_names_the_class_the_number_and_what_fits(open_tiny, name):
    changes, sizes = UNEVEN[name]
    message = error(open_tiny, kind=DataError, **changes)
    assert message.startswith("tiny.toml: a has 30 images")
    assert "needs at least" in message
    assert sizes in message
    fits = message.split("This fits: ")[1]
    assert open_tiny(**tomllib.loads(fits.replace(", shots", "\nshots").replace(", val", "\nval")))


def test_a_family_is_described_by_its_sizes_and_its_noise(open_tiny):
    noise = {"kind": "symmetric", "share": [0, 0.6]}
    family = open_tiny(shots={"most": 4, "least": 1}, val=2, noise=noise).family
    assert family.describe() == (
        "3-way, a long tail of 4 to 1 images on tiny with symmetric noise of 0 to 60 %, "
        "mlp, 5 steps"
    )


def test_normalisation_is_that_of_the_meta_training_images(episodes):
    seen = episodes.dataset.pixels[torch.cat(episodes.pools["train"])].numpy().astype(np.float64)
    assert episodes.images.mean == pytest.approx(seen.mean(), rel=1e-12)
    assert episodes.images.std == pytest.approx(seen.std(), rel=1e-12)


@pytest.mark.parametrize("pool", ["validation", "test"])
def test_images_that_are_held_out_do_not_change_the_normalisation(
    episodes, open_tiny, dataset, pool
):
    dataset.pixels[torch.cat(episodes.pools[pool])] = 255
    other = open_tiny()
    assert (other.images.mean, other.images.std) == (episodes.images.mean, episodes.images.std)


def test_images_that_are_all_alike_are_not_divided_by_zero(open_tiny, dataset):
    dataset.pixels[:] = 9
    assert open_tiny().sample(KEYS[:1]).train.x().abs().max() == 0


@pytest.mark.parametrize("name", ["deep", "device", "fifo"])
def test_a_tasks_file_that_would_never_end_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("deep.toml").write_text("a = " + "[" * 2000)
    Path("device.toml").symlink_to("/dev/zero")
    os.mkfifo("fifo.toml")
    reasons = {
        "deep": "nested more than 32 deep",
        "device": "found a device",
        "fifo": "found a FIFO",
    }
    with pytest.raises(
        SettingsError, match=rf"^{name}.toml: cannot be read as a task family: .*{reasons[name]}"
    ):
        episodic_family.read(f"{name}.toml")
