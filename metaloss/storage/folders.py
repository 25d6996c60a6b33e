"""Folders that are named by their settings: made under a name that is free, found again by path or name."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import plugins, registry
from metaloss.errors import DamagedFile, DiskError, SettingsError

Resolved = TypeVar("Resolved")


def make_folder(parent: Path, name: str, files: Mapping[str, bytes], what: str) -> Path:
    """A new folder under `parent` with these files in it: all of them, or there is no folder.

    Args:
        parent: made where it is not there.
        name: of the new folder, as a file system takes it; with `-2`, `-3` … where it is taken.
        files: what lies in it.
        what: it is, for the message of an error, and its name where `name` has no letters.

    Raises:
        DiskError: it cannot be made; the message says what was to be.
    """
    return storage.new_folder(parent, file_name(name, what), files, what)


def file_name(text: str, fallback: str, longest: int = 80) -> str:
    """A text as a folder's or a file's name, which no command takes for an option; where it is cut, by a digest."""
    name = slug(text).lstrip(".-_")
    return (
        name if len(name) <= longest else f"{name[: longest - 9]}-{short_digest(text)}"
    ) or fallback


def short_digest(text: str) -> str:
    """Eight characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def slug(name: str) -> str:
    """A name as a folder's or a file's: letters and digits of every script stay, in lower case."""
    # Composed once more after: lower case takes some letters apart.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    kept = (x if x in "+._-" or unicodedata.category(x)[0] in "LMN" else " " for x in text)
    return re.sub(" +", "_", "".join(kept))


def find_folder(
    spec: str | Path, parent: Path, resolve: Callable[[dict[str, Any]], Resolved]
) -> tuple[Path, Resolved] | None:
    """The folder with settings that a path, or a name under `parent`, means, and what they resolve
    to; None: no such.

    Raises:
        DamagedFile: its settings cannot be read.
    """
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


class Conditions(TypedDict):
    """What is needed of a provenance."""

    conditions: dict[str, str]


def _recorded(folder: Path, missing: plugins.UnknownPart) -> str:
    """What a run's provenance says of the plugin that it used; empty where it used none of this name."""
    try:
        conditions = storage.read_record(folder / "provenance.json", Conditions)["conditions"]
        return f"the plugin {missing.kind}/{missing.name}, {conditions[f'plugin {missing.kind}/{missing.name}']}"
    except (DamagedFile, DiskError, KeyError):
        return ""


def not_found_message(what: str, spec: str | Path, parent: Path) -> str:
    """The line for a folder that is not there, with the name under `parent` that is nearest."""
    guess = registry.nearest(Path(spec).name[:200], storage.subfolders(parent))
    return f"no {what} '{str(spec)[:200]}': neither a {what}'s folder nor a {what} under {parent}.{guess}".rstrip(
        "."
    )
