"""The IDX reader takes whole files, and names what is wrong with all others."""

import gzip
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from metaloss.data.datasets import _idx
from metaloss.errors import DataError

PIXELS = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4)
IMAGE_FILE = struct.pack(">4i", 2051, 3, 2, 4) + PIXELS.tobytes()
LABEL_FILE = struct.pack(">2i", 2049, 3) + bytes([0, 9, 4])


def write(folder, images=IMAGE_FILE, labels=LABEL_FILE):
    paths = folder / "images", folder / "labels"
    for path, content in zip(paths, (images, labels), strict=True):
        path.write_bytes(content)
    return paths


def message(folder, images=IMAGE_FILE, labels=LABEL_FILE):
    with pytest.raises(DataError) as caught:
        _idx.pair(*write(folder, images, labels), size=(2, 4))
    line = str(caught.value)
    assert "\n" not in line
    return line.removeprefix(f"{folder}/")


def test_a_plain_pair_is_read(tmp_path):
    pixels, labels = _idx.pair(*write(tmp_path), size=(2, 4))
    assert torch.equal(pixels, torch.from_numpy(PIXELS))
    assert labels.tolist() == [0, 9, 4]
    assert labels.dtype == torch.int64


def test_a_gzipped_file_is_read(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(IMAGE_FILE))
    assert (_idx.read(path, _idx.IMAGES) == PIXELS).all()


def test_integers_are_read_as_big_endian(tmp_path):
    path = tmp_path / "index"
    path.write_bytes(struct.pack(">4i", 0x0C01, 2, 1, 59999))
    assert _idx.read(path, _idx.INDEX).tolist() == [1, 59999]


def test_an_empty_file_is_named(tmp_path):
    assert message(tmp_path, images=b"") == "images: header: found 0 bytes, expected at least 16"


def test_a_file_cut_in_its_header_is_named(tmp_path):
    assert (
        message(tmp_path, labels=LABEL_FILE[:6])
        == "labels: header: found 6 bytes, expected at least 8"
    )


def test_a_truncated_file_is_named(tmp_path):
    line = message(tmp_path, images=IMAGE_FILE[:-1])
    assert line == "images: length: found 39 bytes, expected 40 (header and 3x2x4 uint8)"


def test_trailing_bytes_are_found(tmp_path):
    assert message(tmp_path, labels=LABEL_FILE + b"\0").startswith(
        "labels: length: found more than 11 bytes"
    )


def test_a_count_beyond_all_memory_is_found(tmp_path):
    huge = struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    with pytest.raises(
        DataError,
        match="length: found a header of 4294967295x4294967295x4294967295 uint8, expected",
    ):
        _idx.read(write(tmp_path, images=huge)[0], _idx.IMAGES)


def test_exchanged_files_are_found_by_their_magic_number(tmp_path):
    line = message(tmp_path, images=LABEL_FILE + b"\0" * 9, labels=IMAGE_FILE)
    assert line == "images: magic number: found 2049, expected 2051 (uint8, axes: 3)"


def test_another_element_type_is_found_by_its_magic_number(tmp_path):
    integers = struct.pack(">2i", 0x0C01, 3) + bytes(12)
    assert (
        message(tmp_path, labels=integers)
        == "labels: magic number: found 3073, expected 2049 (uint8, axes: 1)"
    )


def test_counts_have_to_agree(tmp_path):
    four = struct.pack(">2i", 2049, 4) + bytes(4)
    assert (
        message(tmp_path, labels=four)
        == "labels: number of labels: found 4, expected 3 as in images"
    )


def test_no_image_at_all_is_an_error(tmp_path):
    line = message(
        tmp_path, images=struct.pack(">4i", 2051, 0, 2, 4), labels=struct.pack(">2i", 2049, 0)
    )
    assert line == "images: number of images: found 0, expected at least 1"


def test_another_image_size_is_found(tmp_path):
    line = message(tmp_path, images=struct.pack(">4i", 2051, 3, 4, 2) + PIXELS.tobytes())
    assert line == "images: image size: found 4x2, expected 2x4"


def test_a_label_out_of_range_is_found(tmp_path):
    line = message(tmp_path, labels=struct.pack(">2i", 2049, 3) + bytes([0, 9, 10]))
    assert line == "labels: labels: found 10 at position 2, expected 0 to 9"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: file: found none, expected an IDX file"):
        _idx.read(tmp_path / "nowhere", _idx.IMAGES)


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        _idx.read(tmp_path, _idx.IMAGES)


PACKED = gzip.compress(IMAGE_FILE)


@pytest.mark.parametrize(
    "content",
    [
        PACKED[:-9],
        PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:],
        PACKED[:12] + b"\xff" * 12,
        IMAGE_FILE,
    ],
    ids=["truncated", "wrong check sum", "broken stream", "not gzipped"],
)
def test_a_corrupted_gzip_file_is_named(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"images\.gz: gzip stream: found damage .*, expected a whole gzip file"
    ):
        _idx.read(path, _idx.IMAGES)


def test_an_empty_gzip_file_is_named(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="found 0 bytes"):
        _idx.read(path, _idx.IMAGES)


def test_a_fifo_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "images")
    with pytest.raises(
        DataError, match=r"images: file: cannot be read \(found a FIFO, expected a regular file\)"
    ):
        _idx.read(tmp_path / "images", _idx.IMAGES)


def test_no_more_of_a_gzipped_file_is_unpacked_than_its_header_promises(tmp_path):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(LABEL_FILE)
        for _ in range(512):
            file.write(bytes(1 << 20))
    code = f"""
import pathlib, resource
from metaloss.data.datasets import _idx
from metaloss.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    _idx.read(pathlib.Path({str(path)!r}), _idx.LABELS)
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, grown = done.stdout.splitlines()
    assert line == f"{path}: length: found more than 11 bytes, expected 11 (header and 3 uint8)"
    assert int(grown) < 8 << 10, "KiB"
