"""What `reproduce` gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from metaloss.experiments.comparison import Report


@dataclass(frozen=True)
class ReproducedTable:
    """A published table beside ours.

    Attributes:
        rows: one table for every cell, or of episodes for every family and loss: what is printed,
            and ours.
        missing: what was not run, with the reason, or the command that runs it.
        note: what a reader must know to compare.
        source: where the table was read.
        text: the tables as lines.
        details: what else there is to say of it, as values for JSON.
        report: of episodes, the comparison that ours comes from.
    """

    rows: list[dict[str, Any]]
    missing: dict[str, str]
    note: str
    source: str
    text: Sequence[str]
    details: dict[str, Any] = field(default_factory=dict)
    report: Report | None = None

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return {
            "rows": self.rows,
            "missing": self.missing,
            "note": self.note,
            "source": self.source,
            **self.details,
        }
