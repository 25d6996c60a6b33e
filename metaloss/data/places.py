"""Where the images of `folder:PATH` and its like lie: on record when a run begins, asked for again
when it goes on.

A path in the settings stays as it was given. What it meant stands in `places.json` of the run's
folder, so that a run goes on from any working folder; and where the images were moved, the new
place is taken once it is given. Whether they are still the same images is not asked here: a run's
fingerprints tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metaloss import storage
from metaloss.data.datasets import PATHS
from metaloss.errors import DataError, SettingsError

FILE = "places.json"


def is_path_source(spec: str) -> bool:
    """Whether a data source is given as NAME:PATH."""
    name, _, path = spec.partition(":")
    return name in PATHS and bool(path)


def record_file(specs: Mapping[str, str]) -> dict[str, bytes]:
    """The file that says where images lie, by its name; of data sources by what they are to the run."""
    return {
        FILE: storage.record_bytes(
            {name: _absolute(spec) for name, spec in specs.items() if is_path_source(spec)}
        )
    }


def find_places(
    folder: Path, specs: Mapping[str, str], given: Sequence[str], again: str
) -> dict[str, str]:
    """Where images lie now: where they are said to, else where they did, else where their path
    leads from here.

    Args:
        folder: of the run.
        specs: its data sources as the settings have them, by what they are to the run.
        given: new places, one for every source that is given as NAME:PATH; or none.
        again: the words that give a new place on the command line.

    Raises:
        SettingsError: so many new places are not expected, or one is of another kind.
        DataError: there is nothing at a place.
    """
    own = {name: spec for name, spec in specs.items() if is_path_source(spec)}
    if given:
        return {**specs, **_paired(own, given)}
    path = folder / FILE
    before: dict[str, str] = (
        storage.read_record(path, dict[str, str]) if storage.is_file(path) else {}
    )
    return {
        **specs,
        **{name: _there(name, before.get(name, spec), spec, again) for name, spec in own.items()},
    }


def keep_places(folder: Path, places: Mapping[str, str]) -> None:
    """Remember where images lie from now on."""
    ((name, data),) = record_file(places).items()
    if not storage.is_file(folder / name) or (folder / name).read_bytes() != data:
        storage.write(folder / name, data)


def _paired(own: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Each source with its new place, in their order."""
    kinds = [spec.partition(":")[0] for spec in own.values()]
    if [spec.partition(":")[0] for spec in given] != kinds:
        expected = (
            " ".join(f"{kind}:PATH" for kind in kinds) or "none, as its images are known by a name"
        )
        raise SettingsError(f"new places of its images: expected {expected}, got {' '.join(given)}")
    return {name: _absolute(spec) for name, spec in zip(own, given, strict=True)}


def _there(name: str, before: str, spec: str, again: str) -> str:
    """The first of two places that is there."""
    places = list(dict.fromkeys(map(_absolute, (before, spec))))
    for place in places:
        if Path(place.partition(":")[2]).exists():
            return place
    kind, _, path = places[0].partition(":")
    raise DataError(
        f"{name}: no images at {path}; if they lie elsewhere now: {again} {kind}:NEWPATH"
    )


def _absolute(spec: str) -> str:
    name, _, path = spec.partition(":")
    return f"{name}:{Path(path).expanduser().absolute()}"
