"""Settings as tables: merged, and given one by one on the command line."""

from collections.abc import Container, Mapping
from typing import Any

from metaloss.core import reading
from metaloss.errors import SettingsError


def split_settings(
    table: Mapping[str, Any], names: Container[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of a table that have one of these names, and all others."""
    named = {key: value for key, value in table.items() if key in names}
    return named, {key: value for key, value in table.items() if key not in names}


def merge_tables(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """One table of several; where two have the same key, the later one decides.

    Tables within them are merged in the same way. Where the later one names another `kind` of part,
    it replaces the earlier one whole: the settings of one kind mean nothing to another.
    """
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            earlier = result.get(key)
            if (
                isinstance(value, Mapping)
                and isinstance(earlier, Mapping)
                and value.get("kind") in (None, earlier.get("kind"))
            ):
                result[key] = merge_tables(earlier, value)
            else:
                result[key] = value
    return result


def parse_assignment(text: str) -> dict[str, Any]:
    """The table that `path.to.setting=value` means; the value is TOML, or else plain text.

    >>> parse_assignment("inner.lr=0.3")
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
