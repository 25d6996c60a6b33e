"""`evolve`: a search from its settings to its winner, committed generation by generation."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaloss import kernels, storage
from metaloss.core.config import merge_tables
from metaloss.core.devices import resolve_device
from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.data import image_record, places
from metaloss.data.datasets import Dataset
from metaloss.data.image_record import ImageRecord
from metaloss.data.places import is_path_source
from metaloss.engines.local import Local
from metaloss.errors import SettingsError
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.genomes import Genome
from metaloss.genomes._symbolic import Symbolic
from metaloss.kernels import cache
from metaloss.search import settings
from metaloss.search.run import Progress, Run, create, find, provenance
from metaloss.search.runner import SearchRunner
from metaloss.search.settings import Settings
from metaloss.search.trained_losses import TrainedLosses
from metaloss.tasks.opening import OpenFamily, conditions, open_family, with_training_cache


@dataclass(frozen=True)
class Result:
    """A finished search.

    Attributes:
        best: the winner, a loss to train with.
        history: one record per generation.
        summary: how the winner was chosen and what it reached on meta-test tasks.
        folder: the run's folder.
    """

    best: Criterion
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    folder: Path


def evolve(
    tasks: str | Sequence[str] = "fashionmnist",
    *,
    genome: str | dict[str, Any] = "mln",
    strategy: str | dict[str, Any] | None = None,
    preset: str = "quick",
    out: str | Path = "runs",
    time_limit: float | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    **others: Any,
) -> Result:
    """Evolve a loss and test it against tuned cross-entropy.

    Ctrl-C, or a notebook's stop, ends the search: the winner of the committed generations is
    chosen, tested and given back. Stopped again, or before the first generation, the
    `KeyboardInterrupt` says how to go on with the run.

    Args:
        tasks: names, paths or folder:PATH of task families.
        genome: the loss's representation, by name or as a table of settings with its `kind`.
        strategy: the outer algorithm, likewise; the genome's usual one where None.
        preset: "smoke", "quick" or "long".
        out: the folder that the run's folder is made in.
        time_limit: seconds after which no new generation starts.
        reporter: is told of everything that happens; `metaloss.Console()` prints it, nothing does
            by default.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`, the run can
            be resumed.
        others: any further field of `Settings`, or of the families.

    Raises:
        SettingsError: a setting that cannot be.
        DataError: images that are missing or do not fit.
    """
    named = {
        key: {"kind": x} if isinstance(x, str) else x
        for key, x in (("genome", genome), ("strategy", strategy))
        if x
    }
    table = {"tasks": (tasks,) if isinstance(tasks, str) else tuple(tasks), **named, **others}
    chosen = settings.resolve(merge_tables(settings.preset(preset), table))
    return start(chosen, Path(out), time_limit=time_limit, reporter=reporter, stop=stop)


def start(chosen: Settings, out: Path, *, before: ImageRecord | None = None, **how: Any) -> Result:
    """Make a new run with these settings and carry it through.

    Args:
        chosen: the settings.
        out: the folder that the run's folder is made in.
        before: images that were learned from before, by a loss that the search starts with.
        how: as for `evolve`.

    Raises:
        SettingsError: images of a family's test were learned from before, or are another family's
            to learn from.
    """
    device = resolve_device(chosen.device)
    (how.get("reporter") or Reporter()).on_work("loading images", plain=False)
    families = [open_family(family, device) for family in chosen.families]
    images = image_record.join_records(
        [before or ImageRecord(), *(image_record.record_of(e.dataset) for e in families)]
    )
    _untouched(families, images)
    run = create(out, chosen, provenance(chosen, families, device), images)
    return _carry(run, families, device, **how)


def resume(
    spec: str | Path,
    *,
    changes: dict[str, Any] | None = None,
    out: str | Path = "runs",
    allow_changes: bool = False,
    **how: Any,
) -> Result:
    """Go on with a run as if it had never stopped.

    Args:
        spec: its folder, or its name under `out`.
        changes: settings given again; only `generations` may differ, and only grow. `tasks` may
            also say where the images lie now, as `["folder:PATH"]`, one for every folder that the
            run began with.
        out: where runs are looked for by name.
        allow_changes: go on although versions, device or data are others than before; recorded in
            the provenance.
        how: `time_limit`, `reporter` and `stop`, as for `evolve`.

    Raises:
        SettingsError: no such run, or settings or conditions that differ, each named.
        RunInUse: another process writes it.
        DamagedFile: no state of it is sound.
    """
    run = find(spec, Path(out))
    changes, moved = _moved(run.settings, changes or {})
    run = replace(run, settings=_same(run.settings, changes))
    device = resolve_device(run.settings.device)
    where = run.places(moved)
    families = run.opened(device, where)
    return _carry(run, families, device, allow_changes=allow_changes, where=where, **how)


def _untouched(families: Sequence[OpenFamily], images: ImageRecord) -> None:
    """Refuse a search that would learn from test images, or whose first loss has.

    Raises:
        SettingsError: names the family and how many images.
    """
    for e in families:
        if isinstance(e.dataset, Dataset) and (
            n := images.count_seen(e.dataset, torch.cat(e.pools["test"]))
        ):
            raise SettingsError(
                f"{e.family.name}: {n} of the test images are among those that the loss before or "
                "another family learns from, so no test would be fair; leave out one of the two"
            )


def _moved(old: Settings, changes: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What else is to change, and the new places of the images, which are given as `tasks`."""
    tasks = changes.get("tasks", ())
    tasks = (tasks,) if isinstance(tasks, str) else tasks
    if any(task not in old.tasks for task in tasks if not is_path_source(task)):
        return changes, []  # which is refused with all other changes
    return {k: v for k, v in changes.items() if k != "tasks"}, [
        task for task in tasks if is_path_source(task)
    ]


def _same(old: Settings, changes: dict[str, Any]) -> Settings:
    new = settings.resolve(merge_tables(old.table(), changes))
    before = _flat(old.table())
    after = _flat(new.table())
    if new.generations < old.generations:
        raise SettingsError(
            f"generations: the run has {old.generations}, {new.generations} is less"
        )
    different = [
        k for k in {**before, **after} if k != "generations" and before.get(k) != after.get(k)
    ]
    if different:
        listed = "; ".join(
            f"{k}: the run has {before.get(k)}, given {after.get(k)}" for k in different
        )
        raise SettingsError(f"a resumed run keeps its settings: {listed}")
    return new


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table's values under their dotted paths; a family goes by its name."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        below = {family["name"]: family for family in value} if key == "families" else value
        result |= (
            _flat(below, f"{prefix}{key}.") if isinstance(below, dict) else {prefix + key: below}
        )
    return result


def _carry(
    run: Run,
    families: list[OpenFamily],
    device: torch.device,
    *,
    time_limit: float | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    allow_changes: bool = False,
    where: dict[str, str] | None = None,
) -> Result:
    chosen = run.settings
    reporter = reporter or Reporter()
    genome, strategy = chosen.build_parts()
    with (
        _resumable(run),
        storage.Lock(run.folder),
        Local(device, chosen.memory, tf32=chosen.tf32, stop=stop) as engine,
    ):
        _recognise(run, families, device, allow_changes, reporter)
        if where is not None:
            places.keep_places(run.folder, where)
        families = with_training_cache(run.folder, families, device)
        trials = LossEvaluation(engine, families, Stream(chosen.seed))
        reporter.on_search_start(run, engine, families, genome)
        progress, warnings = run.recover((*strategy.states, *genome.populations))
        for text in warnings:
            reporter.on_warning(text)
        # Generations may have been raised: a run that is interrupted again must still know it.
        storage.write_toml(run.folder / "config.toml", chosen.table())
        if progress and run.finished(progress):
            return _told(run, reporter)
        engine.halvings = progress.halvings if progress else 0
        reporter.on_work(
            f"tuning cross-entropy at {counted(len(chosen.rates), 'learning rate')}{_compiles()}"
        )
        rivals = trials.tune_baseline(chosen.rates, chosen.baseline_tasks)
        reporter.on_baseline(rivals, max(trials.task_counts(chosen.baseline_tasks)))
        campaign = SearchRunner(
            run, trials, genome, strategy, rivals, reporter, _ledger(run, genome)
        )
        deadline = float("inf") if time_limit is None else time.monotonic() + time_limit
        try:
            progress = campaign.generations(progress, deadline)
        # A notebook's stop, or a script's: the command line takes the signal itself.
        except KeyboardInterrupt:
            campaign, progress = _so_far(campaign)
        campaign.finish(progress)
        return _told(run, reporter)


def _compiles() -> str:
    """The words that explain a slow start, where loops are about to be compiled."""
    if not kernels.available() or cache.is_filled():
        return ""
    return " (the first time, loops are compiled: about 20 s)"


@contextlib.contextmanager
def _resumable(run: Run) -> Iterator[None]:
    """Say how to go on with a run that is left where it is."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; metaloss.resume({str(run.folder)!r}) goes on") from None


def _so_far(campaign: SearchRunner) -> tuple[SearchRunner, Progress]:
    """A stopped campaign after its last committed generation; what is in memory may be half of the
    next one.

    Raises:
        KeyboardInterrupt: there is none.
    """
    run = campaign.run
    genome = campaign.genome
    progress, _ = run.recover((*campaign.strategy.states, *genome.populations))
    if progress is None:
        raise KeyboardInterrupt
    campaign.trials.engine.halvings = progress.halvings
    campaign.reporter.on_warning(
        f"stopped after generation {progress.generation}: its winner is now chosen and tested; "
        "stop again to leave it"
    )
    return replace(campaign, ledger=_ledger(run, genome)), progress


def _ledger(run: Run, genome: Genome) -> TrainedLosses | None:
    """What a search for formulas has trained so far."""
    return TrainedLosses(genome.filters, run.history()) if isinstance(genome, Symbolic) else None


def _told(run: Run, reporter: Reporter) -> Result:
    """A finished run's result, read back from its folder."""
    loss = loss_io.load(run.folder)
    summary = run.summary()
    assert isinstance(loss, Criterion)
    assert summary is not None
    reporter.on_search_end(run, summary)
    return Result(loss, run.history(), summary, run.folder)


def _recognise(
    run: Run, families: list[OpenFamily], device: torch.device, allow: bool, reporter: Reporter
) -> None:
    """Refuse to go on elsewhere than the run began, unless told to; then put it on record."""
    table = run.provenance()
    old = {**table["conditions"], **(table["resumed"][-1] if table.get("resumed") else {})}
    now = conditions(families, device, run.settings.parts_by_name())
    different = [f"{k}: was {old.get(k)}, is {now[k]}" for k in now if old.get(k) != now[k]]
    if not different:
        return
    if not allow:
        raise SettingsError(
            f"this run began elsewhere ({'; '.join(different)}); --allow-changes goes on all "
            "the same"
        )
    reporter.on_warning(f"goes on under other conditions: {'; '.join(different)}")
    run.write("provenance.json", {**table, "resumed": [*table.get("resumed", []), now]})
    before = image_record.read(run.folder) or ImageRecord()
    image_record.write(
        run.folder,
        image_record.join_records([before, *(image_record.record_of(e.dataset) for e in families)]),
    )
