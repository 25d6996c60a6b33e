"""A run is a folder.

It holds the settings, where the numbers come from, the history, the newest states and the winner.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metaloss import storage
from metaloss.core.population import Population
from metaloss.core.records import GenerationRecord
from metaloss.core.reporting import Reporter
from metaloss.data import image_record, places
from metaloss.data.image_record import ImageRecord
from metaloss.errors import DamagedFile
from metaloss.search import settings
from metaloss.search.cached_evaluator import CachedScores
from metaloss.search.run_tables import RunSummary
from metaloss.search.settings import Settings
from metaloss.storage.codec import pack, unpack
from metaloss.storage.environment import Provenance
from metaloss.storage.folders import make_folder, require_families, require_folder
from metaloss.tasks.opening import OpenFamily, conditions, open_family


@dataclass(frozen=True)
class Progress:
    """All that a search knows after a generation.

    With the settings it decides everything that follows.
    """

    generation: int
    state: Any
    finalists: Population  # the last generations' best
    mean_candidates: Population  # of the last generations
    trainings: int
    halvings: int  # of the chunks, after running out of memory
    failed_generations: int  # generations in a row in which every candidate failed
    cached_scores: CachedScores  # what this task epoch's formulas reached, where it goes on


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path
    settings: Settings

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    def commit(self, record: GenerationRecord, progress: Progress) -> None:
        """Make a generation last: its line of history, then the state after it."""
        # History first, state second: a kill between them leaves a line that recovery cuts off.
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
            progress = unpack(checkpoint.payload, (Progress, CachedScores, *types))
        except DamagedFile as error:
            raise DamagedFile(f"{self.folder}: state {checkpoint.generation}: {error}") from None
        return progress, checkpoint.warnings

    def history(self) -> list[GenerationRecord]:
        """One record per generation."""
        # Their seals say that they are as a search wrote them.
        records: Any = storage.History(self.folder).read()
        return list(records)

    def summary(self) -> dict[str, Any] | None:
        """What the finished run came to; None while it is not finished.

        Raises:
            DamagedFile: it does not check out.
        """
        path = self.folder / "summary.json"
        return storage.read_record(path, RunSummary) if storage.is_file(path) else None

    def provenance(self) -> dict[str, Any]:
        """Where the run's numbers come from.

        Raises:
            DamagedFile: it is missing or does not check out.
        """
        record: dict[str, Any] = storage.read_record(
            self.folder / "provenance.json", Provenance, storage.RESTORE_COPY
        )
        return record

    def record_engine(self, engine: dict[str, str]) -> None:
        """Add to the provenance where the run trains from now on, if that is not this process, or
        was not before; for who holds the run's lock.
        """
        table = self.provenance()
        before = table.get("engines", [{"kind": "local"}])
        if engine != before[-1]:
            self.write("provenance.json", {**table, "engines": [*before, engine]})

    def finished(self, progress: Progress) -> bool:
        """Whether all generations are done, and the winner of just these is written and tested."""
        summary = self.summary()
        # A run that was extended still has the summary of its earlier end.
        done = progress.generation >= self.settings.generations
        return (
            done
            and summary is not None
            and bool(summary["choice"]["generation"] == progress.generation)
        )

    def places(self, moved: Sequence[str] = (), again: str = "") -> dict[str, str]:
        """Where every family's data lie now, by their role; `find_places` says the arguments."""
        specs = _sources(self.settings)
        return places.find_places(
            self.folder, specs, moved, again or f"metaloss evolve --resume {self.folder} --tasks"
        )

    def opened(
        self,
        device: torch.device,
        where: Mapping[str, str] | None = None,
        reporter: Reporter | None = None,
    ) -> list[OpenFamily]:
        """The families with their images, from where these lie now.

        `reporter` is told of the progress where a network computes features.

        Raises:
            DataError: they are not there, or damaged.
        """
        where = self.places() if where is None else where
        return [open_family(family, device, where, reporter) for family in self.settings.families]

    def write(self, name: str, table: Mapping[str, Any]) -> None:
        """Put a table into the folder as sealed JSON, whole or not at all."""
        storage.write_record(self.folder / name, table)


def create(
    parent: Path, search: Settings, provenance: dict[str, Any], images: ImageRecord | None = None
) -> Run:
    """A new folder under `parent`; nothing that exists is touched.

    Args:
        parent: where it is made.
        search: its settings.
        provenance: where its numbers come from.
        images: those that its losses learn from.

    Raises:
        DiskError: the folder cannot be made.
    """
    files = {
        "config.toml": storage.toml_bytes(search.table()),
        "provenance.json": storage.record_bytes(provenance),
        **places.record_file(_sources(search)),
        image_record.FILE: storage.record_bytes((images or ImageRecord()).table()),
    }
    return Run(make_folder(parent, default_name(search), files, "run"), search)


def _sources(search: Settings) -> dict[str, str]:
    """Where the families' data come from, by their role."""
    return {role: spec for family in search.families for role, spec in family.sources.items()}


def default_name(search: Settings) -> str:
    """`<tasks>-<genome>-<strategy>-<seed>`."""
    tasks = "+".join(family.name for family in search.families)
    return f"{tasks}-{search.genome['kind']}-{search.strategy['kind']}-{search.seed}"


def find(spec: str | Path, parent: Path = Path("runs")) -> Run:
    """The run that a path, or a name under `parent`, means.

    Raises:
        SettingsError: there is none.
        DamagedFile: its settings cannot be read.
    """
    return Run(*require_folder("run", spec, parent, _resolved, "  (metaloss list runs)"))


def _resolved(table: dict[str, Any]) -> Settings:
    return settings.resolve(require_families(table))


def runs(parent: Path) -> list[Path]:
    """The folders of all runs under `parent`."""
    return [parent / name for name in storage.subfolders(parent)]


def provenance(
    search: Settings, episodes: Sequence[OpenFamily], device: torch.device
) -> dict[str, Any]:
    """Where a run's numbers come from: versions, device, seed, and which images it may see."""
    return {
        "command": sys.argv,
        "seed": search.seed,
        "conditions": conditions(episodes, device, search.parts_by_name()),
        "data": {
            name: table for opened in episodes for name, table in opened.provenances().items()
        },
    }
