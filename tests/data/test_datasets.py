"""Every source reads the files that it names, and says in one line what is wrong with others."""

import errno
import gzip
import struct
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from metaloss.data import datasets
from metaloss.data.datasets import fashionmnist
from metaloss.errors import DataError, DiskError, SettingsError

FULL = fashionmnist.SYSTEM  # before any test points it elsewhere
MNIST_FAMILY = {"mnist": "MNIST", "kmnist": "KMNIST", "fashionmnist": "FashionMNIST"}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data folder, and no full Fashion-MNIST on the system."""
    folder = tmp_path / "data"
    monkeypatch.setenv("METALOSS_DATA", str(folder))
    monkeypatch.setattr(fashionmnist, "SYSTEM", tmp_path / "none")
    return folder


def error(name, kind=DataError):
    """The one line that loading ends with."""
    with pytest.raises(kind) as caught:
        datasets.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the registry ---


def test_the_folder_is_the_registry():
    arrays = [
        "cifar10",
        "cifar100",
        "digits",
        "emnist",
        "fashionmnist",
        "file",
        "folder",
        "kmnist",
        "mnist",
        "svhn",
    ]
    photographs = ["caltech101", "flowers102", "imagenet", "pcam", "stanford_cars", "voc"]
    assert datasets.names() == sorted([*arrays, *photographs])


def test_an_unknown_name_gets_a_suggestion_and_the_known_names():
    line = error("fashonmnist", SettingsError)
    assert line.startswith(
        "unknown data source 'fashonmnist'. Did you mean 'fashionmnist'?  (known: caltech101, "
        "cifar10,"
    )
    assert "folder:PATH" in line


@pytest.mark.parametrize(
    "name", ["", "../errors", "_idx", "fashionmnist_subset", "zzz", "FASHIONMNIST"]
)
def test_what_is_no_source_is_refused(name):
    assert "unknown data source" in error(name, SettingsError)


def test_a_folder_needs_a_path_and_nothing_else_takes_one():
    assert "folder:PATH" in error("folder", SettingsError)
    assert "folder:PATH" in error("folder:", SettingsError)
    assert "takes no path" in error("digits:scans", SettingsError)


def test_the_data_folder_follows_the_environment(tmp_path, monkeypatch):
    assert datasets.data_folder() == tmp_path / "data"
    monkeypatch.setenv("METALOSS_DATA", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert datasets.data_folder() == tmp_path / "share" / "metaloss"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.data_folder() == tmp_path / ".local/share/metaloss"


def test_importing_and_reading_fashionmnist_imports_no_heavy_library():
    code = (
        "import sys, metaloss.data.datasets as d, metaloss.data.pools as p\n"
        "p.pools(d.load('fashionmnist'))\n"
        "print([m for m in ('torchvision', 'sklearn', 'PIL', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_a_source_does_not_import_torchvision():
    code = (
        "import sys, importlib, metaloss.data.datasets as d\n"
        "[importlib.import_module('metaloss.data.datasets.' + n) for n in d.names()]\n"
        "print([m for m in ('torchvision', 'sklearn', 'PIL', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- IDX files: the MNIST family ---


def idx_files(folder, prefixes=("train", "t10k"), labels=((0, 1, 9), (2, 3)), packed=False):
    """Four IDX files of random images; returns the images of both splits."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    images = []
    for prefix, label in zip(prefixes, labels, strict=True):
        pixels = draw.integers(0, 256, (len(label), 28, 28), dtype=np.uint8)
        head = struct.pack(">4i", 2051, len(label), 28, 28)
        for part, content in {
            "images-idx3": head + pixels.tobytes(),
            "labels-idx1": struct.pack(">2i", 2049, len(label)) + bytes(label),
        }.items():
            path = folder / f"{prefix}-{part}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
        images.append(torch.from_numpy(pixels))
    return torch.cat(images)[:, None]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("below", ["{name}/{kind}/raw", "{kind}/raw", "{name}"])
