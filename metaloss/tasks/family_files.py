"""The files of task families: where a bare NAME is looked for, and the table that a file holds."""

from pathlib import Path
from typing import Any

from metaloss.core import reading, registry, suggestions
from metaloss.data.datasets import load
from metaloss.errors import SettingsError

SHIPPED = Path(__file__).parents[1] / "_families"  # where an installation has them
CHECKOUT = Path(__file__).parents[2] / "tasks"


def names() -> dict[str, Path]:
    """Every family that a bare NAME finds: in ./tasks, then in the package."""
    paths: dict[str, Path] = {}
    for folder in (Path("tasks"), SHIPPED, CHECKOUT):
        for path in sorted(folder.glob("*.toml")):
            paths.setdefault(path.stem, path)
    return paths


def written(spec: str) -> tuple[dict[str, Any], str, str]:
    """The table of the file that NAME or PATH.toml means, the family's name, and the file's path.

    Raises:
        SettingsError: no such family, or a file that is no table of settings.
    """
    path = Path(spec) if spec.endswith(".toml") or "/" in spec else names().get(spec)
    if spec.startswith("voc:") or (spec == "voc" and path is None):
        load(spec)  # which refuses, and says why
    if path is None:
        raise SettingsError(
            registry.unknown_message("task family", spec, names(), "metaloss list tasks")
        )
    if spec not in names() and (folder := suggestions.folder(spec)):
        raise SettingsError(f"{spec} is no task family. {folder}")
    try:
        table = reading.read_toml(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path}: cannot be read as a task family: {reason}") from None
    reserved = {"name", "origin"} & table.keys()
    if reserved:
        raise SettingsError(f"{path}: unknown setting '{min(reserved)}'")
    return table, path.stem, str(path)
