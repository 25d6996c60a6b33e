"""Published tables as data: one TOML file each, whose first line says what it is.

The folder is the registry.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry
from metaloss.errors import SettingsError

TABLES = Path(__file__).parent / "tables"  # a TOML file each
Numbers = tuple[Annotated[float, Field()], ...]  # nan where nothing is printed


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class EpisodesTable:
    """A table of losses on few-shot tasks.

    Attributes:
        source: where it was read.
        printed: mean and standard deviation over tasks, by family and loss.
        evolved: the name under which the paper's own loss stands there.
        shipped: the loss that comes with the package for it.
        genome: what is evolved for it.
        tasks: how many the printed numbers are means of.
        note: what a reader must know to compare.
    """

    source: str
    printed: dict[str, dict[str, tuple[float, float]]]
    evolved: str
    shipped: str
    genome: str
    tasks: int
    note: str


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Column:
    """A column of a table: what its losses are trained under.

    Attributes:
        name: as `--column` takes it.
        settings: of `metaloss train`, over the protocol's.
        lacks: settings that there is no value for here, and why; who gives one can run the column.
        cannot: why it cannot be run at all.
        differs: in what ours departs, where no setting shows it.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    cannot: str = ""
    differs: str = ""


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Row:
    """A loss of a table.

    Attributes:
        name: as printed.
        loss: ours that it means; none where it cannot be run.
        cannot: why.
        remark: in what ours may differ from what was printed.
        mean, std: by column, as printed; empty where the paper prints none.
    """

    name: str
    loss: str = ""
    cannot: str = ""
    remark: str = ""
    mean: Numbers = ()
    std: Numbers = ()


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingsTable:
    """A table of losses in full-size trainings.

    Attributes:
        source, note: as those of `Episodes`.
        protocol: of `metaloss train`.
        columns, rows: of the table.
        n: how many runs the printed numbers are means of; 0 where it is not given.
        digits: that are printed behind the point.
        measure: "accuracy", in percent, or "iou", its mean over classes.
        against: the row that all others are printed as differences to, in points.
        parts: settings over which every cell is a mean; what all of them name is what tells them
            apart.
        order: the losses from the best on, where the paper prints no numbers.
    """

    source: str
    protocol: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    n: int = 0
    digits: int = 2
    measure: Literal["accuracy", "iou"] = "accuracy"
    against: str = ""
    parts: tuple[dict[str, Any], ...] = ({},)
    order: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for row in self.rows:
            if any(len(x) not in (0, len(self.columns)) for x in (row.mean, row.std)):
                raise ValueError(
                    f"row '{row.name}' needs a number for each of {len(self.columns)} columns"
                )
            # One of the two: a row that is left out without a word would look like an oversight.
            if bool(row.loss) == bool(row.cannot):
                raise ValueError(f"row '{row.name}' needs a loss, or a reason why it cannot be run")
        return self

    def printed(self, row: Row, column: Column) -> tuple[float | None, float | None]:
        """Mean and standard deviation of a cell; None where the paper has none."""
        place = self.columns.index(column)
        mean, std = (
            x[place] if x and not math.isnan(x[place]) else None for x in (row.mean, row.std)
        )
        return mean, std


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class CorrelationsTable:
    """A table of Kendall's τ between augmentations.

    Attributes:
        source, note, protocol: as those of `Trainings`.
        losses: how many there were.
        best: how many of them are the best.
        all: τ over all losses, by the first and the second augmentation.
        both: τ over those that are among the best under both.
    """

    source: str
    protocol: str
    note: str
    losses: int
    best: int
    all: dict[str, dict[str, float]]
    both: dict[str, dict[str, float]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Of augmentations, as printed."""
        return [(a, b) for a, others in self.all.items() for b in others]


Table = EpisodesTable | TrainingsTable | CorrelationsTable
KINDS: Mapping[str, type[Any]] = {
    "episodes": EpisodesTable,
    "trainings": TrainingsTable,
    "study": CorrelationsTable,
}


def names() -> list[str]:
    """The names of the tables, read off their folder."""
    return registry.files(TABLES)


def about(name: str) -> str:
    """A table's first line."""
    return registry.headline(TABLES / f"{name}.toml")


def read(name: str) -> Table:
    """A table by name.

    Raises:
        SettingsError: there is no such table.
    """
    if name not in names():
        raise SettingsError(
            registry.unknown_message("table", name, names(), "metaloss list tables")
        )
    table = tomllib.loads((TABLES / f"{name}.toml").read_text(encoding="utf-8"))
    table["note"] = " ".join(table["note"].split())
    published: Table = registry.from_table(
        KINDS[table.pop("kind", "trainings")], table, f"table {name}"
    )
    return published
