"""A reader of the IDX format of MNIST (LeCun 1998), gzipped or plain.

It checks everything that the file states before it relies on it.
"""

import contextlib
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor

from metaloss.core import reading
from metaloss.errors import DataError

# Magic numbers: element type in the third byte, number of axes in the last.
IMAGES = 0x0803  # 2051
LABELS = 0x0801  # 2049
INDEX = 0x0C01  # 3073

LIMIT = 1 << 30  # bytes of an array; the largest of the MNIST family has 640 million

_DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}


def read(
    path: Path, magic: int, check: Callable[[tuple[int, ...]], None] = lambda shape: None
) -> Integer[np.ndarray, "..."]:
    """The array in an IDX file with that magic number.

    The header is read first, and then no more than it states: a small gzipped file can unpack to
    any number of zeros.

    Args:
        path: Of the file; its content is gzipped where its name ends in .gz.
        magic: The magic number, which states the type and the number of axes.
        check: Called with the shape that the header states, before the array is read; raises what
            is wrong with it.

    Raises:
        DataError: One line that names file, field, found and expected.
    """
    with _content(path) as file:
        dtype, shape = _header(path, file, magic)
        check(shape)
        sizes = f"{'x'.join(map(str, shape))} {dtype.name}"
        size = math.prod(shape) * dtype.itemsize
        if size > LIMIT:
            raise DataError(
                f"{path}: length: found a header of {sizes}, expected at most {LIMIT} bytes"
            )
        header = 4 + 4 * len(shape)
        expected = f"expected {header + size} (header and {sizes})"
        data = np.empty(size, dtype=np.uint8)
        if (filled := _fill(file, data.data)) < size:
            raise DataError(f"{path}: length: found {header + filled} bytes, {expected}")
        # Reading to its end also compares the check sum of a gzipped file.
        if file.read(1):
            raise DataError(f"{path}: length: found more than {header + size} bytes, {expected}")
    return data.view(dtype).reshape(shape)


def pair(
    images: Path, labels: Path, classes: int = 10, size: tuple[int, int] = (28, 28)
) -> tuple[UInt8[Tensor, "N H W"], Int64[Tensor, " N"]]:
    """Images and their labels from two IDX files, which must have the same length.

    Args:
        images: File of the images.
        labels: File of the labels.
        classes: Labels have to be smaller.
        size: Height and width that every image has to have.

    Raises:
        DataError: One line that names file, field, found and expected.
    """

    def check_images(shape: tuple[int, ...]) -> None:
        count, *actual = shape
        if count == 0:
            raise DataError(f"{images}: number of images: found 0, expected at least 1")
        if tuple(actual) != size:
            raise DataError(
                f"{images}: image size: found {actual[0]}x{actual[1]}, expected {size[0]}x{size[1]}"
            )

    x = read(images, IMAGES, check_images)

    def check_labels(shape: tuple[int, ...]) -> None:
        if shape[0] != len(x):
            raise DataError(
                f"{labels}: number of labels: found {shape[0]}, "
                f"expected {len(x)} as in {images.name}"
            )

    y = read(labels, LABELS, check_labels)
    if y.max() >= classes:
        raise DataError(
            f"{labels}: labels: found {y.max()} at position {y.argmax()}, "
            f"expected 0 to {classes - 1}"
        )
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def _header(path: Path, file: BufferedIOBase, magic: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type of an array's entries and its shape."""
    dtype = _DTYPES[magic >> 8]
    rank = magic & 0xFF
    size = 4 + 4 * rank
    data = file.read(size)
    if len(data) < size:
        raise DataError(f"{path}: header: found {len(data)} bytes, expected at least {size}")
    # Numbers are big-endian in this format, whatever the machine is.
    actual, *shape = np.frombuffer(data, ">u4").tolist()
    if actual != magic:
        raise DataError(
            f"{path}: magic number: found {actual}, expected {magic} ({dtype.name}, axes: {rank})"
        )
    return dtype, tuple(shape)


def _fill(file: BufferedIOBase, rest: memoryview) -> int:
    """Read a file into a buffer; the number of bytes that it had, at most the buffer's size."""
    size = len(rest)
    # One call may give fewer bytes than were asked for.
    while rest and (count := file.readinto(rest)):
        rest = rest[count:]
    return size - len(rest)


@contextlib.contextmanager
def _content(path: Path) -> Iterator[BufferedIOBase]:
    """A file's content, unpacked where its name ends in .gz; any error becomes a DataError."""
    try:
        with reading.open_regular(path) as file:
            if path.suffix != ".gz":
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
    except FileNotFoundError as error:
        raise DataError(f"{path}: file: found none, expected an IDX file") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: gzip stream: found damage ({error}), expected a whole gzip file"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: file: cannot be read ({error.strerror}), expected an IDX file"
        ) from error