@pytest.mark.parametrize("name", MNIST_FAMILY)
def test_the_mnist_family_is_read_plain_or_gzipped_from_every_place(data, name, below, packed):
    images = idx_files(data / below.format(name=name, kind=MNIST_FAMILY[name]), packed=packed)
    found = datasets.load(name)
    assert found.name == name
    assert torch.equal(found.pixels, images)
    assert found.labels.tolist() == [0, 1, 9, 2, 3]
    assert found.index.tolist() == [0, 1, 2, 0, 1]
    assert found.test.tolist() == [False, False, False, True, True]
    assert len(found.classes) == 10
    assert found.origin.startswith(f"full set, {data}")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_emnist_is_set_upright(data, packed):
    prefixes = "emnist-balanced-train", "emnist-balanced-test"
    stored = idx_files(data / "emnist/EMNIST/raw", prefixes, labels=((0, 46), (10,)), packed=packed)
    found = datasets.load("emnist")
    assert torch.equal(found.pixels, stored.mT)
    assert found.pixels.is_contiguous()
    assert [found.classes[label] for label in found.labels] == ["0", "t", "A"]
    assert len(found.classes) == 47


def test_our_class_names_of_emnist_are_torchvisions():
    from torchvision.datasets import EMNIST

    from metaloss.data.datasets import emnist

    assert list(emnist._CLASSES) == EMNIST.classes_split_dict["balanced"]


@pytest.mark.parametrize("name", ["mnist", "kmnist", "emnist", "cifar10", "cifar100", "svhn"])
def test_a_missing_set_is_one_line_with_the_place_and_the_remedy(data, name):
    line = error(name)
    assert line.startswith(f"{name}: not found, looked for {data / name}")
    assert line.endswith(f"metaloss data fetch {name}")


def test_a_missing_file_of_a_set_is_named(data):
    raw = data / "mnist/MNIST/raw"
    idx_files(raw)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    assert error("mnist").startswith(f"{raw / 't10k-labels-idx1-ubyte'}: file: found none")


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda content: b"", "header"),
        (lambda content: content[:-1], "length"),
        (lambda content: content + b"\0", "length"),
        (lambda content: b"\0\0\x08\x02" + content[4:], "magic number"),
        (lambda content: content[:-1] + b"\x0a", "labels"),
        (lambda content: struct.pack(">2i", 2049, 1) + b"\0", "number of labels"),
    ],
    ids=["empty", "truncated", "trailing", "magic", "range", "count"],
)
@pytest.mark.parametrize("name", MNIST_FAMILY)
def test_damage_in_the_mnist_family_is_named(data, name, damage, field):
    raw = data / f"{name}/{MNIST_FAMILY[name]}/raw"
    idx_files(raw)
    path = raw / "t10k-labels-idx1-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    assert error(name).startswith(f"{path}: {field}: found ")


# --- Fashion-MNIST: where it is found ---


def test_the_embedded_subset_is_there_without_any_file():
    found = datasets.load("fashionmnist")
    assert found.origin == (
        "embedded subset (700 + 300 images per class); the full set: metaloss data fetch "
        "fashionmnist"
    )
    assert found.labels[~found.test].bincount().tolist() == [700] * 10
    assert found.labels[found.test].bincount().tolist() == [300] * 10
    assert found.pixels.shape == (10000, 1, 28, 28)
    assert found.index.max() > 50000  # official indices, not positions in the subset


@pytest.mark.parametrize("packed", [False, True])
def test_the_users_folder_comes_before_the_systems(data, tmp_path, monkeypatch, packed):
    monkeypatch.setattr(fashionmnist, "SYSTEM", tmp_path / "system")
    idx_files(tmp_path / "system", labels=((4,), (5,)), packed=True)
    assert datasets.load("fashionmnist").origin == f"full set, {tmp_path / 'system'}"
    images = idx_files(data / "fashionmnist", packed=packed)
    found = datasets.load("fashionmnist")
    assert found.origin == f"full set, {data / 'fashionmnist'}"
    assert torch.equal(found.pixels, images)
    assert found.classes[9] == "Ankle boot"


def test_a_damaged_file_in_the_first_place_does_not_lead_on_to_the_next(data):
    idx_files(data / "fashionmnist", packed=True)
    path = data / "fashionmnist/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert error("fashionmnist").startswith(f"{path}: gzip stream: found damage")
    path.unlink()
    assert error("fashionmnist").startswith(f"{path}: file: found none")


