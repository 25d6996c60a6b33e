"""Durable storage of a run: after a kill, a full disk or a flipped bit, the last sound commit still loads.

A commit appends a line to the history and syncs it, and only then puts the new state in place. So the newest state
never knows more than the history, and recovery cuts the history back to what that state has seen. Whatever the disk
refuses is a `DiskError` that names the path and the reason.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from metaloss.errors import DamagedFile, DiskError, RunInUse

KEPT = 3  # states: one in use and two spares against damage
LINE_LIMIT = 4096  # bytes of a state's first line, and of the lock's note
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission (read-only)",
    errno.ENOENT: "missing parent folder",
}


@contextlib.contextmanager
def _disk(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise DiskError(f"cannot {action} {path}: {reason}") from error


def _append(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # one call may stop halfway
        rest = rest[os.write(file.fileno(), rest) :]
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a name that was just created or replaced in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def there(path: Path) -> bool:
    """Whether this is a file; False too for what cannot be a path: too long, or with a zero in it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, whole or not at all.

    Only where the last step fails, the folder's fsync, does an error leave the new content visible.
    """
    # The process id keeps two writers of one path out of each other's temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _disk("write", path):
        try:
            with temporary.open("wb", buffering=0) as file:
                _append(file, data)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


class Lock:
    """The right to write a run's folder, held by one process until it ends, however it ends.

    The lock is the kernel's. What the file says is for people, and is never trusted.

    Raises:
        RunInUse: On entering, at once, when another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"

    def __enter__(self) -> "Lock":
        with _disk("lock", self.path), contextlib.ExitStack() as stack:
            file = stack.enter_context(self.path.open("a+b", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunInUse(f"{self.path.parent} is in use by {_holder(file)}") from None
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            note = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            file.truncate(0)
            _append(file, json.dumps(note).encode() + b"\n")
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # The file stays: were it removed, two processes could each lock a file of that name.
        self._held.close()


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        note = json.loads(file.read(LINE_LIMIT))
        pid, host, started = (ascii(note[key]).strip("'")[:80] for key in ("pid", "host", "started"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another process"
    return f"pid {pid} on {host} since {started}"


def plain(value: Any) -> Any:
    """`value` as strict JSON can hold it: keys are text, and numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seal(record: dict[str, Any]) -> bytes:
    """`record` as one line that carries its own checksum."""
    checksum = hashlib.sha256(CANONICAL.encode(record).encode()).hexdigest()[:16]
    return CANONICAL.encode({**record, "sha256": checksum}).encode() + b"\n"


def _unseal(line: bytes, where: str) -> dict[str, Any]:
    """The record of a sealed line; one bit that differs from what `_seal` wrote is damage."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        record = {key: value for key, value in json.loads(line).items() if key != "sha256"}
        if _seal(record) == line:
            return record
    raise DamagedFile(f"{where} is damaged")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a file of one record, whole or not at all; it carries its own checksum."""
    write(path, _seal(plain(record)))


def read_record(path: Path) -> dict[str, Any]:
    """The record of such a file.

    Raises:
        DamagedFile: it does not check out.
    """
    with _disk("read", path):
        return _unseal(path.read_bytes(), str(path))


class History:
    """`history.jsonl` of a run, or another such file: one checksummed record per line, only ever appended to."""

    def __init__(self, folder: Path, name: str = "history.jsonl") -> None:
        self.path = folder / name

    @property
    def length(self) -> int:
        """Length of the file in bytes, 0 where there is none."""
        with _disk("read", self.path):
            return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: dict[str, Any]) -> None:
        """Add a record durably, or nothing at all; numbers that are not finite become null.

        Raises:
            ValueError: The record has a field "sha256", which the line needs for itself.
        """
        if "sha256" in record:
            raise ValueError(f'{self.path}: a record may not have a field "sha256"')
        line, length = _seal(plain(record)), self.length
        with _disk("write", self.path), self.path.open("ab", buffering=0) as file:
            try:
                _append(file, line)
                if not length:
                    _sync_folder(self.path.parent)
            except BaseException:
                with contextlib.suppress(OSError):  # `recover` cuts it off otherwise
                    os.ftruncate(file.fileno(), length)
                raise

    def read(self) -> list[dict[str, Any]]:
        """All records. A last line without its end is a commit under way or cut off, and is left out.

        Raises:
            DamagedFile: A line does not check out.
        """
        *lines, _unfinished = self._start(self.length).split(b"\n")
        return [_unseal(line + b"\n", f"{self.path}: line {number}") for number, line in enumerate(lines, start=1)]

    def mend(self) -> None:
        """Cut off a last line without its end, so that the next one begins on a line of its own."""
        self.truncate(self._start(self.length).rfind(b"\n") + 1)

    def truncate(self, length: int) -> None:
        """Cut the file back to its first `length` bytes, durably."""
        if length > self.length:
            raise ValueError(f"{self.path}: cannot cut {self.length} bytes back to {length}")
        if length < self.length:
            with _disk("write", self.path), self.path.open("r+b", buffering=0) as file:
                os.ftruncate(file.fileno(), length)
                os.fsync(file.fileno())

    def sha256(self, length: int) -> str:
        """Hash of the first `length` bytes."""
        return hashlib.sha256(self._start(length)).hexdigest()

    def _start(self, length: int) -> bytes:
        if not length:
            return b""
        with _disk("read", self.path), self.path.open("rb") as file:
            return file.read(length)


@dataclass(frozen=True)
class Checkpoint:
    """A state that checked out, the length of its history, and what was damaged on the way to it."""

    generation: int
    payload: bytes
    history_length: int
    warnings: tuple[str, ...] = ()


class Checkpoints:
    """The newest states of a run, in `checkpoint/`: each file a sealed line of JSON, then the payload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoint"

    def save(self, generation: int, payload: bytes, history: History) -> None:
        """Keep the state after `generation`, which belongs to the history as it stands now; then drop the oldest."""
        with _disk("write", self.folder):
            self.folder.mkdir(exist_ok=True)
            _sync_folder(self.folder.parent)
        header = _header(generation, payload, history, history.length)
        write(self.folder / f"state-{generation:06d}.safetensors", _seal(header) + payload)
        with _disk("remove old states from", self.folder):
            for old in [*(path for _, path in self._states()[KEPT:]), *self.folder.glob(".state-*.tmp")]:
                old.unlink()

    def newest(self, history: History) -> Checkpoint | None:
        """The newest state that checks out with `history`, with a warning for each damaged one; None where none is.

        Raises:
            DamagedFile: There are states, and all are damaged.
        """
        warnings: list[str] = []
        for generation, path in self._states():
            try:
                return replace(_open(path, generation, history), warnings=tuple(warnings))
            except DamagedFile as error:
                warnings.append(str(error))
        if warnings:
            raise DamagedFile(f"{self.folder}: no state checks out ({'; '.join(warnings)})")
        return None

    def _states(self) -> list[tuple[int, Path]]:
        """Generation and path, newest first."""
        found = ((re.fullmatch(r"state-([0-9]+)\.safetensors", p.name), p) for p in self.folder.glob("state-*"))
        return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _header(generation: int, payload: bytes, history: History, length: int) -> dict[str, Any]:
    return {
        "generation": generation,
        "history_length": length,
        "history_sha256": history.sha256(length),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }


def _open(path: Path, generation: int, history: History) -> Checkpoint:
    with _disk("read", path):
        data = path.read_bytes()
    end = data.find(b"\n", 0, LINE_LIMIT) + 1
    header, payload = _unseal(data[:end], f"{path}: line 1"), data[end:]
    length = header.get("history_length")
    if type(length) is not int or not 0 <= length <= history.length:
        raise DamagedFile(f"{path}: needs {length} bytes of {history.path.name}, which has {history.length}")
    expected = _header(generation, payload, history, length)
    if wrong := sorted(key for key in header | expected if header.get(key) != expected.get(key)):
        raise DamagedFile(f"{path}: {', '.join(wrong)} does not match")
    return Checkpoint(generation, payload, length)


def commit(folder: Path, generation: int, record: dict[str, Any], payload: bytes) -> None:
    """Store a finished generation: its history line, then its state. After an error, `recover` comes first."""
    history = History(folder)
    history.append(record)
    Checkpoints(folder).save(generation, payload, history)


def recover(folder: Path) -> Checkpoint | None:
    """The newest sound state, the history cut back to it; None where the run has not committed anything.

    Raises:
        DamagedFile: No state checks out; nothing was changed.
    """
    history = History(folder)
    checkpoint = Checkpoints(folder).newest(history)
    # The first commit leaves one line without a state at most; more of them means that the states were lost.
    if checkpoint is None and len(history.read()) > 1:
        raise DamagedFile(f"{folder / 'checkpoint'}: no state, but {history.path.name} holds several generations")
    history.truncate(checkpoint.history_length if checkpoint else 0)
    return checkpoint
