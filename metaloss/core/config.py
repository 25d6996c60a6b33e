"""Settings as tables: laid over each other, and given one by one on the command line."""

from collections.abc import Mapping
from typing import Any

from metaloss.core import reading
from metaloss.errors import SettingsError


def merge_tables(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, the later one on top; another kind of part drops the earlier part's settings."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            old = result.get(key)
            if (
                isinstance(value, Mapping)
                and isinstance(old, Mapping)
                and value.get("kind") in (None, old.get("kind"))
            ):
                result[key] = merge_tables(old, value)
            else:
                result[key] = value
    return result


def parse_assignment(text: str) -> dict[str, Any]:
    """The table that `path.to.setting=value` means; the value in TOML's syntax, or else plain text.

    >>> assignment("inner.lr=0.3")
    {'inner': {'lr': 0.3}}

    Raises:
        SettingsError: there is no `=`, or the path has too many parts.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or path.count(".") >= reading.TOML_DEPTH:
        raise SettingsError(f"--set takes path.to.setting=value, got '{text[:200]}'")
    try:
        table: Any = reading.toml_table(f"value = {value}")["value"]
    except ValueError:
        table = value.strip()
    for name in reversed(path.strip().split(".")):
        table = {name: table}
    return dict(table)
