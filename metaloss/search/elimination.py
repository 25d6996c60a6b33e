"""The best losses of a whole search, re-trained at growing budgets until few are left (Morgan 2024,
section 4.4).

There 100 losses are trained for six times the search's steps, the best 24 of them as a WideResNet
for 117,300 steps, the best 12 again, the best 6 twice, the best 3 three times. Our stages keep as
many, at budgets for minutes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Annotated, Any, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings

from metaloss import storage
from metaloss._version import __version__
from metaloss.core import registry
from metaloss.core.devices import resolve_device
from metaloss.core.formatting import counted
from metaloss.core.metric_scale import MetricScale
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.formula import FormulaCriterion
from metaloss.data import image_record
from metaloss.data.image_record import ImageRecord
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import SettingsError
from metaloss.evaluation.guard import Allowed, Guard, check_guard
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.genomes import SymbolicGenome
from metaloss.losses.language.formula import Formula
from metaloss.search import elimination_results
from metaloss.search.elimination_stage import (
    Many,
    Stage,
    StageRecord,
    StageRunner,
    scores_of,
)
from metaloss.search.learned_images import image_records
from metaloss.search.novelty import SeenLosses
from metaloss.search.run_folder import Run, find
from metaloss.search.trained_losses import TrainedLosses
from metaloss.tasks.opening import OpenFamily, conditions, open_family, read, with_training_cache

FOLDER = "elimination"
# As many losses are left as in the paper; the budgets are ours, for minutes.
STAGES = (
    Stage(24),
    Stage(12, steps=4),
    Stage(6, steps=4, scale=2),
    Stage(3, steps=4, scale=2, repeats=2),
    Stage(1, steps=4, scale=2, repeats=3),
)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Elimination:
    """How a search's losses are eliminated.

    Attributes:
        start: how many of the search's best begin.
        stages: one after another; the best of the last one wins.
        tasks: families by name, path or folder:PATH; the run's own where there are none. A stage
            may name others.
        guard: how far a loss may lie behind cross-entropy by other metrics, as that of a search;
            the run's own where None, `{}` for none. What lies further behind ranks last.
    """

    start: Many = 100
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = STAGES
    tasks: tuple[str, ...] = ()
    guard: Allowed = None

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        check_guard(self.guard or {})
        kept = [self.start, *(stage.keep for stage in self.stages)]
        if kept != sorted(kept, reverse=True):
            raise ValueError(
                "no stage can keep more losses than the one before, got "
                f"{' → '.join(map(str, kept))}"
            )
        # Scores of other budgets are on another scale, and their mean would rank nothing.
        for number, stage in enumerate(self.stages, start=1):
            averaged = self.stages[max(0, number - stage.mean_of) : number]
            if stage.mean_of > number or len({x.budget for x in averaged}) > 1:
                raise ValueError(
                    f"stage {number}: mean_of = {stage.mean_of} needs as many stages up to it with "
                    "the same families, steps and scale"
                )
        return self


@dataclass(frozen=True)
class EliminateResult:
    """A finished elimination.

    Attributes:
        best: the winner, a loss to train with.
        summary: a row per stage, and the ranking of the last one.
        folder: where all of it lies.
    """

    best: FormulaCriterion
    summary: dict[str, Any]
    folder: Path


def eliminate(
    run: str | Path,
    *,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
    changes: Mapping[str, Any] | None = None,
    data: Sequence[str] = (),
) -> EliminateResult:
    """Eliminate a search's losses stage by stage; an interrupted one goes on after its last stage.

    Args:
        run: its folder, or its name under `runs`.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        changes: fields of `Elimination` that are to differ.
        data: where the run's images lie now, if not where it began: folder:PATH, one for every
            folder of it.

    Raises:
        SettingsError: no such run, one without formulas, or stages that were begun with other
            settings.
        DamagedFile: the run's history or a stage's file does not check out.
        RunInUse: another process writes the run.
    """
    elimination: Elimination = registry.from_table(Elimination, changes or {}, FOLDER)
    evolved = find(run, Path(runs))
    reporter = reporter or Reporter()
    device = resolve_device(evolved.settings.device)
    first = candidates(evolved, elimination.start)
    families = _opened(elimination, evolved, device, data)
    search = evolved.settings
    allowed = search.guard if elimination.guard is None else elimination.guard
    guard = Guard(allowed) if allowed else None
    for stage in elimination.stages:  # what cannot be is refused before anything trains
        for family in families[stage.families]:
            family.enlarged(stage.steps, stage.scale)
            if guard:
                guard.check(family)
    folder = evolved.folder / FOLDER
    with (
        storage.Lock(evolved.folder),
        open_engine(
            engine, device, search.memory, tf32=search.tf32, stop=stop, reporter=reporter
        ) as opened_engine,
    ):
        folder.mkdir(exist_ok=True)
        families = {
            names: with_training_cache(folder, opened, device) for names, opened in families.items()
        }
        # One runner for each set of families: what it has tuned serves all stages of one budget.
        runners = {
            names: StageRunner(
                folder,
                LossEvaluation(opened_engine, opened, Stream(search.seed), guard, search.unit_gain),
                search.rates,
                search.baseline_tasks,
                conditions(opened, device),
            )
            for names, opened in families.items()
        }
        reporter.on_elimination_start(evolved, len(first))
        last = elimination.stages[-1]
        records = _play(runners, elimination.stages, [str(f) for f in first], reporter)
        steps = geometric_mean(family.steps * last.steps for family in families[last.families])
        images = _images(evolved, families.values())
        return _finish(evolved, records, round(steps), images, reporter)


def _images(run: Run, families: Iterable[list[OpenFamily]]) -> ImageRecord:
    """The images that the search has learned from, and those of every stage."""
    learned = [record for opened in families for record in image_records(opened)]
    return image_record.join_records([image_record.read(run.folder) or ImageRecord(), *learned])


def candidates(run: Run, n: int) -> list[Formula]:
    """The n best formulas of a whole search, the best first; of those that are one loss in other
    words the best.

    Raises:
        SettingsError: there are none.
    """
    genome, _ = run.settings.build_parts()
    if not isinstance(genome, SymbolicGenome):
        kind = run.settings.genome["kind"]
        raise SettingsError(
            f"{run.folder}: genome '{kind}' searches for no formulas, and only those are eliminated"
        )
    trained = TrainedLosses(genome.filters, run.history(), run.settings.maximise)
    seen = SeenLosses(genome.filters)
    best: list[Formula] = []
    for formula in trained.ranked():
        if len(best) == n:
            break
        # Losses of one curve and one scale would take a place each, and say nothing new.
        if not seen.reason_seen(formula):
            seen.add(formula)
            best.append(formula)
    if not best:
        raise SettingsError(
            f"{run.folder} holds no loss that trains yet: metaloss evolve --resume {run.folder}"
        )
    return best


def _opened(
    elimination: Elimination, run: Run, device: torch.device, data: Sequence[str]
) -> dict[tuple[str, ...], list[OpenFamily]]:
    """The families of every stage, by the names that it gives.

    Families that several stages share are opened once.
    """
    of_run = run.settings.families
    usual = tuple(map(read, elimination.tasks)) or of_run
    named = {
        stage.families: tuple(map(read, stage.families)) or usual for stage in elimination.stages
    }
    places = (
        run.places(data, f"metaloss eliminate {run.folder} --data")
        if of_run in named.values()
        else {}
    )
    return {
        names: run.opened(device, places)
        if families == of_run
        else [open_family(family, device) for family in families]
        for names, families in named.items()
    }


def _play(
    runners: dict[tuple[str, ...], StageRunner],
    stages: tuple[Stage, ...],
    left: list[str],
    reporter: Reporter,
) -> list[StageRecord]:
    """What every stage found."""
    records: list[StageRecord] = []
    before: list[dict[str, float]] = []
    for number, stage in enumerate(stages, start=1):
        reporter.on_work(f"stage {number} of {len(stages)}: {counted(len(left), 'loss')}")
        record = runners[stage.families].play(number, stage, left, before)
        before.append(dict(zip(left, scores_of(record), strict=True)))
        left = record["kept"]
        records.append(record)
        reporter.on_elimination_stage(elimination_results.row(record))
    return records


def _finish(
    run: Run, records: list[StageRecord], steps: int, images: ImageRecord, reporter: Reporter
) -> EliminateResult:
    """Save the winner, the picture and, last, the summary.

    Args:
        run: whose losses were eliminated.
        records: of the stages.
        steps: of the last one's trainings.
        images: that the winner has learned from.
        reporter: is told of the end.
    """
    folder = run.folder / FOLDER
    rows = [elimination_results.row(record) for record in records]
    ranking = elimination_results.ranked(records[-1])
    if ranking[0].get("outside"):
        reporter.on_warning("no loss of the last stage keeps the guard: the nearest to it is taken")
    names = ", ".join(
        dict.fromkeys(
            family["name"] for record in records for family in record["asked"]["families"]
        )
    )
    about = {
        "evolved on": ", ".join(f.name for f in run.settings.families),
        "eliminated on": names,
        "run": run.name,
        "stages": rows,
        "metaloss": __version__,
    }
    best = FormulaCriterion(Formula.parse(ranking[0]["formula"]), about)
    best = best.with_options(
        steps=steps if best.reads_clock else None, normalise=run.settings.unit_gain
    )
    loss_io.save(
        folder / "loss", best, elimination_results.card(run.name, best, names, rows), images
    )
    elimination_results.plot(records, folder / "ranks.png")
    summary = {
        "run": run.name,
        "stages": rows,
        "ranking": ranking,
        **({"guard": guard} if (guard := records[-1]["asked"].get("guard")) else {}),
        **MetricScale.of(records[-1]).entry(),
    }
    # The summary is written last: where it stands, all else does.
    run.write(f"{FOLDER}/summary.json", summary)
    reporter.on_elimination_end(folder, summary)
    return EliminateResult(best, summary, folder)
