"""A run is a folder: its settings, where it came from, its history, its newest states and its winner."""

import hashlib
import platform
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from metaloss import compiled, image_record, places, plugins, registry, settings, storage
from metaloss._version import __version__
from metaloss.codec import pack, unpack
from metaloss.errors import DamagedFile, DiskError, SettingsError
from metaloss.image_record import ImageRecord
from metaloss.kinds import Opened, TaskFamily, opened
from metaloss.population import Population
from metaloss.run_tables import Provenance, Summary
from metaloss.settings import Settings
from metaloss.stages import Known

Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class Progress:
    """All that a search knows after a generation; with the settings it decides everything that follows."""

    generation: int
    state: Any
    finalists: Population  # the last generations' best
    centres: Population  # and their centres
    trainings: int
    halvings: int  # of the chunks, after running out of memory
    barren: int  # generations in a row in which every candidate failed
    known: Known  # what this task epoch's formulas reached, where it goes on


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path
    settings: Settings

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    def commit(self, record: dict[str, Any], progress: Progress) -> None:
        """Make a generation last: its line of history, then the state after it."""
        storage.commit(self.folder, progress.generation, record, pack(progress))

    def recover(self, types: Sequence[type]) -> tuple[Progress | None, tuple[str, ...]]:
        """The newest sound state, or None before the first; and a warning for each damaged one.

        Raises:
            DamagedFile: states exist and none of them is sound.
        """
        checkpoint = storage.recover(self.folder)
        if checkpoint is None:
            return None, ()
        try:
            progress = unpack(checkpoint.payload, (Progress, Known, *types))
        except DamagedFile as error:
            raise DamagedFile(f"{self.folder}: state {checkpoint.generation}: {error}") from None
        return progress, checkpoint.warnings

    def history(self) -> list[dict[str, Any]]:
        """One record per generation."""
        return storage.History(self.folder).read()

    def summary(self) -> dict[str, Any] | None:
        """What the finished run came to; None while it is not finished.

        Raises:
            DamagedFile: it does not check out.
        """
        path = self.folder / "summary.json"
        return storage.read_record(path, Summary) if storage.there(path) else None

    def provenance(self) -> dict[str, Any]:
        """Where the run's numbers come from.

        Raises:
            DamagedFile: it is missing or does not check out.
        """
        found: dict[str, Any] = storage.read_record(self.folder / "provenance.json", Provenance, storage.RESTORE)
        return found

    def finished(self, progress: Progress) -> bool:
        """Whether the winner of just these generations, all that were asked for, is written and tested."""
        summary = self.summary()
        done = progress.generation >= self.settings.generations
        return done and summary is not None and bool(summary["choice"]["generation"] == progress.generation)

    def places(self, given: Sequence[str] = (), again: str = "") -> dict[str, str]:
        """Where every family's images lie now, by its name (arguments and errors: as for `places.find`)."""
        specs = {family.name: family.dataset for family in self.settings.families}
        return places.find(self.folder, specs, given, again or f"metaloss evolve --resume {self.folder} --tasks")

    def opened(self, device: torch.device, where: Mapping[str, str] | None = None) -> list[Opened]:
        """The families with their images, from where these lie now.

        Raises:
            DataError: they are not there, or damaged.
        """
        where = self.places() if where is None else where
        return [opened(family, device, where[family.name]) for family in self.settings.families]

    def write(self, name: str, table: Mapping[str, Any]) -> None:
        """Put a table into the folder as sealed JSON, whole or not at all."""
        storage.write_record(self.folder / name, table)


def create(parent: Path, chosen: Settings, provenance: dict[str, Any], images: ImageRecord | None = None) -> Run:
    """A new folder under `parent`; nothing that exists is touched.

    Args:
        parent: where it is made.
        chosen: the settings.
        provenance: where its numbers come from.
        images: those that its losses learn from.

    Raises:
        DiskError: the folder cannot be made.
    """
    files = {
        "config.toml": storage.toml_bytes(chosen.table()),
        "provenance.json": storage.record_bytes(provenance),
        **places.record({family.name: family.dataset for family in chosen.families}),
        image_record.FILE: storage.record_bytes((images or ImageRecord()).table()),
    }
    return Run(made(parent, default_name(chosen), files, "run"), chosen)


def made(parent: Path, name: str, files: Mapping[str, bytes], what: str) -> Path:
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


def default_name(chosen: Settings) -> str:
    """`<tasks>-<genome>-<strategy>-<seed>`."""
    tasks = "+".join(family.name for family in chosen.families)
    return f"{tasks}-{chosen.genome['kind']}-{chosen.strategy['kind']}-{chosen.seed}"


def file_name(text: str, fallback: str, longest: int = 80) -> str:
    """A text as a folder's or a file's name, which no command takes for an option; where it is cut, by a digest."""
    name = slug(text).lstrip(".-_")
    return (name if len(name) <= longest else f"{name[: longest - 9]}-{short_digest(text)}") or fallback


