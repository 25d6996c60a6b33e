"""The states of a run, each with the part of the history that belongs to it.

A commit first appends to the history and syncs it, and then puts the new state in place. So the
history always reaches at least as far as the newest state, and recovery cuts it back to that
state.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloss.core.reading import open_regular
from metaloss.errors import DamagedFile
from metaloss.storage.disk import disk, sync_folder, write
from metaloss.storage.journal import History, seal_line, unseal_line

KEPT = 3  # states: the newest and two older ones, in case of damage
HEADER_LIMIT = 4096  # bytes of a state's first line


@dataclass(frozen=True)
class Checkpoint:
    """A state that passed its checks.

    Attributes:
        generation: after which it was stored.
        payload: the state.
        history_length: bytes of the history that belong to it.
        warnings: one for each newer state that is damaged.
    """

    generation: int
    payload: bytes
    history_length: int
    warnings: tuple[str, ...] = ()


class Checkpoints:
    """The newest states of a run, in its folder `checkpoint/`.

    Each file is a sealed line of JSON, then the payload.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoint"

    def save(self, generation: int, payload: bytes, history: History) -> None:
        """Store the state after `generation`, for the history as it is now; remove the oldest."""
        with disk("write", self.folder):
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)
        # The history's digest goes with the state: recovery checks that the two belong together.
        header = _header(generation, payload, history, history.length)
        write(self.folder / f"state-{generation:06d}.safetensors", seal_line(header) + payload)
        with disk("remove old states from", self.folder):
            # Temporary files are what a kill during a write left behind.
            surplus = [path for _, path in self._states()[KEPT:]]
            for path in [*surplus, *self.folder.glob(".state-*.tmp")]:
                path.unlink()

    def newest(self, history: History) -> Checkpoint | None:
        """The newest state that is sound and fits `history`, with a warning for each damaged one.

        None where there is no state.

        Raises:
            DamagedFile: There are states, and all are damaged.
        """
        warnings: list[str] = []
        # An older state is better than none: the search repeats what came after it.
        for generation, path in self._states():
            try:
                return replace(_open(path, generation, history), warnings=tuple(warnings))
            except DamagedFile as error:
                warnings.append(str(error))
        if warnings:
            raise DamagedFile(f"{self.folder}: no state checks out ({'; '.join(warnings)})")
        return None

    def _states(self) -> list[tuple[int, Path]]:
        """Generation and path of all states, newest first."""
        matches = (
            (re.fullmatch(r"state-([0-9]+)\.safetensors", p.name), p)
            for p in self.folder.glob("state-*")
        )
        return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _header(generation: int, payload: bytes, history: History, length: int) -> dict[str, Any]:
    """The first line of a state's file, as a table."""
    return {
        "generation": generation,
        "history_length": length,
        "history_sha256": history.sha256(length),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }


def _open(path: Path, generation: int, history: History) -> Checkpoint:
    """The state in a file; a DamagedFile unless it is sound and fits the history."""
    with disk("read", path), open_regular(path) as file:
        data = file.read()
    end = data.find(b"\n", 0, HEADER_LIMIT) + 1
    header = unseal_line(data[:end], f"{path}: line 1")
    payload = data[end:]
    length = header.get("history_length")
    if type(length) is not int or not 0 <= length <= history.length:
        raise DamagedFile(
            f"{path}: needs {length} bytes of {history.path.name}, which has {history.length}"
        )
    expected = _header(generation, payload, history, length)
    if wrong := sorted(key for key in header | expected if header.get(key) != expected.get(key)):
        against = f" {history.path}" if "history_sha256" in wrong else ""
        raise DamagedFile(f"{path}: {', '.join(wrong)} does not match{against}")
    return Checkpoint(generation, payload, length)


def commit(folder: Path, generation: int, record: Mapping[str, Any], payload: bytes) -> None:
    """Store a finished generation: its line of the history, then its state.

    After an error, call `recover` before the next commit.

    Args:
        folder: of the run.
        generation: its number.
        record: its line of the history.
        payload: the state after it.
    """
    history = History(folder)
    # In this order: a state must never know of a line that is not on disk.
    history.append(record)
    Checkpoints(folder).save(generation, payload, history)


def recover(folder: Path) -> Checkpoint | None:
    """The newest sound state; the history is cut back to it.

    None where the run has not committed anything.

    Raises:
        DamagedFile: All states are damaged; nothing was changed.
    """
    history = History(folder)
    checkpoint = Checkpoints(folder).newest(history)
    # The first commit leaves one line without a state at most; more of them means that the states
    # were lost.
    if checkpoint is None and len(history.read()) > 1:
        raise DamagedFile(
            f"{folder / 'checkpoint'}: no state, but {history.path.name} holds several generations"
        )
    history.truncate(checkpoint.history_length if checkpoint else 0)
    return checkpoint
