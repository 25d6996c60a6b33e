"""The terminal: text in whatever encoding it has, cut to its width.

Output into a pipe or a file stays plain.
"""

import codecs
import json
import os
import shutil
import sys
import unicodedata
from typing import Any

import click

from metaloss.core.formatting import printable
from metaloss.core.tables import INDENT, wrap

# What is read as well where an encoding lacks the character.
ASCII = {
    "−": "-",
    "–": "-",
    "—": "-",
    "·": ".",
    "…": "...",
    "×": "x",
    "±": "+/-",
    "Δ": "D",
    "τ": "tau",
    "σ": "sigma",
    "μ": "mu",
    "λ": "lambda",
    "α": "alpha",
    "γ": "gamma",
    "ε": "eps",
    "ξ": "xi",
    "φ": "phi",
    "θ": "theta",
    "Σ": "sum",
    "√": "sqrt",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "²": "^2",
    "³": "^3",
    "₀": "0",
    "₁": "1",
    "ß": "ss",
    "━": "-",
    "╸": "-",
    "╺": "-",
}


def set_up() -> None:
    """Let no character stop a line: what an encoding lacks is written in its nearest ASCII."""
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="readable")


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    # NFKD parts letters from their accents, which ASCII then leaves out.
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return ASCII.get(character) or plain or "?"


def echo(text: str, indent: int = INDENT) -> None:
    """Print lines, each cut to the terminal's width and what does not fit indented so far."""
    width = width_of(sys.stdout)
    raw("\n".join(wrap(line, width, indent) for line in _lines(text)))


def _lines(text: str) -> list[str]:
    """A text's lines without control characters.

    Paths and names of classes may come from strangers, and a terminal would obey what they hold.
    """
    return [printable(line) for line in text.split("\n")]


def raw(text: str) -> None:
    """Print text as it is, for a program or a file to read.

    Unlike `click.echo`, in the stream's own encoding.
    """
    print(text, flush=True)


def echo_json(value: Any) -> None:
    """Print a value as JSON."""
    raw(json.dumps(value, indent=1))


def warn(text: str) -> None:
    """Print on stderr: the first line is cut to the terminal's width, the others stay as they are.

    The others show a place in the first one, so they must keep their columns.
    """
    first, *others = _lines(text)
    print("\n".join([wrap(first, width_of(sys.stderr)), *others]), file=sys.stderr, flush=True)


def width_of(stream: Any) -> int | None:
    """A terminal's width in characters; None for what is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def note(text: str) -> None:
    """Say something from within a signal's handler, above a bar that may stand on the line."""
    # Back to the line's start, and clear it: a bar may have left half of it written.
    start = "\r\x1b[2K" if os.isatty(2) else ""
    # Not print: a handler may interrupt another print, whose buffer takes no second caller.
    os.write(2, f"{start}{text}\n".encode("ascii", "replace"))


class Readable(click.Command):
    """A command whose help can be printed in any encoding: click writes UTF-8 even into ASCII."""

    def get_help(self, ctx: click.Context) -> str:
        """The help, with what the terminal can show."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return super().get_help(ctx).encode(encoding, "readable").decode(encoding)


class Group(Readable, click.Group):
    """A group of such commands."""