@pytest.mark.skipif(not FULL.exists(), reason="needs the full Fashion-MNIST")
def test_the_full_set_on_the_system_is_read(monkeypatch):
    monkeypatch.setattr(fashionmnist, "SYSTEM", FULL)
    found = datasets.load("fashionmnist")
    assert found.origin == f"full set, {FULL}"
    assert found.labels[~found.test].bincount().tolist() == [6000] * 10
    assert found.labels[found.test].bincount().tolist() == [1000] * 10
    assert found.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


# --- digits ---


def test_digits_are_scaled_to_bytes():
    from sklearn.datasets import load_digits

    found = datasets.load("digits")
    assert found.pixels.shape == (1797, 1, 8, 8)
    assert found.pixels.max() == 240
    assert np.array_equal(found.pixels[:, 0].numpy() / 15, load_digits().images)
    assert not found.test.any()


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert (
        error("digits") == "digits: these images come with scikit-learn: pip install scikit-learn"
    )


# --- fingerprint, verify, fetch ---


def test_the_fingerprint_follows_every_pixel_and_label(data):
    raw = data / "mnist/MNIST/raw"
    idx_files(raw)
    first = datasets.load("mnist").fingerprint()
    assert len(first) == 64
    assert datasets.load("mnist").fingerprint() == first
    for file in ("t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        content = (raw / file).read_bytes()
        (raw / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert datasets.load("mnist").fingerprint() != first
        (raw / file).write_bytes(content)


def test_verify_counts_every_class(data):
    idx_files(data / "mnist/MNIST/raw", labels=((0, 1, 1), (9, 0)))
    lines = datasets.verify("mnist")
    assert lines[0] == f"mnist: full set, {data / 'mnist/MNIST/raw'}"
    assert lines[1] == "5 images of 1x28x28 (channels, height, width), 10 classes"
    assert lines[3].split() == ["0", "1", "1"]
    assert lines[4].split() == ["1", "2", "0"]
    assert lines[12].split() == ["9", "0", "1"]
    assert lines[-1] == f"fingerprint {datasets.load('mnist').fingerprint()}"


@pytest.mark.parametrize("name", ["digits", "folder", "folder:scans"])
def test_what_cannot_be_fetched_says_what_can(name):
    with pytest.raises(
        SettingsError, match=r"has nothing to fetch; these have: caltech101, cifar10, .*svhn"
    ):
        datasets.fetch(name)


def stand_in(monkeypatch, act):
    """Replace torchvision's download of MNIST."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "download", act)


def test_fetch_downloads_and_says_what_came(data, monkeypatch, capsys):
    from pathlib import Path

    def act(self):
        print("mirror 1 failed")
        idx_files(Path(self.raw_folder))

    stand_in(monkeypatch, act)
    assert (
        datasets.fetch("mnist")
        == f"mnist: 5 images, 10 classes; full set, {data / 'mnist/MNIST/raw'}"
    )
    assert capsys.readouterr().out == ""


def fail(problem):
    def act(self):
        raise problem

    return act


@pytest.mark.parametrize(
    "problem",
    [URLError("no network"), RuntimeError("no network\nat all"), TimeoutError("no network")],
)
def test_without_network_fetch_says_where_to_put_the_files(data, monkeypatch, problem):
    stand_in(monkeypatch, fail(problem))
    with pytest.raises(DataError) as caught:
        datasets.fetch("mnist")
    line = str(caught.value)
    assert line.startswith("mnist: download failed (")
    assert "no network" in line
    assert "\n" not in line
    assert "MNIST/raw/train-images-idx3-ubyte" in line
    assert line.endswith(f"into {data / 'mnist'}")


def test_fashionmnist_is_fetched_through_torchvision(data, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    with pytest.raises(DataError, match=r"fashionmnist: download failed \(.*refused"):
        datasets.fetch("fashionmnist")
    # What the failure left behind is no set.
    assert datasets.load("fashionmnist").origin.startswith("embedded subset")


def test_a_full_disk_is_a_disk_error(monkeypatch):
    stand_in(monkeypatch, fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(DiskError, match="No space left on device"):
        datasets.fetch("mnist")


def test_a_download_that_leaves_damage_names_the_file(data, monkeypatch):
    raw = data / "mnist/MNIST/raw"
    idx_files(raw)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"t10k-labels-idx1-ubyte.*delete this file, then fetch again"
    ):
        datasets.fetch("mnist")
