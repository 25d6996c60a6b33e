"""The user's cache folder, in which compiled loops are kept between processes.

They have one entry for every state of all source files together, of numba and of Python. The code
of a loop contains the functions that it calls in the other files, so code of an older state of any
of them must never be found. Nothing here imports numba.
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
    """The cache folder cannot be written; the message says why."""


def folder(kind: str = "compiled") -> Path:
    """The folder of all entries of a kind: by default of compiled loops.

    It lies in $METALOSS_CACHE, else in metaloss of $XDG_CACHE_HOME, else in ~/.cache/metaloss.

    Raises:
        Unusable: the user has no home folder.
    """
    if cache_home := os.environ.get("METALOSS_CACHE"):
        return Path(cache_home).expanduser().absolute() / kind
    if Path(shared := os.environ.get("XDG_CACHE_HOME", "")).is_absolute():
        return Path(shared) / "metaloss" / kind
    try:
        return Path.home() / ".cache" / "metaloss" / kind
    except RuntimeError:
        raise Unusable("there is no home folder") from None


def digest(sources: Iterable[Path], versions: Iterable[str]) -> str:
    """The name of the entry for these source files and these versions."""
    total = hashlib.sha256(repr([*versions]).encode())
    for path in sorted(sources):
        data = path.read_bytes()
        total.update(f"{path.name} {len(data)}\n".encode() + data)
    return total.hexdigest()[:32]


@cache
def entry() -> Path:
    """The folder of the entry for the present state of the code; made where there is none.

    Entries that were used longest ago are removed to make room.

    Raises:
        Unusable: it cannot be written.
    """
    sources = Path(__file__).parent.rglob("*.py")
    versions = (sys.implementation.cache_tag or "", version("numba"), version("llvmlite"))
    root = folder()
    try:
        here = root / digest(sources, versions)
        here.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=here).close()
        os.utime(here)  # `make_room` goes by the time of the last use
    except OSError as error:
        raise Unusable(f"{root} cannot be written: {error.strerror or error}") from None
    make_room(root, here)
    return here


def is_filled(file: str = "*") -> bool:
    """Whether loops of the present state of the code, of this file, were compiled and kept."""
    try:
        return any(entry().rglob(f"{file}.*.nbi"))  # numba's index of what it has compiled
    except (Unusable, OSError):
        return False


def make_room(root: Path, here: Path, entries: int = ENTRIES, limit: int = LIMIT) -> None:
    """Remove the entries used longest ago until at most so many, with so many bytes, are left.

    Only entries are removed. An error of the disk is ignored: the cache saves time, no more.

    Args:
        root: the folder of all entries.
        here: the entry in use, which stays; where it alone is too large, it is emptied.
        entries: how many may stay.
        limit: bytes that they may have together.
    """
    with contextlib.suppress(OSError):
        others = [path for path in root.iterdir() if NAME.fullmatch(path.name) and path != here]
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


def size(folder: Path) -> int:
    """Bytes of all files of a folder; a file that another process just removed counts as none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
