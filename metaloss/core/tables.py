"""Tables and long lines as text, cut to a terminal where there is one."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core.formatting import printable_row

INDENT = 8  # under the label that a line begins with


def wrap(text: str, width: int | None, indent: int = INDENT) -> str:
    """A text cut at spaces into lines of a terminal's width, the rest indented.

    Args:
        text: one line.
        width: of the terminal; None: the text stays as it is.
        indent: of the lines after the first.

    >>> print(wrap("tasks   one two three four", 25))
    tasks   one two three
            four
    """
    if width is None or len(text) <= width:
        return text
    # In a narrow terminal a deep indent would leave no room for the text.
    indent = indent if width > 3 * indent else 2
    parts = textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(parts)


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """A table's lines, the heading first.

    Columns for which a terminal is too narrow follow below, beside the first column again.

    >>> table([["loss", "lr", "F1"], ["mse", "0.5", ".46"]], 10)
    ['loss  lr', 'mse   0.5', '', 'loss  F1', 'mse   .46']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = [[0]]
    for number in range(1, len(widths)):
        used = sum(widths[i] + 2 for i in blocks[-1])
        if width is not None and len(blocks[-1]) > 1 and used + widths[number] > width:
            blocks.append([0])
        blocks[-1].append(number)
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        lines += ["  ".join(f"{row[i]:{widths[i]}}" for i in block).rstrip() for row in rows]
    return lines


def record_table(rows: Sequence[Mapping[str, str]], width: int | None = None) -> list[str]:
    """The lines of a table whose columns are the keys of all rows, but those that are empty.

    >>> record_table([{"loss": "ce", "lr": ""}, {"loss": "mse", "steps": "20"}])
    ['loss  steps', 'ce', 'mse   20']
    """
    return table(record_cells(rows), width)


def record_cells(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The cells of that table, its heading first."""
    columns = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(name) for row in rows)
    ]
    return [columns, *([row.get(name, "") for name in columns] for row in rows)]


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table, whose keys are joined by dots."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        result |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return result


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table as the bytes of a CSV file, whose columns are the keys of all rows.

    A cell stays empty where a row lacks the column, or has None there.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    # By default csv ends its lines as Windows does.
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(printable_row, rows))
    return text.getvalue().encode()
