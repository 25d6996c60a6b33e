"""Features, labels and names from one file: an `.npz` without pickles, or a `.safetensors`.

Such a file comes from anywhere, so its sizes are checked before anything is unpacked, nothing is
unpickled, and values that are no finite numbers are refused.
"""

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metaloss.core import registry
from metaloss.core.formatting import counted
from metaloss.core.reading import json_value, open_regular, read_bytes
from metaloss.errors import DataError

LIMIT = (1 << 31) - 1  # bytes of a file, and of all its arrays unpacked
HEADER_LIMIT = 64 << 20  # bytes of a safetensors header, which may hold many names
WIDEST = 1 << 16  # features of an image
FIELDS = ("features", "labels", "classes", "names", "test")
# What ends a zip archive: its signature, 6 bytes, numbers of entries, the size of their list, …
_END = b"PK\x05\x06"
_END_SIZE = 22
_LIST_LIMIT = 1 << 16  # bytes of an archive's list of entries


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """What such a file holds.

    Attributes:
        path: of the file.
        features: one row an image.
        labels: the class of each row, a position in `classes`; None where the file has none.
        classes: their names.
        names: of the images that the rows belong to; empty where the file has none.
        test: True for rows of an official test split.
    """

    path: Path
    features: Float[Tensor, "N D"]
    labels: Int64[Tensor, " N"] | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    test: Bool[Tensor, " N"]


def read_arrays(path: Path) -> ArrayFile:
    """The arrays of a file, checked.

    Raises:
        DataError: it is missing, damaged or too large, or an array is not what it should be; the
            message names the file, the array, what was found and what was expected.
    """
    readers = {".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise DataError(f"{path}: found '{path.suffix}', expected a file .npz or .safetensors")
    try:
        arrays = readers[path.suffix](path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    # Unpacking raises zipfile's, zlib's, numpy's and safetensors' own errors, and more.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path}: found no readable {path.suffix} ({reason}), expected one with the array "
            "features, and labels or names"
        ) from None
    for name in arrays:
        if name not in FIELDS:
            raise DataError(f"{path}: {registry.unknown_message('array', name, FIELDS)}")
    return _checked(path, arrays)


def _checked(path: Path, arrays: Mapping[str, Any]) -> ArrayFile:
    features = _features(path, arrays.get("features"))
    n = len(features)
    labels, classes = _labels(path, arrays.get("labels"), arrays.get("classes"), n)
    names = _texts(path, "names", arrays.get("names"), n)
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"{path}: names: found {twice!r} twice, expected each once")
    test = arrays.get("test", np.zeros(n, dtype=bool))
    if test.dtype != bool or test.shape != (n,):
        raise DataError(f"{path}: test: found {_about(test)}, expected bool [{n}], one a row")
    return ArrayFile(path, features, labels, classes, names, torch.from_numpy(test.copy()))


def _features(path: Path, array: Any) -> Float[Tensor, "N D"]:
    if array is None:
        raise DataError(f"{path}: found no array features, expected one [rows, numbers of each]")
    shape_fits = array.ndim == 2 and len(array) > 0 and 0 < array.shape[1] <= WIDEST
    if array.dtype.kind not in "fiub" or not shape_fits:
        raise DataError(
            f"{path}: features: found {_about(array)}, expected numbers "
            f"[rows, 1 to {WIDEST} of each]"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{path}: features: found {counted(len(bad), 'value')} that are not finite in 32 bits "
            f"(the first is {array[row, column]}, in row {row}, column {column}), expected numbers"
        )
    return values


def _labels(
    path: Path, labels: Any, classes: Any, n: int
) -> tuple[Int64[Tensor, " N"] | None, tuple[str, ...]]:
    """The rows' classes as positions, and the classes' names."""
    if labels is None:
        if classes is not None:
            raise DataError(f"{path}: found classes without labels, expected both or neither")
        return None, ()
    if labels.shape != (n,) or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{path}: labels: found {_about(labels)}, expected whole numbers or text [{n}], one a "
            "row of features"
        )
    if classes is None:
        # Whatever numbers or names there are: each is a class.
        values, positions = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in values)
    else:
        names = _texts(path, "classes", classes, len(classes))
        positions = _positions(path, labels, names)
    if len(names) < 2:
        raise DataError(
            f"{path}: labels: found {counted(len(names), 'class')}, expected at least 2"
        )
    return torch.from_numpy(positions.astype(np.int64)), names


def _positions(path: Path, labels: Any, names: tuple[str, ...]) -> Any:
    """Labels as positions among the names of the classes."""
    if labels.dtype.kind != "U":
        low = int(labels.min())
        high = int(labels.max())
        if low < 0 or high >= len(names):
            raise DataError(
                f"{path}: labels: found {low if low < 0 else high}, expected 0 to {len(names) - 1} "
                f"for {len(names)} classes"
            )
        return labels
    place = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(labels.tolist()) - place.keys())
    if unknown:
        raise DataError(f"{path}: labels: found {unknown[0]!r}, which is not among the classes")
    return np.array([place[label] for label in labels.tolist()])


def _texts(path: Path, field: str, array: Any, n: int) -> tuple[str, ...]:
    if array is None:
        return ()
    if array.dtype.kind != "U" or array.shape != (n,):
        raise DataError(f"{path}: {field}: found {_about(array)}, expected text [{n}]")
    return tuple(array.tolist())


def _about(array: Any) -> str:
    kind = "text" if array.dtype.kind == "U" else str(array.dtype)
    return f"{kind} {list(array.shape)}"


# --- .npz ---


def _npz(path: Path) -> dict[str, Any]:
    with open_regular(path, LIMIT) as stream:
        _check_end(path, stream)
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > LIMIT:
                raise DataError(
                    f"{path}: found {total} bytes of arrays, expected at most {LIMIT}; float16 "
                    "takes half of float32"
                )
            return {
                entry.filename.removesuffix(".npy"): _npy(archive.read(entry)) for entry in entries
            }


def _check_end(path: Path, stream: io.BufferedReader) -> None:
    """Refuse an archive whose list of entries is long, before it is read into memory."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _END_SIZE))
    end = stream.read(_END_SIZE)
    stream.seek(0)
    if end[:4] != _END or int.from_bytes(end[12:16], "little") > _LIST_LIMIT:
        raise DataError(
            f"{path}: found no archive of a few arrays, expected what numpy.savez writes"
        )


def _npy(data: bytes) -> Any:
    """An array from the bytes of an `.npy`; nothing is unpickled."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = header(stream)
    if dtype.hasobject:
        raise ValueError("an array of objects, which would have to be unpickled")
    length = math.prod(shape)
    if length * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"{len(data) - stream.tell()} bytes for {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, length, stream.tell())
    return array.reshape(shape, order="F" if fortran else "C")


# --- .safetensors ---


def _safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a file, and the texts that its metadata holds as lists in JSON."""
    from safetensors.torch import load

    data = read_bytes(path, LIMIT)
    size = int.from_bytes(data[:8], "little")
    if size > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"a header of {size} bytes in a file of {len(data)}")
    metadata = json_value(data[8 : 8 + size]).get("__metadata__", {})
    arrays = {
        # numpy has no bfloat16.
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in load(data).items()
    }
    for name in ("classes", "names"):
        if name in metadata:
            texts = json_value(metadata[name])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"metadata {name}: no list of texts in JSON")
            arrays[name] = np.array(texts, dtype=str)
    return arrays
