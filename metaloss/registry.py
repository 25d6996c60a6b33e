"""The folder is the registry: a genome, strategy or classifier is one file, and its name is the file's."""

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metaloss.errors import SettingsError

KINDS = ("genomes", "strategies", "classifiers")


def names(kind: str) -> list[str]:
    """The names of one kind ("genomes", "strategies", "classifiers"), read off the folder; nothing is imported."""
    folder = Path(__file__).parent / kind
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_"))


def part(kind: str, name: str) -> type:
    """The class that the file `metaloss/<kind>/<name>.py` exports: the one name of its `__all__`.

    Raises:
        SettingsError: the name is not known; the message says what is.
    """
    if name not in names(kind):
        raise SettingsError(
            unknown(
                {"classifiers": "classifier", "strategies": "strategy"}.get(kind, kind[:-1]),
                name,
                names(kind),
                f"metaloss list {kind}",
            )
        )
    module = import_module(f"metaloss.{kind}.{name}")
    return getattr(module, module.__all__[0])


def build(kind: str, table: Mapping[str, Any], where: str = "settings") -> Any:
    """The part that a table `{"kind": name, setting: value, ...}` describes.

    Raises:
        SettingsError: no kind, unknown name or setting, or a value that cannot be.
    """
    if "kind" not in table:
        raise SettingsError(f"{where}: needs a kind, one of {', '.join(names(kind))}")
    cls = part(kind, str(table["kind"]))
    return validated(cls, {k: v for k, v in table.items() if k != "kind"}, where)


def validated(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    """A settings class filled from a table, with one line for what does not fit.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    known = getattr(cls, "model_fields", None) or cls.__dataclass_fields__
    for key in table:
        if key not in known:
            raise SettingsError(f"{where}: " + unknown("setting", key, known))
    try:
        return TypeAdapter(cls).validate_python(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(x) for x in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
        raise SettingsError(f"{where}: {path + ': ' if path else ''}{message}{given}") from None


def unknown(what: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """The line for an unknown name: what it is, the nearest known one, where to look."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."
    return f"unknown {what} '{name}'.{guess}" + (f"  ({hint})" if hint else "")
