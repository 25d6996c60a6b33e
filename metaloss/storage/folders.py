"""Folders of runs, trainings and studies, which hold their own settings.

They are made under a free name, and found again by path or by name.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from metaloss import storage
from metaloss.core import plugins, registry
from metaloss.errors import DamagedFile, DiskError, SettingsError
from metaloss.storage.environment import Recorded

Resolved = TypeVar("Resolved")


def make_folder(parent: Path, name: str, files: Mapping[str, bytes], what: str) -> Path:
    """A new folder under `parent` with these files; after a kill it is whole or not there.

    Args:
        parent: made where it is not there.
        name: of the new folder; `file_name` makes it fit for a file system, and `-2`, `-3` … is
            added where it is taken.
        files: contents by name.
        what: the kind of folder, for messages; also its name where `name` has no letters.

    Raises:
        DiskError: it cannot be made; the message says of what kind it was to be.
    """
    return storage.new_folder(parent, file_name(name, what), files, what)


def file_name(text: str, fallback: str, longest: int = 80) -> str:
    """A text as the name of a folder or a file.

    No command takes it for an option, and it is no hidden file. A digest replaces the end of a long
    text, so that different texts have different names.
    """
    name = slug(text).lstrip(".-_")
    if len(name) > longest:
        name = f"{name[: longest - 9]}-{short_digest(text)}"
    return name or fallback


def short_digest(text: str) -> str:
    """Eight characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def slug(name: str) -> str:
    """A name in lower case, with letters and digits of every script and no spaces."""
    # Normalised again afterwards: lower case splits some letters into a letter and a mark.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    characters = (x if x in "+._-" or unicodedata.category(x)[0] in "LMN" else " " for x in text)
    return re.sub(" +", "_", "".join(characters))


def find_folder(
    spec: str | Path, parent: Path, resolve: Callable[[dict[str, Any]], Resolved]
) -> tuple[Path, Resolved] | None:
    """The folder of that path, or of that name under `parent`, and its settings; None: no such.

    Args:
        spec: a path, or a name under `parent`.
        parent: of folders that are given by name.
        resolve: makes settings of the table in the folder's `config.toml`.

    Raises:
        DamagedFile: its settings cannot be read.
        SettingsError: it needs a plugin that is not there.
    """
    # A path comes first: a folder here hides one of that name under the parent.
    for folder in (Path(spec), parent / spec):
        path = folder / "config.toml"
        if storage.is_file(path):
            try:
                return folder, resolve(storage.read_toml(path))
            except SettingsError as error:
                if isinstance(error, plugins.UnknownPart) and (known := _recorded(folder, error)):
                    raise SettingsError(
                        f"{path}: {error}  It was {known}: {plugins.HINT}"
                    ) from None
                raise DamagedFile(f"{path}: {error}") from None
    return None


def _recorded(folder: Path, missing: plugins.UnknownPart) -> str:
    """The plugin that a run used, as its provenance describes it; empty where it used none."""
    label = f"plugin {missing.kind}/{missing.name}"
    try:
        conditions = storage.read_record(folder / "provenance.json", Recorded)["conditions"]
        return f"the {label}, {conditions[label]}"
    except (DamagedFile, DiskError, KeyError):
        return ""


def require_folder(
    what: str,
    spec: str | Path,
    parent: Path,
    resolve: Callable[[dict[str, Any]], Resolved],
    hint: str = "",
) -> tuple[Path, Resolved]:
    """The folder of that path, or of that name under `parent`, and its settings.

    Args:
        what: the kind of folder, for the message.
        spec: a path, or a name under `parent`.
        parent: of folders that are given by name.
        resolve: as for `find_folder`.
        hint: the end of the message.

    Raises:
        SettingsError: there is none; or it needs a plugin that is not there.
        DamagedFile: its settings cannot be read.
    """
    folder = find_folder(spec, parent, resolve)
    if folder is None:
        raise SettingsError(not_found_message(what, spec, parent) + hint)
    return folder


def require_families(table: dict[str, Any]) -> dict[str, Any]:
    """The settings of a search, which name its families; those of a training or study do not.

    Raises:
        SettingsError: they are not those of a search, or were cut off: families come last.
    """
    if not table.get("families"):
        raise SettingsError("not the settings of a run, which name its families")
    return table


def not_found_message(what: str, spec: str | Path, parent: Path) -> str:
    """The message for a folder that does not exist, with the nearest name under `parent`."""
    guess = registry.nearest(Path(spec).name[:200], storage.subfolders(parent))
    places = f"neither a {what}'s folder nor a {what} under {parent}"
    return f"no {what} '{str(spec)[:200]}': {places}.{guess}".rstrip(".")
