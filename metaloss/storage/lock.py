"""The lock of a folder: one process at a time writes to it."""

import contextlib
import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import IO

from metaloss.errors import RunInUse
from metaloss.storage.disk import append, disk

NOTE_LIMIT = 4096  # bytes of the lock's note that are read


class Lock:
    """The right to write to a run's folder, which one process has until it ends, however it ends.

    The operating system keeps the lock. The text in the file is for people, and nothing relies on
    it.

    Raises:
        RunInUse: On entering, at once, where another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"

    def __enter__(self) -> "Lock":
        with disk("lock", self.path), contextlib.ExitStack() as stack:
            file = stack.enter_context(self.path.open("a+b", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunInUse(f"{self.path.parent} is in use by {_holder(file)}") from None
            # A note for other processes that find the folder in use.
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            note = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            file.truncate(0)
            append(file, json.dumps(note).encode() + b"\n")
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # The file stays. If it were removed, two processes could each lock a file of that name.
        self._held.close()


def _holder(file: IO[bytes]) -> str:
    """The process that has the lock, as its note says; "another process" where it says nothing."""
    file.seek(0)
    try:
        note = json.loads(file.read(NOTE_LIMIT))
        pid, host, started = (
            ascii(note[key]).strip("'")[:80] for key in ("pid", "host", "started")
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another process"
    return f"pid {pid} on {host} since {started}"
