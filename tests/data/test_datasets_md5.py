"""CIFAR and SVHN, whose files are read only where their MD5 is the published one."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from metaloss.data import datasets
from metaloss.errors import DataError


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data folder."""
    folder = tmp_path / "data"
    monkeypatch.setenv("METALOSS_DATA", str(folder))
    return folder


def error(name):
    """The one line that loading ends with."""
    with pytest.raises(DataError) as caught:
        datasets.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


class OldDtype:
    """Pickles as numpy's types did when CIFAR was published; today's numpy warns at reading."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def cifar_files(root, monkeypatch, kind, classes):
    """Batches of two images, and torchvision told that they are the published ones."""
    from torchvision import datasets as published

    cls = getattr(published, kind)
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    field = "labels" if kind == "CIFAR10" else "fine_labels"
    images = []
    for list_name in ("train_list", "test_list"):
        sums = []
        for file, _ in getattr(cls, list_name):
            rows = draw.integers(0, 256, (2, 3072), dtype=np.uint8)
            images.append(rows)
            (folder / file).write_bytes(
                pickle.dumps({"data": rows, field: [0, classes - 1], "old": OldDtype()})
            )
            sums.append([file, md5(folder / file)])
        monkeypatch.setattr(cls, list_name, sums)
    meta = folder / cls.meta["filename"]
    meta.write_bytes(pickle.dumps({cls.meta["key"]: [f"thing {i}" for i in range(classes)]}))
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(meta)})
    return folder, torch.from_numpy(np.concatenate(images)).view(-1, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "kind", "classes", "n"),
    [("cifar10", "CIFAR10", 10, 12), ("cifar100", "CIFAR100", 100, 4)],
)
def test_cifar_is_read(data, monkeypatch, name, kind, classes, n):
    _, images = cifar_files(data / name, monkeypatch, kind, classes)
    found = datasets.load(name)
    assert torch.equal(found.pixels, images)
    assert found.pixels.is_contiguous()
    assert found.labels.tolist() == [0, classes - 1] * (n // 2)
    assert found.test.tolist() == [False] * (n - 2) + [True] * 2
    assert found.classes[-1] == f"thing {classes - 1}"


def test_a_cifar_file_of_another_md5_is_named_and_not_unpickled(data, monkeypatch):
    folder, _ = cifar_files(data / "cifar10", monkeypatch, "CIFAR10", 10)
    (folder / "data_batch_3").write_bytes(b"")
    line = error("cifar10")
    assert line.startswith(
        f"{folder / 'data_batch_3'}: md5: found d41d8cd98f00b204e9800998ecf8427e, expected "
    )
    (folder / "batches.meta").unlink()
    assert error("cifar10").startswith(f"{folder / 'batches.meta'}: file: found none")


def test_a_cifar_label_out_of_range_is_found(data, monkeypatch):
    cifar_files(data / "cifar10", monkeypatch, "CIFAR10", 10)
    meta = data / "cifar10/cifar-10-batches-py/batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": ["only", "two"]}))
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(meta)})
    assert "labels: found 9, expected 0 to 1" in error("cifar10")


def test_what_torchvision_cannot_read_is_one_line(data, monkeypatch):
    folder, _ = cifar_files(data / "cifar10", monkeypatch, "CIFAR10", 10)
    from torchvision.datasets import CIFAR10

    (folder / "test_batch").write_bytes(b"no pickle")
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    assert "torchvision cannot read it (" in error("cifar10")


def svhn_files(root, monkeypatch):
    import scipy.io
    from torchvision.datasets import SVHN

    root.mkdir(parents=True)
    draw = np.random.default_rng(0)
    images = []
    sums = {}
    for split in ("train", "test"):
        pixels = draw.integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
        path = root / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": np.array([[1], [10], [9]], dtype=np.uint8)})
        sums[split] = ["", path.name, md5(path)]
        images.append(torch.from_numpy(pixels).permute(3, 2, 0, 1))
    monkeypatch.setattr(SVHN, "split_list", sums)
    return torch.cat(images)


def test_svhn_is_read_and_its_label_10_is_the_digit_0(data, monkeypatch):
    images = svhn_files(data / "svhn", monkeypatch)
    found = datasets.load("svhn")
    assert torch.equal(found.pixels, images)
    assert found.pixels.is_contiguous()
    assert found.labels.tolist() == [1, 0, 9, 1, 0, 9]
    assert found.test.tolist() == [False] * 3 + [True] * 3


def test_a_damaged_svhn_file_is_named(data, monkeypatch):
    svhn_files(data / "svhn", monkeypatch)
    path = data / "svhn/test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    assert error("svhn").startswith(f"{path}: md5: found ")
