"""Parts that do not come with the package: from the user's own folders and from other packages.

A folder holds `genomes/`, `strategies/`, `classifiers/`, `metrics/` or `datasets/`, with one file
for each part, as the package's own folders do. Another package offers its parts under the entry
points `metaloss.genomes` and so on.
"""

import contextlib
import functools
import hashlib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from metaloss.errors import SettingsError

VARIABLE = "METALOSS_PLUGINS"  # folders, with os.pathsep between them
_command_line: list[str] = []  # folders that this command line names
PACKAGES = {
    "genomes": "metaloss.genomes",
    "strategies": "metaloss.strategies",
    "classifiers": "metaloss.inner.classifiers",
    "metrics": "metaloss.inner.metrics",
    "datasets": "metaloss.data.datasets",
}
KINDS = tuple(PACKAGES)
ROOT = Path(__file__).parents[1]  # of the package
HINT = f"--plugins PATH or {VARIABLE} names a folder of your own"


class UnknownPart(SettingsError):
    """There is no part of this kind and name."""

    def __init__(self, message: str, kind: str, name: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


@dataclass(frozen=True)
class Plugin:
    """One part, from a folder of the user or from another package.

    Attributes:
        kind: a name of `KINDS`.
        name: of the part.
        path: its file, where it lies in a folder.
        entry_point: where another package offers it.
    """

    kind: str
    name: str
    path: Path | None = None
    entry_point: EntryPoint | None = None

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        if self.entry_point is None:
            return str(self.path)
        package = self.entry_point.dist
        return f"{package.name} {package.version}" if package else self.entry_point.value

    def load(self) -> Any:
        """The module that the file is, or what the entry point names.

        Raises:
            SettingsError: it cannot be imported; the message names file and line.
        """
        try:
            return (
                _module(self.kind, self.name, self.path)
                if self.path
                else self._entry_point().load()
            )
        # A user's module may raise anything while it is imported.
        except Exception as error:
            raise SettingsError(
                f"{_place(error, self.path)}: {_one_line(error)}  (plugin {self.label})"
            ) from None

    def source(self) -> Path | None:
        """Its file, where one can be named without running it."""
        if self.path:
            return self.path
        with contextlib.suppress(ImportError, ValueError):
            if (spec := find_spec(self._entry_point().module)) and spec.origin:
                return Path(spec.origin)
        return None

    @property
    def label(self) -> str:
        """What it is called in messages and in a run's conditions."""
        return f"{self.kind}/{self.name}"

    def version(self) -> str:
        """What tells it from other parts of the same name: its file's name and digest."""
        path = self.source()
        return (
            f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
            if path
            else self.origin
        )

    def _entry_point(self) -> EntryPoint:
        assert self.entry_point is not None
        return self.entry_point


def builtin_folder(kind: str) -> Path:
    """The folder of the parts of a kind that come with the package."""
    return ROOT.joinpath(*PACKAGES[kind].split(".")[1:])


def folders() -> list[Path]:
    """The user's folders of parts.

    Raises:
        SettingsError: one is no such folder.
    """
    paths = [
        Path(text).expanduser().absolute()
        for text in os.environ.get(VARIABLE, "").split(os.pathsep)
        if text
    ]
    for folder in paths:
        if not any((folder / kind).is_dir() for kind in (*KINDS, "tasks")):
            fault = (
                f"holds none of {', '.join(f'{kind}/' for kind in KINDS)}"
                if folder.is_dir()
                else "is no folder"
            )
            raise SettingsError(f"plugins: {folder} {fault}")
    return list(dict.fromkeys(paths))


@contextlib.contextmanager
def add_folders(more: Sequence[str]) -> Iterator[None]:
    """Within the block, search these folders too, in this process and in those that it starts."""
    before = os.environ.get(VARIABLE)
    before_here = _command_line[:]
    paths = [str(Path(path).expanduser().absolute()) for path in more]
    os.environ[VARIABLE] = os.pathsep.join([*paths, *([before] if before else [])])
    _command_line.extend(paths)
    try:
        yield
    finally:
        _command_line[:] = before_here
        if before is None:
            os.environ.pop(VARIABLE)
        else:
            os.environ[VARIABLE] = before


def make_importable() -> None:
    """Let the parts in the user's folders be imported by the names that their modules have.

    In a process that reads what another one has written of them.

    Raises:
        SettingsError: a folder is not there.
    """
    for folder in folders():
        for kind, package in PACKAGES.items():
            path = import_module(package).__path__
            if (folder / kind).is_dir() and str(folder / kind) not in path:
                path.append(str(folder / kind))


def find(kind: str, builtin: Iterable[str] = ()) -> dict[str, Plugin]:
    """Every plugin of a kind by its name; none of them is imported.

    Args:
        kind: a name of `KINDS`.
        builtin: the names of the package's own parts, which a plugin may not have.

    Raises:
        SettingsError: two parts have one name; the message says where both are.
    """
    plugins = [
        *(
            Plugin(kind, name, folder / kind / f"{name}.py")
            for folder in folders()
            for name in files(folder / kind)
        ),
        *(Plugin(kind, entry.name, entry_point=entry) for entry in _entries(kind)),
    ]
    places = dict.fromkeys(builtin, "metaloss itself")
    for plugin in plugins:
        if plugin.name in places:
            both = f"{places[plugin.name]} and {plugin.origin}"
            raise SettingsError(
                f"two parts have the name '{plugin.label}': {both}; rename or remove one"
            )
        places[plugin.name] = plugin.origin
    return {plugin.name: plugin for plugin in plugins}


def versions(parts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The versions of those parts that are plugins, for a run's conditions.

    Args:
        parts: each a kind and a name.
    """
    plugins = [find(kind).get(name) for kind, name in dict.fromkeys(parts)]
    return {f"plugin {plugin.label}": plugin.version() for plugin in plugins if plugin}


def option() -> str:
    """The option with which another command finds the same plugins; empty where it needs none."""
    return f" --plugins {shlex.quote(os.pathsep.join(_command_line))}" if _command_line else ""


def files(folder: Path) -> list[str]:
    """The names of the parts in a folder: its Python files without a leading underscore."""
    if not folder.is_dir():
        return []
    # Not `pkgutil.iter_modules`, which also looks into every folder below.
    listed = os.listdir(folder)  # noqa: PTH208 - `Path.iterdir` makes a path of each
    stems = (name.removesuffix(".py") for name in listed if name.endswith(".py"))
    return sorted(stem for stem in stems if stem.isidentifier() and not stem.startswith("_"))


@functools.cache
def _entries(kind: str) -> tuple[EntryPoint, ...]:
    """What the installed packages offer; read once, as that takes a while."""
    return tuple(entry_points(group=f"metaloss.{kind}"))


def _module(kind: str, name: str, path: Path) -> ModuleType:
    """The file as the module that it would be in the package's own folder; imported once."""
    full = f"{PACKAGES[kind]}.{name}"
    known = sys.modules.get(full)
    if known is not None and known.__file__ == str(path):
        return known
    package = import_module(PACKAGES[kind])
    # So that the file can import others that lie beside it.
    if str(path.parent) not in package.__path__:
        package.__path__.append(str(path.parent))
    spec = spec_from_file_location(full, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module


def _place(error: Exception, path: Path | None) -> str:
    """File and line of an error: the innermost one in the plugin's file, else the innermost."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    file, number = next((line for line in reversed(lines) if line[0] == str(path)), lines[-1])
    return f"{file}:{number}"


def _one_line(error: Exception) -> str:
    """An error in one line."""
    text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
