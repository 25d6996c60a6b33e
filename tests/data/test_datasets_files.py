"""Data sets of image files are read one by one or all at once.

Each is written here in its own layout.
"""

import importlib
import os
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.data import datasets
from metaloss.errors import DataError, SettingsError

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("METALOSS_DATA", str(folder))
    return folder


def picture(path, label, size=(40, 30)):
    """A picture of its class's colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[label % 3]).save(path, quality=95)


def caltech101(data, monkeypatch):
    root = data / "caltech101/caltech101/101_ObjectCategories"
    for label, name in enumerate(("ant", "beaver", "chair")):
        for i in (1, 2):
            picture(root / name / f"image_{i:04d}.jpg", label)
    picture(root / "BACKGROUND_Google/image_0001.jpg", 0)
    return [0, 0, 1, 1, 2, 2], [False] * 6


def flowers102(data, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    root = data / "flowers102/flowers-102"
    labels = [0, 1, 2, 0, 1, 2, 0, 101]
    for i, label in enumerate(labels, 1):
        picture(root / f"jpg/image_{i:05d}.jpg", label)
    savemat(root / "imagelabels.mat", {"labels": np.array([labels]) + 1})
    savemat(root / "setid.mat", {"trnid": [[1, 2, 3]], "valid": [[4, 5]], "tstid": [[6, 7, 8]]})
    table = {key: (file, None) for key, (file, _) in Flowers102._file_dict.items()}
    monkeypatch.setattr(Flowers102, "_file_dict", table)
    return labels, [False] * 5 + [True] * 3


def stanford_cars(data, monkeypatch):
    from scipy.io import savemat

    root = data / "stanford_cars/stanford_cars"
    (root / "devkit").mkdir(parents=True)
    kind = [("fname", "U20"), ("class", "i4")]
    found = []
    for part, path, labels in (
        ("train", root / "devkit/cars_train_annos.mat", [0, 1, 2]),
        ("test", root / "cars_test_annos_withlabels.mat", [2, 0]),
    ):
        for i, label in enumerate(labels):
            picture(root / f"cars_{part}/{i:05d}.jpg", label)
        rows = np.array([(f"{i:05d}.jpg", label + 1) for i, label in enumerate(labels)], dtype=kind)
        savemat(path, {"annotations": rows})
        found += labels
    names = np.array(["Audi", "BMW", "Fiat"], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    return found, [False] * 3 + [True] * 2


def imagenet(data, monkeypatch):
    for part, count in (("train", 2), ("val", 1)):
        for label, name in enumerate(("n01440764", "n01443537", "n01484850")):
            for i in range(count):
                picture(data / "imagenet" / part / name / f"{i}.JPEG", label)
    return [0, 0, 1, 1, 2, 2, 0, 1, 2], [False] * 6 + [True] * 3


def pcam(data, monkeypatch):
    """HDF5 by a stand-in for h5py: the layout is in the names of files, fields and axes."""
    contents = {}
    labels = {"train": [0, 1, 0], "valid": [1], "test": [0, 1]}
    (data / "pcam/pcam").mkdir(parents=True)
    for split, own in labels.items():
        images = np.stack([np.full((96, 96, 3), COLOURS[label], dtype=np.uint8) for label in own])
        for part, value in {
            "x": images,
            "y": np.array(own, dtype=np.uint8).reshape(-1, 1, 1, 1),
        }.items():
            path = data / f"pcam/pcam/camelyonpatch_level_2_split_{split}_{part}.h5"
            path.touch()
            contents[path] = {part: value}
    h5py = ModuleType("h5py")
    h5py.File = contents.__getitem__
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    return [0, 1, 0, 1, 0, 1], [False] * 4 + [True] * 2


WRITERS = {f.__name__: f for f in (caltech101, flowers102, stanford_cars, imagenet, pcam)}
every = pytest.mark.parametrize("name", WRITERS)


@every
def test_a_set_is_listed_with_its_labels_and_splits(data, monkeypatch, name):
    labels, test = WRITERS[name](data, monkeypatch)
    found = datasets.files(name)
    assert (found.name, found.labels.tolist(), found.test.tolist()) == (name, labels, test)
    assert len(found.classes) == {"flowers102": 102, "pcam": 2}.get(name, 3)
    split = [i for part in (False, True) for i in range(test.count(part))]
    assert found.index.tolist() == split
    assert str(data) in found.origin


@every
def test_images_are_read_at_one_size_and_are_their_class_s(data, monkeypatch, name):
    labels, _ = WRITERS[name](data, monkeypatch)
    found = datasets.files(name)
    for row, label in enumerate(labels):
        image = found.read(row, 20)
        assert image.shape == (3, 20, 20)
        assert image.dtype == torch.uint8
        assert (image.float().mean((1, 2)) - torch.tensor(COLOURS[label % 3])).abs().max() < 3


@every
def test_all_of_them_are_a_data_set_for_episodes(data, monkeypatch, name):
    labels, test = WRITERS[name](data, monkeypatch)
    found = datasets.load(name)
    assert found.pixels.shape == (len(labels), 3, 64, 64)
    assert found.labels.tolist() == labels
    assert found.test.tolist() == test


@every
def test_a_missing_set_is_one_line_with_the_place_and_a_remedy(data, name):
    with pytest.raises(DataError) as caught:
        datasets.load(name)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{name}: ")
    assert str(data) in line


@pytest.mark.parametrize("name", ["caltech101", "flowers102", "pcam"])
def test_what_torchvision_can_download_can_be_fetched(name):
    assert hasattr(datasets._source(name), "fetch")
    with pytest.raises(DataError, match=f"metaloss data fetch {name}"):
        datasets.files(name)


def test_cars_say_that_they_can_no_longer_be_downloaded(data):
    for act in (datasets.fetch, datasets.files):
        with pytest.raises(
            DataError, match="its publisher's address is gone: put cars_train, cars_test, devkit"
        ):
            act("stanford_cars")


def test_fetch_lets_torchvision_download(data, monkeypatch):
    from torchvision.datasets import Caltech101

    monkeypatch.setattr(Caltech101, "download", lambda self: caltech101(data, monkeypatch))
    assert datasets.fetch("caltech101").startswith("caltech101: 6 images, 3 classes; full set, ")


def test_a_missing_file_of_a_set_is_named(data, monkeypatch):
    flowers102(data, monkeypatch)
    (data / "flowers102/flowers-102/setid.mat").unlink()
    with pytest.raises(DataError, match=r"setid.mat: found none, expected one"):
        datasets.files("flowers102")


def test_a_damaged_file_of_a_set_is_one_line(data, monkeypatch):
    flowers102(data, monkeypatch)
    (data / "flowers102/flowers-102/setid.mat").write_bytes(b"no matlab")
    with pytest.raises(DataError, match="flowers102: cannot be read") as caught:
        datasets.files("flowers102")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_none_is_named(data, monkeypatch):
    caltech101(data, monkeypatch)
    path = data / "caltech101/caltech101/101_ObjectCategories/ant/image_0002.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image_0002.jpg: image: found none that can be read"):
        datasets.load("caltech101")


def test_imagenet_s_folders_may_lie_anywhere(data, monkeypatch, tmp_path):
    imagenet(tmp_path, monkeypatch)
    found = datasets.files(f"imagenet:{tmp_path / 'imagenet'}")
    assert len(found.paths) == 9
    with pytest.raises(SettingsError, match="takes no path"):
        datasets.files("caltech101:here")


def test_imagenet_s_splits_must_have_the_same_classes(data, monkeypatch):
    imagenet(data, monkeypatch)
    (data / "imagenet/val/n01440764").rename(data / "imagenet/val/other")
    with pytest.raises(
        DataError, match=r"val: classes: found others than in train \(n01440764, other\)"
    ):
        datasets.files("imagenet")


def test_too_many_images_for_memory_are_refused_before_any_is_read(data, monkeypatch):
    from metaloss.data.datasets import _images

    imagenet(data, monkeypatch)
    monkeypatch.setattr(_images, "LIMIT", 100_000)
    with pytest.raises(
        DataError, match="imagenet: 9 images of 64x64 are 110592 bytes, too many to hold"
    ):
        datasets.load("imagenet")


@pytest.mark.parametrize("name", ["flowers102", "stanford_cars"])
def test_a_table_of_matlab_s_that_is_too_large_is_refused_before_it_is_unpacked(
    name, data, monkeypatch
):
    from metaloss.data.datasets import _files

    WRITERS[name](data, monkeypatch)
    monkeypatch.setattr(_files, "MAT_LIMIT", 100)
    with pytest.raises(DataError, match=r"\.mat: found \d+ bytes, expected at most 100$"):
        datasets.files(name)


def test_labels_of_pcam_that_are_too_many_are_refused_before_they_are_unpacked(data, monkeypatch):
    pcam(data, monkeypatch)
    monkeypatch.setattr(importlib.import_module("metaloss.data.datasets.pcam"), "LIMIT", 2)
    with pytest.raises(DataError, match=r"train_y\.h5: y: found 3 labels, expected at most 2"):
        datasets.files("pcam")


def test_a_file_of_pcam_that_nobody_ends_is_not_waited_for(data, monkeypatch):
    pcam(data, monkeypatch)
    path = data / "pcam/pcam/camelyonpatch_level_2_split_valid_y.h5"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="found a FIFO, expected a regular file"):
        datasets.files("pcam")


def test_the_fingerprint_follows_names_and_labels(data, monkeypatch):
    imagenet(data, monkeypatch)
    first = datasets.files("imagenet").fingerprint()
    assert datasets.files("imagenet").fingerprint() == first
    path = data / "imagenet/train/n01440764/0.JPEG"
    path.rename(path.with_name("9.JPEG"))
    assert datasets.files("imagenet").fingerprint() != first


def test_a_picture_is_cut_in_the_middle_at_its_shorter_side():
    from metaloss.data.datasets._files import middle_square

    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 255
    assert (middle_square(Image.fromarray(pixels), 10) == 255).all()
    assert middle_square(Image.fromarray(pixels), 4).shape == (3, 4, 4)


def test_without_h5py_the_remedy_is_named(data, monkeypatch):
    pcam(data, monkeypatch)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="pip install h5py"):
        datasets.files("pcam")
