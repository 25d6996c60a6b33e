"""Texts and files that were tampered with, and a watch over what reading them does.

See also scripts/fuzz.py.
"""

import contextlib
import json
import re
import sys
from pathlib import Path

from metaloss import genomes
from metaloss.core import registry
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.errors import DamagedFile, SettingsError
from metaloss.losses.language.expression import TERMINALS
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES

WATCHED = (
    "exec",
    "compile",
    "import",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "marshal.",
    "code.",
    "shutil.",
    "tempfile.",
)
_listeners: list[list[tuple[str, str]]] = []


def _listen(event, args):
    """An audit hook cannot be removed; this one records events only while there is a listener."""
    if _listeners and event.startswith(WATCHED):
        _listeners[-1].append((event, str(args[0])[:200] if args else ""))


sys.addaudithook(_listen)


@contextlib.contextmanager
def watched():
    """Give a list of the events within the block.

    Events are code that is run or compiled, imports, files that are opened, and programs.
    """
    heard = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.pop()


GOOD = (
    "-y*logp",
    "mean(exp(2.4 - p - p*y) - cos(cos(sin(p))))",
    "sum(-y*logp, temperature=2)",
    "max(p, y)**-2",
)
PIECES = [
    *TERMINALS,
    *PRIMITIVES,
    "sum",
    "mean",
    "temperature",
    "+",
    "-",
    "*",
    "**",
    "/",
    "(",
    ")",
    "(",
    ")",
    ",",
    "=",
    "1",
    "2.5",
    "1e308",
    "1e-400",
    "0",
    "__import__('os').system('true')",
    "exec",
    "lambda",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    ";",
    "\\",
    "\n",
    "\0",
    "é",
    "\ud800",
    "eval(",
    "open('/etc/passwd')",
    ".",
    "__class__",
    "%s",
    "{0}",
    "#1",
]
DECENT = 66  # the first pieces: those that a loss is made of


def texts(rng, n):
    """Random bytes, random pieces, and losses that were tampered with."""
    for i in range(n):
        if i % 4 == 0:
            yield rng.randbytes(rng.randrange(40)).decode("latin-1")
        elif i % 4 == 1:
            text = rng.choice(GOOD)
            at = rng.randrange(len(text))
            yield text[:at] + rng.choice(PIECES) + text[at + rng.randrange(3) :]
        elif i % 16 == 3:  # nearly right: one piece is another
            pieces = re.findall(r"\w+|\W", rng.choice(GOOD))
            pieces[rng.randrange(len(pieces))] = rng.choice(PIECES[:DECENT])
            yield "".join(pieces)
        else:
            pieces = PIECES[:DECENT] if i % 4 == 2 else PIECES
            yield rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randrange(1, 15)))


EVIL = (
    "os.system",
    "__import__('os')",
    "../../evil",
    "/etc/passwd",
    "\x1b[2J\n",
    "\ud800",
    "x" * 5000,
)
VALUES = (
    None,
    True,
    0,
    -1,
    1.0,
    10**30,
    float("nan"),
    "",
    "mln",
    "formula",
    "p",
    [],
    [1],
    {},
    {"kind": "mln"},
    *EVIL,
)
KEYS = (
    "format",
    "kind",
    "formula",
    "genome",
    "about",
    "weights",
    "__reduce__",
    "py/object",
    "import",
    "\x1b",
)


def files(rng, n):
    """Files loss.json: changed, missing, added bytes; other entries; other formulas."""
    for i in range(n):
        formula = next(texts(rng, 2)) if i % 3 == 0 else rng.choice(GOOD)
        about = {"name": "x", "accuracy": 0.5}
        table = {"format": 1, "kind": "formula", "formula": formula, "about": about}
        if i % 3 == 1:
            for _ in range(rng.choice((1, 1, 2))):
                # What is said about a loss may be anything; of the other entries hardly one may be.
                (table if rng.random() < 0.5 else about)[rng.choice(KEYS)] = rng.choice(VALUES)
            table.pop(rng.choice(KEYS), None) if rng.random() < 0.2 else None
        data = bytearray(json.dumps(table).encode())
        if i % 3 == 2:
            for _ in range(rng.choice((1, 1, 3))):
                at = rng.randrange(len(data))
                data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            data = data[: rng.choice((len(data), len(data), rng.randrange(len(data))))]
        yield bytes(data)


def read_text(text):
    """Whether the parser reads a text, which then prints and reads back.

    It may refuse it and do nothing else.
    """
    try:
        formula = Formula.parse(text)
    except SettingsError as error:
        # Refusing the text is one of two right outcomes, so `pytest.raises` does not fit.
        plain = all(c.isprintable() and c.isascii() for c in str(error).replace("\n", ""))
        assert plain, (text, error)
        return False
    assert Formula.parse(str(formula)) == formula, text
    return True


def quietly_read_text(text):
    """The same, and nothing may happen."""
    with watched() as heard:
        read = read_text(text)
    assert heard == [], (text, heard)
    return read


def read_file(folder, data):
    """Whether a folder with this loss.json is read as a loss.

    It may be refused in a line and nothing else.
    """
    (folder / "loss.json").write_bytes(data)
    with watched() as heard:
        try:
            read = isinstance(loss_io.load(folder), Criterion)
        except DamagedFile as error:
            # Refusing the file is one of two right outcomes, so `pytest.raises` does not fit.
            line = str(error)
            assert line.isprintable(), data
            assert len(line) < len(str(folder)) + 600, (data, error)
            read = False
    own = {("open", str(folder / name)) for name in ("loss.json", "weights.safetensors")}
    own.add(("os.listdir", str(Path(genomes.__file__).parent)))  # which kinds there are
    assert set(heard) <= own, (data, heard)
    return read


def warm(folder):
    """Everything that is loaded on first use is loaded now."""
    for text in ("-y*logp", "q", "q(", "$", "1e999"):
        read_text(text)
    kinds = [{"kind": kind, "genome": {}} for kind in ("unknown", *registry.names("genomes"))]
    for table in ({"kind": "formula"}, {"kind": "mln", "genome": {"features": 0}}, *kinds):
        (folder / "loss.json").write_text(
            json.dumps({"format": 1, "formula": "q", "about": {}, **table})
        )
        with contextlib.suppress(DamagedFile):
            loss_io.load(folder)
