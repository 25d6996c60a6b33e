"""The folder of the user's in which compiled loops are kept between processes.

One entry for every state of all their source files together, numba and Python: a loop holds what it
calls of the other files, so code of an older state must never be found. Nothing here imports numba.
"""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

ENTRIES = 8  # kept: some checkouts, some versions of Python
LIMIT = 64 << 20  # bytes of all of them together
NAME = re.compile("[0-9a-f]{32}")


class Unusable(Exception):
    """There is no folder that can be written; the message says why."""


def folder() -> Path:
    """The folder of all entries, in $METALOSS_CACHE, else metaloss in $XDG_CACHE_HOME, else
    ~/.cache/metaloss.

    Raises:
        Unusable: nobody knows where the user's home is.
    """
    if chosen := os.environ.get("METALOSS_CACHE"):
        return Path(chosen).expanduser().absolute() / "compiled"
    if Path(shared := os.environ.get("XDG_CACHE_HOME", "")).is_absolute():
        return Path(shared) / "metaloss" / "compiled"
    try:
        return Path.home() / ".cache" / "metaloss" / "compiled"
    except RuntimeError:
        raise Unusable("there is no home folder") from None


def digest(sources: Iterable[Path], versions: Iterable[str]) -> str:
    """What names the entry of these source files under these versions."""
    total = hashlib.sha256(repr([*versions]).encode())
    for path in sorted(sources):
        data = path.read_bytes()
        total.update(f"{path.name} {len(data)}\n".encode() + data)
    return total.hexdigest()[:32]


@cache
def entry() -> Path:
    """The entry of this very code, made where it is new; what was used longest ago makes room for
    it.

    Raises:
        Unusable: it cannot be written.
    """
    sources = Path(__file__).parent.glob("*.py")
    versions = (sys.implementation.cache_tag or "", version("numba"), version("llvmlite"))
    place = folder()
    try:
        here = place / digest(sources, versions)
        here.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=here).close()
        os.utime(here)  # used now
    except OSError as error:
        raise Unusable(f"{place} cannot be written: {error.strerror or error}") from None
    make_room(place, here)
    return here


def is_filled() -> bool:
    """Whether loops that this very code needs have been compiled and kept before."""
    try:
        return any(entry().rglob("*.nbi"))  # numba's index of what it has compiled
    except (Unusable, OSError):
        return False


def make_room(place: Path, here: Path, entries: int = ENTRIES, limit: int = LIMIT) -> None:
    """Remove the entries used longest ago until so many are left, and so many bytes; nothing but
    entries, never fails.

    Args:
        place: the folder of all entries.
        here: the entry in use, which stays; where it alone is too large, it is emptied.
        entries: how many may stay.
        limit: bytes that they may have together.
    """
    with contextlib.suppress(OSError):
        others = [path for path in place.iterdir() if NAME.fullmatch(path.name) and path != here]
        others.sort(key=_used, reverse=True)
        total = size(here)
        if total > limit:
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(exist_ok=True)
            total = 0
        for number, path in enumerate(others, start=2):
            total += size(path)
            if number > entries or total > limit:
                shutil.rmtree(path, ignore_errors=True)


def size(place: Path) -> int:
    """Bytes of all files of a folder; those that another process removes meanwhile do not count."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
