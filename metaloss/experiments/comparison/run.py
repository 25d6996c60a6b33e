"""A comparison from its settings to its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.mixture_evaluation import MixtureEvaluation
from metaloss.evaluation.references import with_references
from metaloss.evaluation.rivals import available, install
from metaloss.evaluation.variants import tunes_own
from metaloss.experiments.comparison import report_folder
from metaloss.experiments.comparison.commands import command, specs_of
from metaloss.experiments.comparison.families import check_overlaps, read_families
from metaloss.experiments.comparison.family_results import (
    Evaluation,
    FamilyResults,
    evaluate_family,
    training_steps,
)
from metaloss.experiments.comparison.losses import ComparedLoss, check_fit, read_losses
from metaloss.experiments.comparison.rivals import FamilyRivals, evaluate_rivals
from metaloss.experiments.comparison.settings import Comparison
from metaloss.experiments.comparison.summary import summarise
from metaloss.tasks.opening import (
    EPISODE_SETTINGS,
    Episodes,
    Mixture,
    MixtureFamily,
    OpenFamily,
    TaskFamily,
    conditions,
    open_family,
)
from metaloss.tasks.protocols import Engine


@dataclass(frozen=True)
class Report:
    """A finished comparison.

    Attributes:
        table: one row per family and loss, and per rival that is no loss (`kind` says which).
        sentences: what the numbers allow one to say.
        summary: all of it.
        folder: where it was written.
    """

    table: list[dict[str, Any]]
    sentences: list[str]
    summary: dict[str, Any]
    folder: Path


def compare(
    losses: Sequence[Any],
    tasks: str | Sequence[str] = "fashionmnist",
    *,
    out: str | Path = "compare",
    name: str = "",
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
    **others: Any,
) -> Report:
    """Set losses beside each other on the same tasks, from the same initial weights, and write a
    report.

    Args:
        losses: runs, files, published losses by name, formulas, or losses as `metaloss.load` gives
            them.
        tasks: names, paths or folder:PATH of task families, whether or not a loss was evolved on
            them.
        out: the folder that the report's folder is made in.
        name: of the report's folder; by default the families' names and the seed.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it, raises `Interrupted` and leaves
            nothing behind.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        others: any further field of `Comparison`, or of the families, as `inner={"steps": 40}`.

    Raises:
        SettingsError: a loss or setting that cannot be, or test images that a run has learned from.
        DataError: images that are missing or do not fit.
    """
    table = {"tasks": (tasks,) if isinstance(tasks, str) else tuple(tasks), **others}
    options: dict[str, Any] = {"reporter": reporter, "stop": stop, "engine": engine}
    return start(
        loss_io.listed(losses),
        table,
        out=out,
        name=name,
        runs=runs,
        **options,
    )


def start(
    losses: Sequence[Any],
    table: Mapping[str, Any],
    *,
    out: str | Path,
    name: str,
    runs: str | Path,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
) -> Report:
    """Make the comparison that a table of settings describes.

    Args and errors: as for `compare`; `table` has its settings and those of the families.
    """
    # Settings of two kinds come in one table: those of families are known by their names.
    changes, comparison_table = split_settings(table, EPISODE_SETTINGS)
    comparison: Comparison = registry.from_table(Comparison, comparison_table, "compare")
    reporter = reporter or Reporter()
    compared, baseline = read_losses(
        losses, comparison.against, Path(runs), tunes_own(comparison.tune)
    )
    device = resolve_device(comparison.device)
    specs = [*specs_of(losses, compared), *(x.label for x in compared[len(losses) :])]
    # All that can be refused is refused before anything trains.
    families = _open_families(read_families(comparison, changes, specs), device, reporter)
    check_fit(compared, families)
    overlaps = check_overlaps(compared, families, comparison.allow_seen, reporter)
    # The seed decides the tasks, so they are the same whatever else is compared.
    key = Stream(comparison.seed)
    with open_engine(engine, device, comparison.memory, stop=stop, reporter=reporter) as opened:
        families = with_references(opened, families, comparison.rates, None, reporter)
        opened.on_progress = reporter.on_progress
        evaluations = [_evaluation(opened, family, key) for family in families]
        steps = sum(training_steps(comparison, compared, x) for x in evaluations)
        reporter.on_comparison_start(comparison, families, steps)
        results = [evaluate_family(x, comparison, compared, baseline) for x in evaluations]
        rivals = _rivals(evaluations, comparison, compared, results, baseline, reporter)
    command_table = {**comparison_table, "tasks": comparison.tasks}
    about = {
        "settings": {**comparison.model_dump(mode="json"), **changes},
        "baseline": baseline,
        "command": command(losses, compared, command_table, changes),
        "conditions": _conditions(families, device, rivals),
        "without_rivals": "" if available() or not comparison.rivals else install(),
    }
    summary = summarise(about, compared, families, overlaps, results, rivals)
    name = name or _name(families, comparison.seed)
    # The folder is made last: a comparison that is interrupted leaves nothing behind.
    folder = report_folder.write(Path(out), name, summary, [x.trainings for x in results], rivals)
    report = Report(summary["rows"], [x["text"] for x in summary["sentences"]], summary, folder)
    reporter.on_comparison_end(report)
    return report


def _evaluation(engine: Engine, family: OpenFamily, key: Stream) -> Evaluation:
    """What tunes losses on a family and measures them."""
    if isinstance(family, Mixture):
        return MixtureEvaluation(engine, family, key)
    assert isinstance(family, Episodes)  # full trainings are refused when families are read
    return EpisodeEvaluation(engine, family, key)


def _open_families(
    families: Sequence[TaskFamily | MixtureFamily], device: torch.device, reporter: Reporter
) -> list[OpenFamily]:
    """The families with their images."""
    reporter.on_work("loading images", plain=False)
    return [open_family(family, device, reporter=reporter) for family in families]


def _rivals(
    evaluations: Sequence[Evaluation],
    comparison: Comparison,
    compared: Sequence[ComparedLoss],
    results: Sequence[FamilyResults],
    baseline: str,
    reporter: Reporter,
) -> list[FamilyRivals]:
    """What is no loss, on the same tasks; nothing where it is not asked for or not installed.

    Args:
        evaluations: one per family.
        comparison: the settings.
        compared: the losses.
        results: of the losses, one per family.
        baseline: the label of the loss that all others are compared with.
        reporter: is told of the work.
    """
    if not comparison.rivals or not available():
        return []
    reporter.on_work("fitting what is no loss to the same tasks", plain=False)
    return [
        # What is fitted to a task's images has no kind of tasks to be tuned for.
        FamilyRivals([], "")
        if isinstance(evaluation, MixtureEvaluation)
        else evaluate_rivals(evaluation, comparison, compared, of_family, baseline)
        for evaluation, of_family in zip(evaluations, results, strict=True)
    ]


def _conditions(
    families: Sequence[OpenFamily], device: torch.device, rivals: Sequence[FamilyRivals]
) -> dict[str, str]:
    """Versions, device and data; scikit-learn's where it was used."""
    packages = {"scikit-learn": version("scikit-learn")} if rivals else {}
    return {**conditions(families, device), **packages}


def _name(families: Sequence[OpenFamily], seed: int) -> str:
    """The usual name of the report's folder."""
    return f"{'+'.join(family.family.name for family in families)}-{seed}"
