"""What there is of each kind, with a line about each: what `metaloss list` prints."""

import ast
import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core import plugins, registry
from metaloss.core.metric_scale import MetricScale
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.data import datasets
from metaloss.errors import MetalossError, SettingsError
from metaloss.experiments.reproduction import published
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.published_loss import PublishedLoss
from metaloss.losses.zoo_entries import ENTRIES
from metaloss.search.run_folder import find, runs
from metaloss.tasks import family_files, opening
from metaloss.training import models
from metaloss.training import settings as training

LISTS = (
    "tasks",
    "losses",
    "primitives",
    "genomes",
    "strategies",
    "classifiers",
    "metrics",
    "data",
    "runs",
    "models",
    "protocols",
    "tables",
)


def rows(kind: str, out: Path) -> list[dict[str, Any]]:
    """Name and description of everything of a kind.

    Raises:
        SettingsError: there is no such kind.
    """
    if kind not in LISTS:
        raise SettingsError(registry.unknown_message("list", kind, LISTS))
    if kind == "tasks":
        return [_family(name, path) for name, path in sorted(family_files.names().items())]
    if kind == "runs":
        return [describe_run(folder) for folder in runs(out)]
    if kind == "losses":
        return [*map(_shipped, loss_io.shipped()), *map(_published, ENTRIES.values())]
    if kind == "primitives":
        return [
            {"name": row.name, "about": f"{row.arity} arguments, {row.latex}"}
            for row in PRIMITIVES.values()
        ]
    if kind == "models":
        return [{"name": name, "about": models.about(name)} for name in models.names()]
    if kind == "protocols":
        return [{"name": name, "about": training.about(name)} for name in training.protocols()]
    if kind == "tables":
        return [{"name": name, "about": published.about(name)} for name in published.names()]
    package, known = (
        ("datasets", datasets.names()) if kind == "data" else (kind, registry.names(kind))
    )
    others = plugins.find(package)
    return [_plugin(others[name]) if name in others else _built_in(package, name) for name in known]


def _family(name: str, path: Path) -> dict[str, Any]:
    try:
        family = opening.read(name)
    # A file with a mistake does not hide the others.
    except MetalossError as error:
        return {"name": name, "about": f"cannot be read: {error}"}
    return {"name": name, "about": f"{family.describe()}  ({path})", **_plain(family)}


def _shipped(name: str) -> dict[str, Any]:
    loss = loss_io.load(name)
    assert isinstance(loss, Criterion)
    return {
        "name": name,
        "about": f"{loss.describe()}, evolved on {loss.about['evolved on']}",
        "source": "metaloss",
    }


def _published(entry: PublishedLoss) -> dict[str, Any]:
    options = ", ".join(
        [
            *(f"{k}={v[0]:g}" for k, v in entry.parameters.items()),
            *(f"{k}=False" for k in entry.flags),
        ]
    )
    formula = entry.text or entry.lacks
    notes = [note for note in (entry.remarks, entry.limits and f"Limits: {entry.limits}.") if note]
    return {
        "name": entry.name,
        "about": f"{formula}{f'  ({options})' if options else ''}  [{entry.source}]",
        "formula": entry.text or None,
        "source": entry.source,
        "reading": entry.reading,
        "verified": entry.verified,
        "remarks": notes,
    }


def describe_run(folder: Path) -> dict[str, Any]:
    """A run's row: how far it is, and what its winner gained."""
    row: dict[str, Any] = {"name": folder.name, "folder": str(folder)}
    try:
        run = find(folder)
        history = storage.History(folder).read()
        summary = run.summary()
    # A damaged run is a row like any other, and does not hide those that are sound.
    except (MetalossError, ValueError) as error:
        return {**row, "about": f"damaged: {error}"}
    about = f"{len(history)}/{run.settings.generations} generations"
    if summary is None:
        return {**row, "about": f"{about}, unfinished: metaloss evolve --resume {folder}"}
    scale = MetricScale.of(summary)
    gains = [
        f"{name} {scale.signed(x['ce']['gain']['mean'])} ({x['ce']['verdict']})"
        for name, x in summary["test"].items()
    ]
    of_what = "points" if scale.is_accuracy else f"{scale.title}"
    return {
        **row,
        "about": f"{about}; {of_what} over tuned cross-entropy: {', '.join(gains)}",
        "summary": summary,
    }


def _plain(family: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(family).items() if k != "name"}


def _built_in(kind: str, name: str) -> dict[str, Any]:
    # The part's own module is found, not imported: its first lines are all that is needed.
    spec = find_spec(f"{plugins.PACKAGES[kind]}.{name}")
    return {"name": name, "about": _headline(Path(spec.origin)) if spec and spec.origin else ""}


def _plugin(plugin: plugins.Plugin) -> dict[str, Any]:
    """A plugin's row, which also says where it comes from.

    A file with a mistake does not hide the others.
    """
    source = plugin.source()
    try:
        about = _headline(source) if source else ""
    except (OSError, ValueError, SyntaxError) as error:
        about = f"cannot be read: {error}"
    return {
        "name": plugin.name,
        "about": f"{about}  ({plugin.origin})".strip(),
        "origin": plugin.origin,
    }


def _headline(path: Path) -> str:
    """The first paragraph of a module's docstring, read and not imported, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
