"""Reading of files that anybody may have written: only regular files, and only up to a limit.

Opening a FIFO would wait, a device never ends, and a small text can cause much work or a deep
stack. These functions refuse such files by an `OSError` or a `ValueError` whose message says what
was found and what was expected. The callers know what the file is for, and make one line of it.
"""

import contextlib
import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

TEXT_LIMIT = 1 << 18  # bytes of a settings file, a list of names and the like
TOML_DEPTH = 32  # tables and arrays within each other, and the parts of a dotted key

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# Strings and comments match as a whole, so that brackets and dots within them do not count.
_TOML_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""{1,3}|'
    r"'''.*?'''{1,3}|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'[^'\n]*'|#[^\n]*|[\[\]{}.,=\n]",
    re.DOTALL,
)


@contextlib.contextmanager
def open_regular(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """A regular file to be read, for a `with` block.

    Args:
        path: Of the file; links are followed.
        limit: Bytes that it may have; any number where None.

    Raises:
        OSError: It cannot be opened, is no regular file, or is larger than the limit. `strerror`
            says why.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        # Of the open file, not of its path: what the path names may change in between.
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
            raise OSError(errno.EINVAL, f"found {kind}, expected a regular file", str(path))
        if limit is not None and about.st_size > limit:
            raise _too_large(path, f"{about.st_size} bytes", limit)
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a FIFO at once too, and not when somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: As `open_regular`.
    """
    with open_regular(path, limit) as file:
        # One byte more than allowed, to notice a file that is too large.
        data = file.read(limit + 1)
    # The file grew meanwhile, or is one whose content the kernel makes while it is read.
    if len(data) > limit:
        raise _too_large(path, f"more than {limit} bytes", limit)
    return data


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """The text of a regular file in UTF-8, without the byte-order mark that some editors write.

    Raises:
        OSError: As `open_regular`.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        OSError: As `open_regular`.
        ValueError: It is not TOML, or nested too deeply.
    """
    return toml_table(read_text(path))


def toml_table(text: str) -> dict[str, Any]:
    """The table that a text in TOML means.

    Raises:
        ValueError: It is not TOML, or nested too deeply.
    """
    _check_toml_depth(text)
    return tomllib.loads(text)


def json_value(data: bytes | str) -> Any:
    """The value that a text in JSON means.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _too_large(path: Path, found: str, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"found {found}, expected at most {limit}", str(path))


def _check_toml_depth(text: str) -> None:
    """Refuse a text that is nested too deeply, before tomllib reads it.

    tomllib would run out of stack in nested values, and its time is quadratic in a key's parts.
    """
    depth = dots = 0
    for piece in _TOML_PIECE.finditer(text):
        mark = piece[0]
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        # Dots count within one key: they start anew at anything but a quoted part of it.
        dots = dots + 1 if mark == "." else dots if mark[0] in "\"'" else 0
        if depth > TOML_DEPTH or dots >= TOML_DEPTH:
            what = "tables and arrays" if depth > TOML_DEPTH else "the parts of a key"
            line = text.count("\n", 0, piece.start()) + 1
            raise ValueError(f"{what} are nested more than {TOML_DEPTH} deep (line {line})")
