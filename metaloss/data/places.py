"""Where images of `folder:PATH`, features of `file:PATH` and the like lie, for a resumed run.

The settings keep a path as the user gave it. The absolute path is stored in `places.json` of the
run's folder, so that a run can be resumed from any working folder. Where the images were moved, the
user gives the new place once. Whether they are still the same images is checked elsewhere, by a
run's fingerprints.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metaloss import storage
from metaloss.data.datasets import PATHS
from metaloss.errors import DataError, SettingsError

FILE = "places.json"


def sources_of(name: str, dataset: str, features: str = "") -> dict[str, str]:
    """Where a family's data come from, by their role in a run: its images, and a file of features.

    Args:
        name: the family's.
        dataset: its data source.
        features: its setting of that name.
    """
    of_features = {features_role(name): features} if is_path_source(features) else {}
    return {name: dataset, **of_features}


def features_role(name: str) -> str:
    """The role of a family's features in a run."""
    return f"{name} features"


def is_path_source(spec: str) -> bool:
    """Whether a data source is given as NAME:PATH."""
    name, _, path = spec.partition(":")
    return name in PATHS and bool(path)


def record_file(specs: Mapping[str, str]) -> dict[str, bytes]:
    """The file that says where images lie, as its name and its content.

    Args:
        specs: data sources, by their role in the run.
    """
    return {
        FILE: storage.record_bytes(
            {name: _absolute(spec) for name, spec in specs.items() if is_path_source(spec)}
        )
    }


def find_places(
    folder: Path, specs: Mapping[str, str], new_places: Sequence[str], option: str
) -> dict[str, str]:
    """Where images lie now.

    At the new places if there are any, else where they were when the run began, else where their
    path leads from the working folder.

    Args:
        folder: of the run.
        specs: its data sources as the settings have them, by their role in the run.
        new_places: one for every source of the form NAME:PATH; or none.
        option: the words that give a new place on the command line.

    Raises:
        SettingsError: there are too few or too many new places, or one is of another kind.
        DataError: no images are where they should be.
    """
    with_path = {name: spec for name, spec in specs.items() if is_path_source(spec)}
    if new_places:
        return {**specs, **_moved(with_path, new_places)}
    path = folder / FILE
    before: dict[str, str] = (
        storage.read_record(path, dict[str, str]) if storage.is_file(path) else {}
    )
    return {
        **specs,
        **{
            name: _existing(name, before.get(name, spec), spec, option)
            for name, spec in with_path.items()
        },
    }


def keep_places(folder: Path, places: Mapping[str, str]) -> None:
    """Store where images lie from now on."""
    ((name, data),) = record_file(places).items()
    if not storage.is_file(folder / name) or (folder / name).read_bytes() != data:
        storage.write(folder / name, data)


def _moved(with_path: Mapping[str, str], new_places: Sequence[str]) -> dict[str, str]:
    """The sources at their new places, in the same order."""
    kinds = [spec.partition(":")[0] for spec in with_path.values()]
    if [spec.partition(":")[0] for spec in new_places] != kinds:
        expected = (
            " ".join(f"{kind}:PATH" for kind in kinds) or "none, as its images are known by a name"
        )
        raise SettingsError(
            f"new places of its images: expected {expected}, got {' '.join(new_places)}"
        )
    return {name: _absolute(spec) for name, spec in zip(with_path, new_places, strict=True)}


def _existing(name: str, before: str, spec: str, option: str) -> str:
    """The first of two places that exists; a DataError where none does."""
    places = list(dict.fromkeys(map(_absolute, (before, spec))))
    for place in places:
        if Path(place.partition(":")[2]).exists():
            return place
    kind, _, path = places[0].partition(":")
    what = "file" if kind == "file" else "images"
    raise DataError(
        f"{name}: no {what} at {path}; if they lie elsewhere now: {option} {kind}:NEWPATH"
    )


def _absolute(spec: str) -> str:
    """A source with an absolute path."""
    name, _, path = spec.partition(":")
    return f"{name}:{Path(path).expanduser().absolute()}"
