"""Files of features: what is read, and what is refused in one line before it costs memory."""

import contextlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metaloss.data import array_files, datasets
from metaloss.data.array_files import read_arrays
from metaloss.errors import DataError

N = 6
FEATURES = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def written(tmp_path):
    """Writes a file of the two arrays, others and changes, and gives its path."""

    def write(suffix=".npz", **arrays):
        arrays = {"features": FEATURES, "labels": LABELS, **arrays}
        arrays = {name: x for name, x in arrays.items() if x is not None}
        path = tmp_path / f"x{suffix}"
        if suffix == ".npz":
            np.savez(path, **arrays)
        else:
            texts = {k: json.dumps(list(x)) for k, x in arrays.items() if not hasattr(x, "dtype")}
            tensors = {k: torch.as_tensor(x) for k, x in arrays.items() if k not in texts}
            save_file(tensors, path, texts)
        return path

    return write


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_gives_its_features_labels_and_classes(written, suffix):
    arrays = read_arrays(written(suffix, classes=["cat", "dog"]))
    assert torch.equal(arrays.features, torch.from_numpy(FEATURES))
    assert arrays.labels.tolist() == LABELS.tolist()
    assert arrays.classes == ("cat", "dog")
    assert arrays.names == ()
    assert not arrays.test.any()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_names_take_the_place_of_labels(written, suffix):
    names = [f"a/{i}.png" for i in range(N)]
    arrays = read_arrays(written(suffix, labels=None, names=names))
    assert arrays.labels is None
    assert arrays.names == tuple(names)


@pytest.mark.parametrize(
    ("labels", "classes", "expected", "names"),
    [
        (["b", "a", "b", "a", "c", "c"], None, [1, 0, 1, 0, 2, 2], ("a", "b", "c")),
        (["b", "a", "b", "a", "b", "b"], ["b", "a"], [0, 1, 0, 1, 0, 0], ("b", "a")),
        ([7, 3, 7, 3, 10, 10], None, [1, 0, 1, 0, 2, 2], ("3", "7", "10")),
    ],
    ids=["text", "text in an order", "any numbers"],
)
def test_labels_are_numbers_or_text_of_any_classes(written, labels, classes, expected, names):
    arrays = read_arrays(written(labels=np.array(labels), classes=classes))
    assert arrays.labels.tolist() == expected
    assert arrays.classes == names


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", "<i2", "|b1", "|u1"])
def test_numbers_of_any_kind_and_order_become_32_bits(written, kind):
    values = np.asfortranarray(FEATURES % 2).astype(kind)
    found = read_arrays(written(features=values)).features
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), FEATURES % 2)


def test_half_numbers_of_torch_are_read(written):
    path = written(".safetensors", features=torch.from_numpy(FEATURES).bfloat16())
    assert np.array_equal(read_arrays(path).features.numpy(), FEATURES)


