"""The mean cost of an answer, by a matrix that says what each mistake costs."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from pydantic_core import ArgsKwargs
from torch import Tensor

from metaloss.core import reading
from metaloss.errors import SettingsError
from metaloss.inner.metrics._counting import CountingMetric
from metaloss.inner.metrics._shared import ratio

__all__ = ["Cost"]

Number = Annotated[float, Field(allow_inf_nan=False)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Cost(CountingMetric):
    """What an image costs on average.

    Attributes:
        matrix: what it costs to give an image of each class (row) each class as its answer
            (column), in the order of the data set's classes; or the path of a CSV file, which may
            name the classes in its first line and column, in any order. Where empty, every mistake
            costs 1.
        names: of the classes, in the order of the matrix; where empty, the data set's.
    """

    matrix: tuple[tuple[Number, ...], ...] = ()
    names: tuple[str, ...] = ()

    title: ClassVar[str] = "cost"
    maximise: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """The settings with the matrix that a path names.

        A run's settings hold the numbers, so that it needs the file no more.
        """
        table = given
        if isinstance(given, ArgsKwargs):
            table = {
                **dict(zip(("matrix", "names"), given.args, strict=False)),
                **(given.kwargs or {}),
            }
        if isinstance(table, Mapping) and isinstance(table.get("matrix"), str | Path):
            matrix, names = read_matrix(Path(table["matrix"]))
            table = {"names": names, **table, "matrix": matrix}
        return table

    def __post_init__(self) -> None:
        """Check that matrix and names fit each other."""
        size = len(self.matrix)
        if wrong := [len(row) for row in self.matrix if len(row) != size]:
            raise ValueError(
                f"matrix: expected as many columns as rows, {size}, got a row of {wrong[0]}"
            )
        if self.names and (len(self.names) != size or len(set(self.names)) != size):
            raise ValueError(
                f"names: expected {size} different ones, one for each row of the matrix, got "
                f"{', '.join(self.names)}"
            )

    @property
    def names_classes(self) -> bool:
        """Whether there is a matrix."""
        return bool(self.matrix)

    def failed(self) -> float:
        """The dearest answer."""
        return max(map(max, self.matrix), default=1.0)

    def guess(self, ways: int) -> float:
        """The mean over the matrix."""
        return sum(map(sum, self.matrix)) / len(self.matrix) ** 2 if self.matrix else 1 - 1 / ways

    def negligible(self, ways: int) -> float:
        """A fiftieth of what lies between the cheapest answers and guesses."""
        cheapest = sum(map(min, self.matrix)) / len(self.matrix) if self.matrix else 0.0
        return (self.guess(ways) - cheapest) / 50

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric with its matrix in the order of these classes.

        Raises:
            SettingsError: the matrix is not one of these classes.
        """
        if not self.matrix:
            return self
        if len(self.matrix) != len(names):
            raise SettingsError(
                f"metric: matrix: expected {len(names)} rows and columns, one for each class of "
                f"the data set, got {len(self.matrix)}"
            )
        if not self.names:
            return self
        if unknown := sorted(set(self.names) - set(names)):
            raise SettingsError(
                f"metric: matrix: the data set has no class '{unknown[0]}', but {', '.join(names)}"
            )
        order = [self.names.index(name) for name in names]
        matrix = tuple(tuple(self.matrix[i][j] for j in order) for i in order)
        return replace(self, matrix=matrix, names=tuple(names))

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """Σ cost · counts / images.

        Raises:
            ValueError: a task has a class for which the matrix has no row.
        """
        costs = self.mistake_costs(classes)
        if costs is None:
            costs = classes[:, :, None] != classes[:, None]
        return ratio((counts * costs.to(counts)).sum((-2, -1)), counts.sum((-2, -1)))

    def mistake_costs(self, classes: Int[Tensor, "T C"]) -> Float[Tensor, "T C C"] | None:
        """The matrix's numbers between the classes of each task; None where there is no matrix.

        Raises:
            ValueError: a task has a class for which the matrix has no row.
        """
        if not self.matrix:
            return None
        if int(classes.max()) >= len(self.matrix):
            raise ValueError(
                f"class {int(classes.max())} has no row in a matrix of {len(self.matrix)}"
            )
        matrix = torch.tensor(self.matrix, device=classes.device)
        return matrix[classes[:, :, None], classes[:, None]]


def read_matrix(path: Path) -> tuple[list[list[float]], list[str]]:
    """The numbers of a CSV file, and the classes' names where its first line and column hold them.

    Raises:
        ValueError: it cannot be read, or is no square of numbers; the message says where.
    """
    try:
        lines = reading.read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise ValueError(f"matrix: {path}: {reason}; expected a CSV file of numbers") from None
    rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"matrix: {path}: empty; expected a CSV file of numbers")
    names: list[str] = []
    # Names may be numbers themselves, so that the corner alone tells.
    if not _is_number(rows[0][0]):
        header = [cell.strip() for cell in rows[0][1:]]
        names = [row[0].strip() for row in rows[1:]]
        if header != names:
            raise ValueError(
                f"matrix: {path}: expected the classes of the first line, {', '.join(header)}, "
                f"down the first column, got {', '.join(names)}"
            )
        rows = [row[1:] for row in rows[1:]]
    for row in rows:
        if wrong := [cell for cell in row if not _is_number(cell)]:
            raise ValueError(f"matrix: {path}: expected numbers, got '{wrong[0].strip()}'")
    return [[float(cell) for cell in row] for row in rows], names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
