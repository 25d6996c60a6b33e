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
from metaloss.core.records import GenerationRecord
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.data import image_record, places
from metaloss.data.image_record import ImageRecord
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import NoWorkers
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.references import with_references
from metaloss.genomes import Genome, SymbolicGenome
from metaloss.kernels import cache
from metaloss.search import settings
from metaloss.search.learned_images import check_test_images, image_records
from metaloss.search.resuming import (
    check_conditions,
    checked_settings,
    moved_images,
)
from metaloss.search.run_folder import Progress, Run, create, find, provenance
from metaloss.search.runner import SearchRunner
from metaloss.search.settings import Settings
from metaloss.search.trained_losses import TrainedLosses
from metaloss.search.winner import finish_search
from metaloss.tasks.opening import OpenFamily, open_family, with_training_cache
from metaloss.tasks.protocols import Engine


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
    history: list[GenerationRecord]
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
    engine: EngineTable = None,
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
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        others: any further field of `Settings`, or of the families.

    Raises:
        SettingsError: a setting that cannot be.
        DataError: images that are missing or do not fit.
    """
    table = {
        "tasks": (tasks,) if isinstance(tasks, str) else tasks,
        **settings.part_tables(genome=genome, strategy=strategy),
        **others,
    }
    search = settings.resolve(merge_tables(settings.preset(preset), table))
    return start(
        search, Path(out), time_limit=time_limit, reporter=reporter, stop=stop, engine=engine
    )


def start(
    search: Settings,
    out: Path,
    *,
    before: ImageRecord | None = None,
    time_limit: float | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
) -> Result:
    """Make a new run with these settings and carry it through.

    Args:
        search: the settings.
        out: the folder that the run's folder is made in.
        before: images that were learned from before, by a loss that the search starts with.
        time_limit: seconds after which no new generation starts.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.

    Raises:
        SettingsError: images of a family's test were learned from before, or are another family's
            to learn from.
    """
    device = resolve_device(search.device)
    reporter = reporter or Reporter()
    reporter.on_work("loading images", plain=False)
    families = [open_family(family, device, reporter=reporter) for family in search.families]
    images = image_record.join_records([before or ImageRecord(), *image_records(families)])
    if guard := search.guard_rule():
        for family in families:
            guard.check(family)
    # Before the folder is made: a search that could not be tested fairly leaves nothing behind.
    check_test_images(families, images)
    with _opened_engine(engine, search, device, stop, reporter) as opened:
        run = create(out, search, provenance(search, families, device), images)
        return _run(run, families, opened, time_limit=time_limit, reporter=reporter)


def resume(
    spec: str | Path,
    *,
    changes: dict[str, Any] | None = None,
    out: str | Path = "runs",
    allow_changes: bool = False,
    time_limit: float | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
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
        time_limit: seconds after which no new generation starts.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.

    Raises:
        SettingsError: no such run, or settings or conditions that differ, each named.
        RunInUse: another process writes it.
        DamagedFile: no state of it is sound.
    """
    run = find(spec, Path(out))
    changes, moved = moved_images(run.settings, changes or {})
    run = replace(run, settings=checked_settings(run, changes))
    device = resolve_device(run.settings.device)
    where = run.places(moved)
    reporter = reporter or Reporter()
    families = run.opened(device, where, reporter)
    with (
        _resumable(run),
        _opened_engine(engine, run.settings, device, stop, reporter) as opened,
    ):
        return _run(
            run,
            families,
            opened,
            time_limit=time_limit,
            reporter=reporter,
            allow_changes=allow_changes,
            where=where,
        )


def _opened_engine(
    engine: EngineTable,
    settings: Settings,
    device: torch.device,
    stop: Callable[[], bool],
    reporter: Reporter,
) -> contextlib.AbstractContextManager[Engine]:
    """What trains a run's classifiers, to be closed."""
    memory, tf32 = settings.memory, settings.tf32
    return open_engine(engine, device, memory, tf32=tf32, stop=stop, reporter=reporter)


def _run(
    run: Run,
    families: list[OpenFamily],
    engine: Engine,
    *,
    time_limit: float | None,
    reporter: Reporter,
    allow_changes: bool = False,
    where: dict[str, str] | None = None,
) -> Result:
    """Carry a run to its end, from wherever it is.

    Args:
        run: its folder and settings.
        families: the task families with their images.
        engine: trains classifiers.
        time_limit: seconds after which no new generation starts.
        reporter: is told of everything that happens.
        allow_changes: go on under other conditions than the run began with.
        where: where the images lie now, by the family's name; recorded where it is given.
    """
    settings = run.settings
    device = engine.device
    with _resumable(run), storage.Lock(run.folder):
        # Under the lock, because it may add to the provenance.
        check_conditions(run, families, device, allow_changes, reporter)
        run.record_engine(engine.provenance)
        if where is not None:
            places.keep_places(run.folder, where)
        families = with_training_cache(run.folder, families, device)
        return _search(
            run,
            LossEvaluation(
                engine,
                families,
                Stream(settings.seed),
                settings.guard_rule(),
                settings.unit_gain,
            ),
            reporter,
            time_limit,
        )


