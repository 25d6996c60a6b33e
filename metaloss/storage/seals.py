"""Files that contain their own digest, so that a single changed bit is noticed.

The digest is the SHA-256 of all other bytes of the file. It lies within the file, so that the two
always belong together, even after a kill: in JSON as the last field, in TOML as a comment in the
last line, in safetensors in the metadata, and after the content of any other file. So every other
program can still read each of these formats.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloss.core.reading import json_value, open_regular, toml_table
from metaloss.errors import DamagedFile
from metaloss.storage.disk import append, disk, sync_folder, write

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 64
# The bytes before and after the digits of the digest.
JSON = (b'\n "sha256": "', b'"\n}\n')
TOML = (b'# sha256 = "', b'"\n')
TENSORS = b'{"__metadata__":{"sha256":"'  # after the eight bytes of the header's length
TRAILER = (b"\nsha256 ", b"\n")
NOTE = (
    b"# A run goes on from this file as it is: "
    b"change a copy, and begin a new one from that with --config.\n"
)
# What to do about a damaged file: one that a resumed run makes again, and any other.
REMAKE = "restore it from a copy, or remove it, and it is made again"
RESTORE_COPY = "restore it from a copy"


def json_safe(value: Any) -> Any:
    """`value` as strict JSON allows it: keys are text, and numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_bytes(table: Mapping[str, Any]) -> bytes:
    """A table as indented JSON without a digest; numbers that are not finite become null."""
    return json.dumps(json_safe(dict(table)), indent=1).encode() + b"\n"


def record_bytes(table: Mapping[str, Any]) -> bytes:
    """A table as indented JSON with its digest; numbers that are not finite become null.

    Raises:
        ValueError: the table has a field "sha256", which the file needs for itself.
    """
    if "sha256" in table:
        raise ValueError('a sealed file may not have a field "sha256" of its own')
    text = json.dumps({**json_safe(dict(table)), "sha256": ""}, indent=1).encode() + b"\n"
    return _sealed(text.removesuffix(JSON[1]), JSON[1])


def toml_bytes(table: Mapping[str, Any]) -> bytes:
    """A table as TOML, with its digest."""
    import tomli_w

    return _sealed(tomli_w.dumps(table).encode() + b"\n" + NOTE + TOML[0], TOML[1])


def tensor_bytes(tensors: Mapping[str, "Tensor"]) -> bytes:
    """Tensors as safetensors, with their digest."""
    from safetensors.torch import save  # imports torch

    data = save(
        {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()},
        {"sha256": "0" * DIGITS},
    )
    at = 8 + len(TENSORS)
    assert data[8:at] == TENSORS
    return _sealed(data[:at], data[at + DIGITS :])


def read_record(path: Path, kind: Any = dict, remedy: str = REMAKE) -> Any:
    """The content of a sealed JSON file.

    Args:
        path: of the file.
        kind: a type that the table must fit, as `validated` takes it.
        remedy: what to do where the file is damaged.

    Raises:
        DamagedFile: it is missing or damaged, or its content does not fit the type.
    """
    data = _checked(path, *JSON, remedy)
    try:
        table = json_value(data)
        del table["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    return typed_table(path, table, kind)


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a sealed TOML file.

    Raises:
        DamagedFile: it is missing or damaged.
    """
    remedy = f"restore it, or begin a new one from it with --config {path}"
    try:
        return toml_table(_checked(path, *TOML, remedy).decode())
    except ValueError as error:
        raise DamagedFile(f"{path}: not TOML: {error}") from None


def read_tensors(path: Path, remedy: str = RESTORE_COPY) -> dict[str, "Tensor"]:
    """The tensors of a sealed safetensors file.

    Raises:
        DamagedFile: it is missing or damaged.
    """
    from safetensors.torch import load  # imports torch

    data = _read(path, remedy)
    at = 8 + len(TENSORS)
    if data[8:at] != TENSORS or _sealed(data[:at], data[at + DIGITS :]) != data:
        raise DamagedFile(_damaged(path, remedy))
    try:
        return load(data)
    except Exception as error:  # safetensors has errors of its own
        raise DamagedFile(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


def is_sealed(data: bytes) -> bool:
    """Whether these are the bytes of a sealed JSON file."""
    return _sound(data, *JSON)


def seal_file(written: Path, path: Path) -> None:
    """Move a file that another program wrote to its place, with its digest as a last line.

    Args:
        written: where the file is now.
        path: where it belongs, in the same file system.
    """
    with disk("write", path):
        with written.open("r+b", buffering=0) as file:
            line = _sealed(TRAILER[0], TRAILER[1], hashlib.file_digest(file, "sha256"))
            file.seek(0, os.SEEK_END)
            append(file, line)
        written.replace(path)
        sync_folder(path.parent)


def check_file(path: Path, remedy: str = REMAKE) -> None:
    """Check a file that `seal_file` sealed.

    Raises:
        DamagedFile: it is missing or damaged.
    """
    _checked(path, *TRAILER, remedy)


def sha256(data: bytes) -> str:
    """The digest of these bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def typed_table(path: Path, table: Any, kind: Any, place: str = "") -> Any:
    """A table from a file as an object of a type, which pydantic checks.

    For a dataclass an object of it is made; a mapping is returned as it is.

    Args:
        path: of the file.
        table: what it holds.
        kind: the type.
        place: of the table in the file, where the file holds more than it.

    Raises:
        DamagedFile: it does not fit.
    """
    from pydantic import ValidationError  # slow to import

    try:
        typed = _adapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(filter(None, [place, ".".join(map(str, first["loc"]))])) or "all of it"
        raise DamagedFile(f"{path} is damaged: {where}: {first['msg'].lower()}") from None
    return table if isinstance(typed, dict) else typed


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _sealed(before: bytes, after: bytes, digest: Any = None) -> bytes:
    """Both parts with their digest between them.

    Args:
        before: the bytes in front of the digest.
        after: the bytes behind it.
        digest: a SHA-256 that already includes whatever precedes `before`; None: nothing does.
    """
    digest = digest or hashlib.sha256()
    digest.update(before + after)
    digits: bytes = digest.hexdigest().encode()
    return before + digits + after


def _checked(path: Path, before: bytes, after: bytes, remedy: str) -> bytes:
    """The bytes of a file whose last part is its digest between `before` and `after`."""
    data = _read(path, remedy)
    if not _sound(data, before, after):
        raise DamagedFile(_damaged(path, remedy))
    return data


def _sound(data: bytes, before: bytes, after: bytes) -> bool:
    """Whether the bytes end with their own digest between `before` and `after`."""
    head = data[: max(len(data) - len(after) - DIGITS, 0)]
    return head.endswith(before) and _sealed(head, after) == data


def _read(path: Path, remedy: str) -> bytes:
    """The bytes of a file; a DamagedFile where it is missing."""
    with disk("read", path):
        try:
            with open_regular(path) as file:
                return file.read()
        except (FileNotFoundError, IsADirectoryError):
            raise DamagedFile(f"{path} is missing: {remedy}") from None


def _damaged(path: Path, remedy: str) -> str:
    fault = "is damaged or was changed after it was written, its digest does not match"
    return f"{path} {fault}: {remedy}"


def write_record(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as sealed JSON, whole or not at all."""
    write(path, record_bytes(table))


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as sealed TOML, whole or not at all."""
    write(path, toml_bytes(table))


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write tensors as sealed safetensors, whole or not at all."""
    write(path, tensor_bytes(tensors))