BAD_VALUE = FEATURES.copy()
BAD_VALUE[2, 1] = np.nan
TOO_LARGE = FEATURES.astype(np.float64)
TOO_LARGE[0, 0] = 1e300


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": BAD_VALUE}, "1 value that are not finite in 32 bits (the first is nan, in"),
        ({"features": TOO_LARGE}, "(the first is 1e+300, in row 0, column 0), expected numbers"),
        ({"features": FEATURES[0]}, "features: found float32 [3], expected numbers [rows, 1 to"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, "features: found float32 [0, 3]"),
        ({"features": FEATURES[:, :0]}, "features: found float32 [6, 0]"),
        ({"features": np.array([["a"]] * N)}, "features: found text [6, 1]"),
        ({"features": FEATURES.astype(complex)}, "features: found complex128 [6, 3]"),
        ({"features": None}, "found no array features"),
        ({"labels": LABELS[:4]}, "labels: found int64 [4], expected whole numbers or text [6]"),
        ({"labels": LABELS * 0.5}, "labels: found float64 [6]"),
        ({"labels": LABELS * 0}, "labels: found 1 class, expected at least 2"),
        ({"labels": LABELS + 1, "classes": ["a", "b"]}, "labels: found 2, expected 0 to 1 for 2"),
        ({"labels": np.array(list("abcabc")), "classes": ["a", "b"]}, "labels: found 'c', which"),
        ({"labels": None, "classes": ["a", "b"]}, "found classes without labels"),
        ({"names": ["a"] * N}, "names: found 'a' twice"),
        ({"names": ["a"]}, "names: found text [1], expected text [6]"),
        ({"test": LABELS}, "test: found int64 [6], expected bool [6]"),
        ({"label": LABELS}, "unknown array 'label'. Did you mean 'labels'?"),
        ({"labels": np.array([{}] * N)}, "an array of objects, which would have to be unpickled"),
    ],
)
def test_arrays_that_do_not_fit_are_named(written, arrays, message):
    path = written(**arrays)
    with pytest.raises(DataError) as error:
        read_arrays(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_every_cut_is_refused_and_no_flipped_bit_makes_a_traceback(written, suffix):
    path = written(suffix)
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError):
            read_arrays(path)
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with contextlib.suppress(DataError):
            read_arrays(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match="found a FIFO, expected a regular file"):
        read_arrays(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"none\.npz: cannot be read: No such file"):
        read_arrays(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"found '.csv', expected a file .npz or .safetensors"):
        read_arrays(tmp_path / "x.csv")


def npy(shape, content):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + content


def test_sizes_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", npy((5000, 100), bytes(2_000_000)))
    monkeypatch.setattr(array_files, "LIMIT", 1 << 20)
    with pytest.raises(DataError, match=r"found 2000\d+ bytes of arrays, expected at most 1048576"):
        read_arrays(path)


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy((1 << 40, 1 << 20), b"1234"))
    with pytest.raises(DataError, match=r"4 bytes for float32 \[1099511627776, 1048576\]"):
        read_arrays(path)


def test_an_archive_of_many_entries_is_refused_before_they_are_listed(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(2000):
            archive.writestr(f"{i}.npy", b"")
    with pytest.raises(DataError, match="found no archive of a few arrays"):
        read_arrays(path)


# --- as a data source ---


def test_a_file_of_features_and_labels_is_a_data_set(written):
    test = np.array([True, False, False, False, False, True])
    found = datasets.load(f"file:{written(test=test)}")
    assert found.name == "file:x"
    assert found.values.tolist() == [FEATURES[i].tolist() for i in (1, 2, 3, 4, 0, 5)]
    assert found.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert found.test.tolist() == [False] * 4 + [True] * 2
    assert found.index.tolist() == [0, 1, 2, 3, 0, 1]
    assert found.classes == ("0", "1")


def test_a_tables_rows_are_known_by_what_they_hold(written):
    one = datasets.load(f"file:{written()}")
    other = datasets.load(f"file:{written('.safetensors')}")
    changed = datasets.load(f"file:{written(features=FEATURES + (np.arange(N) == 2)[:, None])}")
    assert one.fingerprint() == other.fingerprint() != changed.fingerprint()
    assert torch.equal(one.digests, other.digests)
    assert (one.digests != changed.digests).nonzero().tolist() == [[2]]


def test_a_table_without_labels_or_with_a_size_is_refused(written, metaloss):
    with pytest.raises(DataError, match="found no array labels, expected one"):
        datasets.load(f"file:{written(labels=None)}")
    code, _, err = metaloss("data", "verify", "file:")
    assert (code, err) == (
        2,
        "error: data source 'file:' needs the path of a file: file:PATH\n",
    )


def test_verify_counts_a_tables_rows(written, metaloss):
    code, out, _ = metaloss("data", "verify", f"file:{written()}")
    assert code == 0
    assert "6 rows of 3 features, 2 classes" in out


def test_a_network_for_images_refuses_a_table(written, metaloss):
    code, _, err = metaloss("train", "--model", "resnet9", "--data", f"file:{written()}")
    assert code == 2
    assert "model 'resnet9' takes images, and here are features: --model linear or mlp" in err