def short_digest(text: str) -> str:
    """Eight characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def slug(name: str) -> str:
    """A name as a folder's or a file's: letters and digits of every script stay, in lower case."""
    # Composed once more after: lower case takes some letters apart.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    kept = (x if x in "+._-" or unicodedata.category(x)[0] in "LMN" else " " for x in text)
    return re.sub(" +", "_", "".join(kept))


def located(spec: str | Path, parent: Path, resolve: Callable[[dict[str, Any]], Chosen]) -> tuple[Path, Chosen] | None:
    """The folder with settings that a path, or a name under `parent`, means, and what they resolve to; None: no such.

    Raises:
        DamagedFile: its settings cannot be read.
    """
    for folder in (Path(spec), parent / spec):
        path = folder / "config.toml"
        if storage.there(path):
            try:
                return folder, resolve(storage.read_toml(path))
            except SettingsError as error:
                if isinstance(error, plugins.UnknownPart) and (known := _recorded(folder, error)):
                    raise SettingsError(f"{path}: {error}  It was {known}: {plugins.HINT}") from None
                raise DamagedFile(f"{path}: {error}") from None
    return None


def _recorded(folder: Path, missing: plugins.UnknownPart) -> str:
    """What a run's provenance says of the plugin that it used; empty where it used none of this name."""
    try:
        conditions = storage.read_record(folder / "provenance.json", Provenance)["conditions"]
        return f"the plugin {missing.kind}/{missing.name}, {conditions[f'plugin {missing.kind}/{missing.name}']}"
    except (DamagedFile, DiskError, KeyError):
        return ""


def missing(what: str, spec: str | Path, parent: Path) -> str:
    """The line for a folder that is not there, with the name under `parent` that is nearest."""
    guess = registry.nearest(Path(spec).name[:200], storage.folders(parent))
    return f"no {what} '{str(spec)[:200]}': neither a {what}'s folder nor a {what} under {parent}.{guess}".rstrip(".")


def find(spec: str | Path, parent: Path = Path("runs")) -> Run:
    """The run that a path, or a name under `parent`, means.

    Raises:
        SettingsError: there is none.
        DamagedFile: its settings cannot be read.
    """
    found = located(spec, parent, _resolved)
    if found is None:
        raise SettingsError(f"{missing('run', spec, parent)}  (metaloss list runs)")
    return Run(*found)


def _resolved(table: dict[str, Any]) -> Settings:
    if not table.get("families"):  # they come last: a file that was cut off has none
        raise SettingsError("not the settings of a run, which name its families")
    return settings.resolve(table)


def runs(parent: Path) -> list[Path]:
    """The folders of all runs under `parent`."""
    return sorted(path.parent for path in parent.glob("[!.]*/config.toml"))


def provenance(chosen: Settings, episodes: Sequence[Opened], device: torch.device) -> dict[str, Any]:
    """Where a run's numbers come from: versions, device, seed, and exactly which images it may see."""
    return {
        "command": sys.argv,
        "seed": chosen.seed,
        "conditions": conditions(episodes, device, chosen),
        "data": {e.family.name: _images(e) for e in episodes},
    }


def conditions(episodes: Sequence[Opened], device: torch.device, chosen: Settings | None = None) -> dict[str, str]:
    """What must be the same for a resumed run to go on as if it had not stopped; `chosen`: of a search."""
    data = {f"data {e.family.name}": e.dataset.fingerprint() for e in episodes}
    parts = [("datasets", e.family.dataset.partition(":")[0]) for e in episodes]
    parts += [("classifiers", e.family.classifier["kind"]) for e in episodes if isinstance(e.family, TaskFamily)]
    if chosen:
        parts += [("genomes", chosen.genome["kind"]), ("strategies", chosen.strategy["kind"])]
    return {**surroundings(device), **data, **plugins.versions(parts)}


def surroundings(device: torch.device, packages: Sequence[str] = ("torch", "numpy")) -> dict[str, str]:
    """Versions and the device; also whether loops are compiled, which rounds otherwise."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    names = {"metaloss": __version__, "python": platform.python_version(), "device": f"{device.type} {kind}"}
    return {**names, **{name: version(name) for name in packages}, "numba": compiled.compiler()}


def digest_of(rows: Int[Tensor, " N"]) -> str:
    """What stands for a set of images in a run's provenance."""
    return hashlib.sha256(rows.sort().values.numpy().tobytes()).hexdigest()


def _images(episodes: Opened) -> dict[str, Any]:
    pools = {
        name: {
            "images": sum(map(len, rows)),
            "sha256": digest_of(torch.cat(rows)),
        }
        for name, rows in episodes.pools.items()
    }
    seen = {"search": "train", "choice": "validation", "test, once, after the choice": "test"}
    found = {"dataset": episodes.family.dataset, "origin": episodes.dataset.origin, "pools": pools}
    if isinstance(episodes.family, TaskFamily):
        return {**found, "use": seen}
    shares = {name: {"images": len(rows), "sha256": digest_of(rows)} for name, rows in episodes.shares.items()}
    return {**found, "shares": shares, "use": {**seen, "training": "training"}}
