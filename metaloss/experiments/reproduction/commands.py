"""The commands that run what is missing from a table, and what must be said of its cells."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.tables import flatten
from metaloss.experiments.reproduction.cells import CellSpec, ColumnRun, Request
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


def train(request: Request, spec: CellSpec, losses: Sequence[str]) -> str:
    """The command that trains these losses."""
    # What the protocol says already need not be named.
    paper = flatten(protocol(request.table.protocol))
    words = ["metaloss", "train", "--protocol", request.table.protocol]
    for key, value in flatten(over(spec.changes)).items():
        if key == "augment.kind":  # always named: it is what columns differ in
            words += ["--augment", value]
        elif paper.get(key) != value:
            words += ["--pretrained"] if key == "pretrained" and value else _option(key, value)
    words += ["--out", str(request.parent)] if str(request.parent) != OUT else []
    return shlex.join([*words, "--loss", *losses])


def resume(folder: Path) -> str:
    """The command that goes on with an interrupted training."""
    return shlex.join(["metaloss", "train", "--resume", str(folder)])


def again(name: str, request: Request) -> str:
    """The command that runs all that is asked for and missing."""
    words = ["metaloss", "reproduce", name, "--run"]
    if len(request.column_runs) < len(request.table.columns):
        words += ["--column", *(column_run.column.name for column_run in request.column_runs)]
    if len(request.rows) < len(request.table.rows):
        words += ["--loss", *(row.name for row in request.rows)]
    for key, value in flatten(dict(request.changes)).items():
        words += (
            _option(key, value)
            if key in ("seeds", "device")
            else ["--set", f"{key}={_plain(value)}"]
        )
    words += ["--trainings", str(request.parent)] if str(request.parent) != OUT else []
    return shlex.join(words)


def _option(key: str, value: Any) -> list[str]:
    return [f"--{key}", str(value)] if key in FLAGS else ["--set", f"{key}={_plain(value)}"]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def remarks(rows: Sequence[Row], column_runs: Sequence[ColumnRun]) -> dict[str, str]:
    """In what ours may differ from what was printed, by row and by column."""
    texts: Mapping[str, str] = {row.name: row.remark for row in rows}
    texts = {
        **texts,
        **{column_run.column.name: column_run.column.differs for column_run in column_runs},
    }
    return {name: text for name, text in texts.items() if text}
