"""The folder is the registry: a genome, strategy or classifier is one file, and its name is the
file's.

The user's own folders and other packages are searched as the package's own folders are
(`metaloss.core.plugins`)."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from metaloss.core import hints, plugins
from metaloss.errors import SettingsError

DATA = ("task family", "data", "data source")  # of which a folder of images may be one
KINDS = {"genomes": "genome", "strategies": "strategy", "classifiers": "classifier"}


def names(kind: str) -> list[str]:
    """The names of one kind ("genomes", "strategies", "classifiers"), read off the folders; nothing is imported."""
    own = builtin_names(kind)
    return sorted([*own, *plugins.found(kind, own)])


def builtin_names(kind: str) -> list[str]:
    """The names of those that come with the package."""
    return plugins.files(plugins.builtin_folder(kind))


def part(kind: str, name: str) -> type:
    """The class that the file `<kind>/<name>.py` exports: the one name of its `__all__`.

    Raises:
        SettingsError: the name is not known, and the message says what is; or it is a plugin that
            does not work.
    """
    own = builtin_names(kind)
    others = plugins.found(kind, own)
    if name in others:
        return _plugin(others[name])
    if name not in own:
        raise plugins.UnknownPart(
            unknown_message(KINDS[kind], name, sorted([*own, *others]), f"metaloss list {kind}"),
            kind,
            name,
        )
    module = import_module(f"{plugins.PACKAGES[kind]}.{name}")
    return getattr(module, module.__all__[0])


def _plugin(plugin: plugins.Plugin) -> type:
    """The class of a plugin, which from now on goes by the plugin's name.

    Raises:
        SettingsError: there is no such class.
    """
    cls = plugin.load()
    if isinstance(cls, ModuleType):
        exported = getattr(cls, "__all__", None)
        given = "it has none" if exported is None else f"got {exported!r}"
        names = list(exported) if isinstance(exported, list | tuple) else []
        if len(names) != 1 or not hasattr(cls, names[0]):
            raise SettingsError(
                f"{plugin.origin}: __all__ must hold one name, the class of the part; {given}"
            )
        cls = getattr(cls, names[0])
    if not isinstance(cls, type):
        raise SettingsError(
            f"{plugin.origin}: a part is a class, got {cls!r}  (plugin {plugin.label})"
        )
    if lacking := sorted(
        _members(plugin.kind) - {*dir(cls), *getattr(cls, "__dataclass_fields__", ())}
    ):
        what = f"{cls.__name__} has no {', '.join(lacking)}"
        raise SettingsError(
            f"{plugin.origin}: {what}, which a {KINDS[plugin.kind]} needs  (plugin {plugin.label})"
        )
    _PLUGINS[cls] = plugin.name
    return cls


_PLUGINS: dict[type, str] = {}


def _members(kind: str) -> set[str]:
    """What every part of a kind has, by its protocol."""
    protocol = getattr(import_module(plugins.PACKAGES[kind]), KINDS[kind].capitalize())
    own = [cls for cls in protocol.__mro__ if cls.__module__.startswith("metaloss.")]
    return {
        name
        for cls in own
        for name in {**vars(cls), **cls.__annotations__}
        if not name.startswith("_")
    }


def build(kind: str, table: Mapping[str, Any], where: str = "settings") -> Any:
    """The part that a table `{"kind": name, setting: value, ...}` describes.

    Raises:
        SettingsError: no kind, unknown name or setting, or a value that cannot be.
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
    """A settings class filled from a table, with one line for what does not fit.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    for key in table:
        if key not in _fields(cls):
            raise SettingsError(f"{where}: " + unknown_message("setting", key, _fields(cls)))
    try:
        return TypeAdapter(cls).validate_python(dict(table))
    except ValidationError as error:
        raise SettingsError(f"{where}: {_line(cls, error.errors()[0])}") from None


def _line(cls: Any, first: Any) -> str:
    """What pydantic found, in the words of our own errors."""
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
            ".".join(map(str, path)) + ": " + unknown_message("setting", str(last[0]), _fields(cls))
        )
    where = ".".join(map(str, (*path, *last)))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "dataclass_type":  # pydantic would name a class of ours
        message = "Input should be a table of settings"
    given = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"{where + ': ' if where else ''}{message}{given}"


def _fields(cls: Any) -> list[str]:
    return [x.name for x in fields(cls)] if is_dataclass(cls) else list(cls.model_fields)


def unknown_message(what: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """The line for an unknown name: what it is, the nearest known one, where to look."""
    known = list(known)
    guess = suggestion(what, name, known) or f" Known: {', '.join(known)}."
    return f"unknown {what} '{name}'.{guess}" + (f"  ({hint})" if hint else "")


def suggestion(what: str, name: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown name of a kind, which another library may know; empty where none is near."""
    found = hints.folder(name) if what in DATA else hints.sentence(what, name)
    if found:
        return f" {found}"
    return nearest(hints.loss(name) if what == "loss" else name, known)


def nearest(name: str, known: Iterable[str]) -> str:
    """A question after the nearest known name; empty where none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def kind(part: Any) -> str:
    """The name that a part is built by: its module's, or its plugin's."""
    return _PLUGINS.get(type(part)) or type(part).__module__.rpartition(".")[2]


def table(part: Any) -> dict[str, Any]:
    """A part's settings as plain values; `build` makes the same part of them and its kind."""
    return dict(TypeAdapter(type(part)).dump_python(part, mode="json", exclude_none=True))


def files(folder: Path) -> list[str]:
    """The names of a folder's TOML files, one for each of a kind."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def headline(path: Path) -> str:
    """What the comment in a TOML file's first line says."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
