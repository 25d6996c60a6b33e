"""Files with one sealed record per line, to which lines are only appended."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaloss.core.reading import open_regular
from metaloss.errors import DamagedFile
from metaloss.storage.disk import append, disk, sync_folder
from metaloss.storage.seals import json_safe

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def seal_line(record: Mapping[str, Any]) -> bytes:
    """`record` as one line that carries its own checksum."""
    checksum = hashlib.sha256(CANONICAL.encode(record).encode()).hexdigest()[:16]
    return CANONICAL.encode({**record, "sha256": checksum}).encode() + b"\n"


def unseal_line(line: bytes, where: str) -> dict[str, Any]:
    """The record of a sealed line.

    Raises:
        DamagedFile: a bit differs from what `seal_line` wrote.
    """
    record = _record(line)
    if record is None:
        raise DamagedFile(f"{where} is damaged")
    return record


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a sealed line; None for any other line."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        record = {key: value for key, value in json.loads(line).items() if key != "sha256"}
        # Sealing it again compares every byte, not the digest alone.
        if seal_line(record) == line:
            return record
    return None


class History:
    """`history.jsonl` of a run, or another file of sealed lines.

    Attributes:
        path: of the file.
    """

    def __init__(self, folder: Path, name: str = "history.jsonl") -> None:
        self.path = folder / name

    @property
    def length(self) -> int:
        """Length of the file in bytes, 0 where there is none."""
        with disk("read", self.path):
            return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record durably, or nothing at all; numbers that are not finite become null.

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
                # Where this fails too, `recover` removes the unfinished line.
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), length)
                raise

    def read(self) -> list[dict[str, Any]]:
        """All records.

        A last line without its line break is a commit that was cut off or is being written, and is
        left out.

        Raises:
            DamagedFile: A line is damaged.
        """
        return self._records()[0]

    def mend(self) -> list[dict[str, Any]]:
        """All records; an unfinished last line is removed, so that the next one has its own line.

        Raises:
            DamagedFile: A line is damaged; nothing was changed.
        """
        records, length = self._records()
        self.truncate(length)
        return records

    def _records(self) -> tuple[list[dict[str, Any]], int]:
        """All records, and the length of their lines in bytes."""
        data = self._start(self.length)
        *lines, unfinished = data.split(b"\n")
        where = f"{self.path}: line"
        records = [
            unseal_line(line + b"\n", f"{where} {n}") for n, line in enumerate(lines, start=1)
        ]
        # Where a write was cut off, a part of the line is missing. A line that is complete except
        # for its last byte was damaged there.
        if _record(unfinished[:-1] + b"\n") is not None:
            raise DamagedFile(f"{where} {len(lines) + 1} is damaged")
        return records, len(data) - len(unfinished)

    def truncate(self, length: int) -> None:
        """Cut the file back to its first `length` bytes, durably.

        Raises:
            ValueError: The file is shorter.
        """
        if length > self.length:
            raise ValueError(f"{self.path}: cannot cut {self.length} bytes back to {length}")
        if length < self.length:
            with disk("write", self.path), self.path.open("r+b", buffering=0) as file:
                os.ftruncate(file.fileno(), length)
                os.fsync(file.fileno())

    def sha256(self, length: int) -> str:
        """SHA-256 of the first `length` bytes."""
        return hashlib.sha256(self._start(length)).hexdigest()

    def _start(self, length: int) -> bytes:
        if not length:
            return b""
        with disk("read", self.path), open_regular(self.path) as file:
            return file.read(length)
