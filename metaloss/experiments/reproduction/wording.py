"""The commands that run what is missing from a table, and what must be said of its cells."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.tables import flatten
from metaloss.experiments.reproduction.cells import Part, Place, Wish
from metaloss.experiments.reproduction.published import Row
from metaloss.training.settings import over, protocol

# Of `train`.
FLAGS = (
    "data",
    "model",
    "size",
    "epochs",
    "steps",
    "batch",
    "lr",
    "subset",
    "seeds",
    "seed",
    "device",
)
OUT = "trainings"  # where `metaloss train` makes its folders


def train(wish: Wish, part: Part, losses: Sequence[str]) -> str:
    """The command that trains these losses."""
    paper = flatten(protocol(wish.table.protocol))
    words = ["metaloss", "train", "--protocol", wish.table.protocol]
    for key, value in flatten(over(part.changes)).items():
        if key == "augment.kind":  # always named: it is what columns differ in
            words += ["--augment", value]
        elif paper.get(key) != value:
            words += ["--pretrained"] if key == "pretrained" and value else _option(key, value)
    words += ["--out", str(wish.parent)] if str(wish.parent) != OUT else []
    return shlex.join([*words, "--loss", *losses])


def resume(folder: Path) -> str:
    """The command that goes on with an interrupted training."""
    return shlex.join(["metaloss", "train", "--resume", str(folder)])


def again(name: str, wish: Wish) -> str:
    """The command that runs all that is asked for and missing."""
    words = ["metaloss", "reproduce", name, "--run"]
    if len(wish.places) < len(wish.table.columns):
        words += ["--column", *(place.column.name for place in wish.places)]
    if len(wish.rows) < len(wish.table.rows):
        words += ["--loss", *(row.name for row in wish.rows)]
    for key, value in flatten(dict(wish.changes)).items():
        words += (
            _option(key, value)
            if key in ("seeds", "device")
            else ["--set", f"{key}={_plain(value)}"]
        )
    words += ["--trainings", str(wish.parent)] if str(wish.parent) != OUT else []
    return shlex.join(words)


def _option(key: str, value: Any) -> list[str]:
    return [f"--{key}", str(value)] if key in FLAGS else ["--set", f"{key}={_plain(value)}"]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def remarks(rows: Sequence[Row], places: Sequence[Place]) -> dict[str, str]:
    """In what ours may differ from what was printed, by row and by column."""
    found: Mapping[str, str] = {row.name: row.remark for row in rows}
    found = {**found, **{place.column.name: place.column.differs for place in places}}
    return {name: text for name, text in found.items() if text}
