"""Reader of the IDX format of MNIST (LeCun 1998), gzipped or plain, that trusts nothing in the file."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor

from metaloss.errors import DataError

# Magic numbers: element type in the third byte, number of axes in the last.
IMAGES = 0x0803  # 2051
LABELS = 0x0801  # 2049
INDEX = 0x0C01  # 3073

_DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}


def read(path: Path, magic: int) -> Integer[np.ndarray, "..."]:
    """The array in an IDX file that has to carry that magic number.

    Raises:
        DataError: One line that names file, field, found and expected.
    """
    data = _content(path)
    dtype, rank = _DTYPES[magic >> 8], magic & 0xFF
    header = 4 + 4 * rank
    if len(data) < header:
        raise DataError(f"{path}: header: found {len(data)} bytes, expected at least {header}")
    found = int.from_bytes(data[:4], "big")
    if found != magic:
        raise DataError(f"{path}: magic number: found {found}, expected {magic} ({dtype.name}, axes: {rank})")
    shape = tuple(int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1))
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        sizes = "x".join(map(str, shape))
        raise DataError(
            f"{path}: length: found {len(data)} bytes, expected {expected} (header and {sizes} {dtype.name})"
        )
    return np.frombuffer(data, dtype, offset=header).reshape(shape)


def pair(
    images: Path, labels: Path, classes: int = 10, size: tuple[int, int] = (28, 28)
) -> tuple[UInt8[Tensor, "N H W"], Int64[Tensor, " N"]]:
    """Images and their labels from two IDX files that have to agree.

    Args:
        images: File of the images.
        labels: File of the labels.
        classes: Labels have to be smaller.
        size: Height and width that every image has to have.

    Raises:
        DataError: One line that names file, field, found and expected.
    """
    x, y = read(images, IMAGES), read(labels, LABELS)
    if len(x) == 0:
        raise DataError(f"{images}: number of images: found 0, expected at least 1")
    if x.shape[1:] != size:
        raise DataError(f"{images}: image size: found {x.shape[1]}x{x.shape[2]}, expected {size[0]}x{size[1]}")
    if len(y) != len(x):
        raise DataError(f"{labels}: number of labels: found {len(y)}, expected {len(x)} as in {images.name}")
    if y.max() >= classes:
        raise DataError(f"{labels}: labels: found {y.max()} at position {y.argmax()}, expected 0 to {classes - 1}")
    # Copied: torch wants memory it may write, and bytes are constant.
    return torch.from_numpy(x.copy()), torch.from_numpy(y.astype(np.int64))


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: file: found none, expected an IDX file") from error
    except OSError as error:
        raise DataError(f"{path}: file: cannot be read ({error.strerror}), expected an IDX file") from error
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: gzip stream: found damage ({error}), expected a whole gzip file") from error