def _search(
    run: Run, evaluation: LossEvaluation, reporter: Reporter, time_limit: float | None
) -> Result:
    """Run the generations that are left, and choose and test the winner.

    Args:
        run: its folder and settings.
        evaluation: trains and scores losses.
        reporter: is told of everything that happens.
        time_limit: seconds, from when cross-entropy is tuned, after which no generation begins.
    """
    settings = run.settings
    genome, strategy = settings.build_parts()
    reporter.on_search_start(run, evaluation.engine, evaluation.families, genome)
    progress, warnings = run.recover((*strategy.states, *genome.populations))
    for text in warnings:
        reporter.on_warning(text)
    # Generations may have been raised: a run that is interrupted again must still know it.
    storage.write_toml(run.folder / "config.toml", settings.table())
    if progress and run.finished(progress):
        return _result(run, reporter)
    # Chunks stay as small as memory made them, so a resumed run cuts its work alike.
    evaluation.engine.halvings = progress.halvings if progress else 0
    evaluation = replace(
        evaluation,
        families=with_references(
            evaluation.engine, evaluation.families, settings.rates, run.folder, reporter
        ),
    )
    rates = counted(len(settings.rates), "learning rate")
    reporter.on_work(f"tuning cross-entropy at {rates}{_compiles(genome)}")
    # Tuned again in a resumed run, too: the seed decides the tasks, so the rates are the same.
    baselines = evaluation.tune_baseline(settings.rates, settings.baseline_tasks)
    reporter.on_baseline(baselines, max(evaluation.task_counts(settings.baseline_tasks)))
    runner = SearchRunner(
        run,
        evaluation,
        genome,
        strategy,
        baselines,
        reporter,
        _trained_losses(run, genome),
    )
    deadline = float("inf") if time_limit is None else time.monotonic() + time_limit
    try:
        progress = runner.generations(progress, deadline)
    # A notebook's stop, or a script's: the command line takes the signal itself.
    except KeyboardInterrupt:
        runner, progress = _last_committed(runner)
    finish_search(runner, progress)
    return _result(run, reporter)


def _compiles(genome: Genome) -> str:
    """The words that explain a slow start, where loops are about to be compiled."""
    # Formulas have loops of their own, which take the longest.
    of_formulas = isinstance(genome, SymbolicGenome)
    if not kernels.available() or cache.is_filled("programs" if of_formulas else "perceptron"):
        return ""
    return " (the first time, loops are compiled: about a minute)"


@contextlib.contextmanager
def _resumable(run: Run) -> Iterator[None]:
    """Say how to go on with a run that is left where it is."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; metaloss.resume({str(run.folder)!r}) goes on") from None
    except NoWorkers as error:
        raise NoWorkers(f"{error}; metaloss evolve --resume {run.folder} goes on") from None


def _last_committed(runner: SearchRunner) -> tuple[SearchRunner, Progress]:
    """A stopped runner after its last committed generation.

    It is read back, because what is in memory may be half of the next one.

    Raises:
        KeyboardInterrupt: there is none.
    """
    run = runner.run
    genome = runner.genome
    progress, _ = run.recover((*runner.strategy.states, *genome.populations))
    if progress is None:
        raise KeyboardInterrupt
    runner.evaluation.engine.halvings = progress.halvings
    runner.reporter.on_warning(
        f"stopped after generation {progress.generation}: its winner is now chosen and tested; "
        "stop again to leave it"
    )
    return replace(runner, trained_losses=_trained_losses(run, genome)), progress


def _trained_losses(run: Run, genome: Genome) -> TrainedLosses | None:
    """What a search for formulas has trained so far."""
    if not isinstance(genome, SymbolicGenome):
        return None
    return TrainedLosses(genome.filters, run.history(), run.settings.maximise)


def _result(run: Run, reporter: Reporter) -> Result:
    """A finished run's result, read back from its folder."""
    # Read back, so that what is returned is what the files hold.
    loss = loss_io.load(run.folder)
    summary = run.summary()
    assert isinstance(loss, Criterion)
    assert summary is not None
    reporter.on_search_end(run, summary)
    return Result(loss, run.history(), summary, run.folder)
