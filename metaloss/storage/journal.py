"""Files of one sealed record per line, which are only ever appended to."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from metaloss.core.reading import open_regular
from metaloss.errors import DamagedFile
from metaloss.storage.disk import append, disk, sync_folder
from metaloss.storage.seals import json_safe

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def seal_line(record: dict[str, Any]) -> bytes:
    """`record` as one line that carries its own checksum."""
    checksum = hashlib.sha256(CANONICAL.encode(record).encode()).hexdigest()[:16]
    return CANONICAL.encode({**record, "sha256": checksum}).encode() + b"\n"


def unseal_line(line: bytes, where: str) -> dict[str, Any]:
    """The record of a sealed line; one bit that differs from what `seal_line` wrote is damage."""
    record = _record(line)
    if record is None:
        raise DamagedFile(f"{where} is damaged")
    return record


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a sealed line; None of any other line."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        record = {key: value for key, value in json.loads(line).items() if key != "sha256"}
        if seal_line(record) == line:
            return record
    return None


class History:
    """`history.jsonl` of a run, or another such file: one checksummed record per line, only ever appended to."""

    def __init__(self, folder: Path, name: str = "history.jsonl") -> None:
        self.path = folder / name

    @property
    def length(self) -> int:
        """Length of the file in bytes, 0 where there is none."""
        with disk("read", self.path):
            return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: dict[str, Any]) -> None:
        """Add a record durably, or nothing at all; numbers that are not finite become null.

        Raises:
            ValueError: The record has a field "sha256", which the line needs for itself.
        """
        if "sha256" in record:
            raise ValueError(f'{self.path}: a record may not have a field "sha256"')
        line = seal_line(json_safe(record))
        length = self.length
        with disk("write", self.path), self.path.open("ab", buffering=0) as file:
            try:
                append(file, line)
                if not length:
                    sync_folder(self.path.parent)
            except BaseException:
                with contextlib.suppress(OSError):  # `recover` cuts it off otherwise
                    os.ftruncate(file.fileno(), length)
                raise

    def read(self) -> list[dict[str, Any]]:
        """All records. A last line without its end is a commit under way or cut off, and is left
        out.

        Raises:
            DamagedFile: A line does not check out.
        """
        return self._records()[0]

    def mend(self) -> list[dict[str, Any]]:
        """All records; a last line without its end is cut off, so that the next one begins on a
        line of its own.

        Raises:
            DamagedFile: A line does not check out; nothing was changed.
        """
        records, length = self._records()
        self.truncate(length)
        return records

    def _records(self) -> tuple[list[dict[str, Any]], int]:
        """All records, and the length of their lines."""
        data = self._start(self.length)
        *lines, unfinished = data.split(b"\n")
        where = f"{self.path}: line"
        records = [
            unseal_line(line + b"\n", f"{where} {n}") for n, line in enumerate(lines, start=1)
        ]
        # Of a line that was cut off a part is left. One that is whole, but for its end, was damaged
        # there.
        if _record(unfinished[:-1] + b"\n") is not None:
            raise DamagedFile(f"{where} {len(lines) + 1} is damaged")
        return records, len(data) - len(unfinished)

    def truncate(self, length: int) -> None:
        """Cut the file back to its first `length` bytes, durably."""
        if length > self.length:
            raise ValueError(f"{self.path}: cannot cut {self.length} bytes back to {length}")
        if length < self.length:
            with disk("write", self.path), self.path.open("r+b", buffering=0) as file:
                os.ftruncate(file.fileno(), length)
                os.fsync(file.fileno())

    def sha256(self, length: int) -> str:
        """Hash of the first `length` bytes."""
        return hashlib.sha256(self._start(length)).hexdigest()

    def _start(self, length: int) -> bytes:
        if not length:
            return b""
        with disk("read", self.path), open_regular(self.path) as file:
            return file.read(length)
