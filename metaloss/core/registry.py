"""The registry is the folder: a genome, strategy, classifier or metric is one file of its name.

The user's own folders and other packages are searched as the package's own folders are
(`metaloss.core.plugins`).
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from metaloss.core import plugins, suggestions
from metaloss.errors import SettingsError

DATA = ("task family", "data", "data source")  # of which a folder of images may be one
KINDS = {
    "genomes": "genome",
    "strategies": "strategy",
    "classifiers": "classifier",
    "metrics": "metric",
}


def names(kind: str) -> list[str]:
    """The names of all parts of a kind, from the folders; no part is imported.

    Args:
        kind: "genomes", "strategies", "classifiers" or "metrics".
    """
    builtin = builtin_names(kind)
    return sorted([*builtin, *plugins.find(kind, builtin)])


def builtin_names(kind: str) -> list[str]:
    """The names of the parts of a kind that come with the package."""
    return plugins.files(plugins.builtin_folder(kind))


def part(kind: str, name: str) -> type:
    """The class that the file `<kind>/<name>.py` exports: the one name of its `__all__`.

    Raises:
        SettingsError: the name is not known, and the message says what is; or it is a plugin that
            does not work.
    """
    builtin = builtin_names(kind)
    others = plugins.find(kind, builtin)
    if name in others:
        return _plugin(others[name])
    if name not in builtin:
        raise plugins.UnknownPart(
            unknown_message(
                KINDS[kind], name, sorted([*builtin, *others]), f"metaloss list {kind}"
            ),
            kind,
            name,
        )
    module = import_module(f"{plugins.PACKAGES[kind]}.{name}")
    exported: type = getattr(module, module.__all__[0])
    return exported


def _plugin(plugin: plugins.Plugin) -> type:
    """The class of a plugin, which from now on goes by the plugin's name.

    Raises:
        SettingsError: there is no such class.
    """
    cls = plugin.load()
    if isinstance(cls, ModuleType):
        exported = getattr(cls, "__all__", None)
        actual = "it has none" if exported is None else f"got {exported!r}"
        names = list(exported) if isinstance(exported, list | tuple) else []
        if len(names) != 1 or not hasattr(cls, names[0]):
            raise SettingsError(
                f"{plugin.origin}: __all__ must hold one name, the class of the part; {actual}"
            )
        cls = getattr(cls, names[0])
    if not isinstance(cls, type):
        raise SettingsError(
            f"{plugin.origin}: a part is a class, got {cls!r}  (plugin {plugin.label})"
        )
    # Names alone: what they do is up to the plugin.
    if lacking := sorted(
        _members(plugin.kind) - {*dir(cls), *getattr(cls, "__dataclass_fields__", ())}
    ):
        what = f"{cls.__name__} has no {', '.join(lacking)}"
        raise SettingsError(
            f"{plugin.origin}: {what}, which a {KINDS[plugin.kind]} needs  (plugin {plugin.label})"
        )
    _PLUGINS[cls] = plugin.name
    return cls


_PLUGINS: dict[type, str] = {}  # classes of plugins that were loaded, with the plugin's name


def _members(kind: str) -> set[str]:
    """The names of the attributes and methods that the protocol of a kind asks for."""
    protocol = getattr(import_module(plugins.PACKAGES[kind]), KINDS[kind].capitalize())
    protocols = [cls for cls in protocol.__mro__ if cls.__module__.startswith("metaloss.")]
    return {
        name
        for cls in protocols
        for name in {**vars(cls), **cls.__annotations__}
        if not name.startswith("_")
    }


def build(kind: str, table: Mapping[str, Any], where: str = "settings") -> Any:
    """The part that a table `{"kind": name, setting: value, ...}` describes.

    Args:
        kind: "genomes", "strategies", "classifiers" or "metrics".
        table: of settings.
        where: the table stands, for messages.

    Raises:
        SettingsError: no kind, an unknown name or setting, or a value that is not allowed.
    """
    if "kind" not in table:
        raise SettingsError(f"{where}: needs a kind, one of {', '.join(names(kind))}")
    try:
        cls = part(kind, str(table["kind"]))
    except plugins.UnknownPart as error:
        text = str(error) if where in KINDS.values() else f"{where}: {error}"
        raise plugins.UnknownPart(text, error.kind, error.name) from None
    return from_table(cls, {k: v for k, v in table.items() if k != "kind"}, where)


def from_table(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    """An object of a settings class, made from a table of settings.

    Raises:
        SettingsError: one line that names the setting, its value and what is allowed.
    """
    # Before pydantic, whose message about an unknown key suggests no other name.
    for key in table:
        if key not in _fields(cls):
            message = unknown_message("setting", key, _fields(cls), value=table[key])
            raise SettingsError(f"{where}: {message}")
    try:
        return TypeAdapter(cls).validate_python(dict(table))
    except ValidationError as error:
        raise SettingsError(f"{where}: {_line(cls, error.errors()[0])}") from None


def _line(cls: Any, first: Any) -> str:
    """The first error that pydantic found, as one line in the words of our own errors."""
    path: list[str | int] = []
    for name in first["loc"][:-1]:
        members = {member.__name__: member for member in get_args(cls) if isinstance(member, type)}
        # One of several classes, which is no step of the path that a user writes.
        if name in members:
            cls = members[name]
            continue
        path.append(name)
        cls = get_args(cls)[0] if isinstance(name, int) else get_type_hints(cls).get(str(name), cls)
    last = first["loc"][-1:]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return (
            ".".join(map(str, path))
            + ": "
            + unknown_message("setting", str(last[0]), _fields(cls), value=first["input"])
        )
    where = ".".join(map(str, (*path, *last)))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("dataclass_type", "model_type"):  # pydantic would name a class of ours
        message = "Input should be a table of settings"
    if first["type"] == "dict_type":
        message = "Input should be a table"
        message += f", as {where}.kind={first['input']}" if isinstance(first["input"], str) else ""
    if first["type"] == "missing" and (choices := _choices(cls, str(last[0]))):
        message += f", one of {', '.join(choices)}"
    value = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"{where + ': ' if where else ''}{message}{value}"


def _choices(cls: Any, field: str) -> list[str]:
    """The values that a field can have, where it names all of them."""
    hint = get_type_hints(cls).get(field) if isinstance(cls, type) else None
    return [str(x) for x in get_args(hint)] if get_origin(hint) is Literal else []


def _fields(cls: Any) -> list[str]:
    return [x.name for x in fields(cls)] if is_dataclass(cls) else list(cls.model_fields)


def unknown_message(
    what: str, name: str, known: Iterable[str], hint: str = "", value: object = None
) -> str:
    """The message for an unknown name: the nearest known name, or all of them.

    Args:
        what: kind of name it is.
        name: as it was written.
        known: names.
        hint: where to look, in brackets at the end.
        value: that a setting was given.
    """
    known = list(known)
    guess = suggestion(what, name, known, value) or f" Known: {', '.join(known)}."
    return f"unknown {what} '{name}'.{guess}" + (f"  ({hint})" if hint else "")


def suggestion(what: str, name: str, known: Iterable[str], value: object = None) -> str:
    """A sentence on what to write instead of an unknown name; empty where no name is near.

    Names of other libraries are known, too.
    """
    advice = suggestions.folder(name) if what in DATA else suggestions.sentence(what, name, value)
    if advice:
        return f" {advice}"
    return nearest(suggestions.loss(name) if what == "loss" else name, known)


def nearest(name: str, known: Iterable[str]) -> str:
    """The question whether the nearest known name was meant; empty where none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def kind(part: Any) -> str:
    """The name under which `build` makes a part: that of its module, or of its plugin."""
    return _PLUGINS.get(type(part)) or type(part).__module__.rpartition(".")[2]


def table(part: Any) -> dict[str, Any]:
    """A part's settings as plain values, from which, with its kind, `build` makes it again."""
    return dict(TypeAdapter(type(part)).dump_python(part, mode="json", exclude_none=True))


def files(folder: Path) -> list[str]:
    """The names of a folder's TOML files, one for each of a kind."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def headline(path: Path) -> str:
    """The text of the comment in the first line of a TOML file."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
