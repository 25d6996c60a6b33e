"""`compare`: losses side by side on the meta-test tasks of any families, each one tuned first."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import flatten
from metaloss.criterion.leakage import DataOverlap, data_overlap
from metaloss.engines.local import Local
from metaloss.errors import SettingsError
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.statistics import Draws
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison import report_folder
from metaloss.experiments.comparison.losses import CE, ComparedLoss, check_classes, read_losses
from metaloss.experiments.comparison.results import LossMeasures, compared_with_baseline
from metaloss.experiments.comparison.summary import FamilyResults, summarise
from metaloss.search.settings import RATES, changed
from metaloss.tasks import opening
from metaloss.tasks.episodic import Episodes, open_episodes
from metaloss.tasks.episodic_family import EPISODE_SETTINGS, TaskFamily
from metaloss.tasks.opening import TrainingFamily, conditions
from metaloss.tasks.step_counts import step_grid
from metaloss.training.settings import Training

Many = Annotated[int, Field(ge=2, le=1_000_000)]


class Comparison(BaseModel):
    """What decides a comparison's result.

    Attributes:
        tasks: families by name, path or folder:PATH.
        against: the loss that all are set beside.
        tune: "rate" at the family's number of steps; "steps": each loss at its best number of
            steps, too.
        rates: learning rates among which each loss's is chosen.
        tuning_tasks: meta-validation tasks for that choice.
        test_tasks: meta-test tasks.
        curve_tasks: those of them on which learning curves are drawn.
        seed: of every random draw.
        device: where classifiers train.
        memory: bytes that trainings may take.
        allow_seen: compare although a run has learned from test images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("fashionmnist",)
    against: str = CE
    tune: Literal["rate", "steps"] = "rate"
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = RATES
    tuning_tasks: Many = 64
    test_tasks: Many = 300
    curve_tasks: Many = 32
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30
    allow_seen: bool = False


@dataclass(frozen=True)
class Report:
    """A finished comparison.

    Attributes:
        table: one row per family and loss.
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
        others: any further field of `Comparison`, or of the families, as `inner={"steps": 40}`.

    Raises:
        SettingsError: a loss or setting that cannot be, or test images that a run has learned from.
        DataError: images that are missing or do not fit.
    """
    table = {"tasks": (tasks,) if isinstance(tasks, str) else tuple(tasks), **others}
    options: dict[str, Any] = {"reporter": reporter, "stop": stop}
    return start(
        [losses] if isinstance(losses, str) else losses,
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
) -> Report:
    """Make the comparison that a table of settings describes.

    Args and errors: as for `compare`; `table` has its settings and those of the families.
    """
    # Settings of two kinds come in one table: those of families are known by their names.
    changes, own_settings = split_settings(table, EPISODE_SETTINGS)
    comparison: Comparison = registry.from_table(Comparison, own_settings, "compare")
    reporter = reporter or Reporter()
    compared, baseline = read_losses(losses, comparison.against, Path(runs))
    device = resolve_device(comparison.device)
    names = [*_specs(losses, compared), *(x.label for x in compared[len(losses) :])]
    reporter.on_work("loading images", plain=False)
    families = [open_episodes(f, device) for f in _families(comparison, changes, names)]
    # All that can be refused is refused before anything trains.
    check_classes(compared, families)
    overlaps = _overlaps(compared, families, comparison.allow_seen, reporter)
    with Local(device, comparison.memory, stop=stop, told=reporter.on_progress) as engine:
        reporter.on_comparison_start(
            comparison, families, sum(_work(comparison, len(compared), e) for e in families)
        )
        # The seed decides the tasks, so they are the same whatever else is compared.
        evaluations = [EpisodeEvaluation(engine, e, Stream(comparison.seed)) for e in families]
        results = [
            _evaluate(evaluation, comparison, compared, baseline) for evaluation in evaluations
        ]
    settings = {**comparison.model_dump(mode="json"), **changes}
    about = {
        "settings": settings,
        "baseline": baseline,
        "command": command(losses, compared, {**own_settings, "tasks": comparison.tasks}, changes),
    }
    summary = summarise(
        {**about, "conditions": conditions(families, device)}, compared, families, overlaps, results
    )
    # The folder is made last: a comparison that is interrupted leaves nothing behind.
    folder = report_folder.write(
        Path(out), name or _name(families, comparison.seed), summary, [x.trainings for x in results]
    )
    report = Report(summary["rows"], [x["text"] for x in summary["sentences"]], summary, folder)
    reporter.on_comparison_end(report)
    return report


def _families(
    comparison: Comparison, changes: Mapping[str, Any], losses: Sequence[str]
) -> list[TaskFamily]:
    """The families of episodes.

    Raises:
        SettingsError: there is no such family, two have one name, or one is of full trainings.
    """
    families = []
    for name in comparison.tasks:
        family = opening.read(name)
        if isinstance(family, TrainingFamily):
            line = shlex.join(
                side_by_side(family, losses, family.training.rates or comparison.rates)
            )
            raise SettingsError(
                f"{family.origin} is a family of full trainings, and compare is for episodes; "
                f"this sets the losses side by side there: {line}"
            )
        families.append(changed(family, changes))
    names = [family.name for family in families]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SettingsError(
            f"two task families are named '{repeated[0]}', and results go by the name"
        )
    return families


def _overlaps(
    compared: Sequence[ComparedLoss], families: Sequence[Episodes], allow: bool, reporter: Reporter
) -> list[list[DataOverlap]]:
    """What every family's data is to every loss.

    Raises:
        SettingsError: a run has learned from test images, and that is not allowed.
    """
    overlaps = [
        [
            data_overlap(x.origin, x.criterion, episodes.dataset, torch.cat(episodes.pools["test"]))
            for x in compared
        ]
        for episodes in families
    ]
    for episodes, family_overlaps in zip(families, overlaps, strict=True):
        for x, overlap in zip(compared, family_overlaps, strict=True):
            if overlap.refusal and not allow:
                raise SettingsError(
                    f"{x.label} {overlap.refusal} of {episodes.family.name}  "
                    "(--allow-seen compares all the same)"
                )
            if overlap.refusal:
                reporter.on_warning(f"{x.label} {overlap.refusal} of {episodes.family.name}")
    return overlaps


def _evaluate(
    evaluation: EpisodeEvaluation,
    comparison: Comparison,
    compared: Sequence[ComparedLoss],
    baseline: str,
) -> FamilyResults:
    """Tune and test all losses on one family, and record their learning curves."""
    labels = [x.label for x in compared]
    losses = [x.criterion.losses() for x in compared]
    inner = evaluation.inner
    test_tasks = comparison.test_tasks
    # Tuned on meta-validation tasks: test tasks that choose a rate would flatter it.
    rates = [x.setting for x in evaluation.tune(losses, comparison.rates, comparison.tuning_tasks)]
    # The baseline may have more steps in any case: a loss that is merely faster must not look
    # better than that.
    longer = [i for i, label in enumerate(labels) if comparison.tune == "steps" or label == CE]
    tuned_steps = evaluation.tune_steps(
        [losses[i] for i in longer], comparison.rates, comparison.tuning_tasks
    )
    best_steps = dict(zip(longer, (x.setting for x in tuned_steps), strict=True))
    best_settings = [best_steps.get(i) for i in range(len(losses))]
    # At the family's rate, too: a loss that is ahead only there may be a mere rescaling.
    family_setting = Setting(inner.lr, inner.steps)
    tested = evaluation.test(losses, [(rate, family_setting) for rate in rates], test_tasks)
    tested_at_best_steps = evaluation.test_each(losses, best_settings, test_tasks)
    measured = [
        LossMeasures(label, rate, at_best_rate, at_family_rate, best_setting, at_best_steps)
        for label, rate, (at_best_rate, at_family_rate), best_setting, at_best_steps in zip(
            labels, rates, tested, best_settings, tested_at_best_steps, strict=True
        )
    ]
    # One set of resamples for all losses, so that their intervals compare.
    key = evaluation.key.at("bootstrap")
    rows = compared_with_baseline(
        measured, baseline, CE, Draws.of(evaluation.rows(test_tasks), key), key
    )
    moments, curves = evaluation.curves(losses, rates, min(comparison.curve_tasks, test_tasks))
    return FamilyResults(
        rows,
        best_steps[labels.index(CE)],
        {x.loss: x for x in measured},
        moments,
        dict(zip(labels, curves, strict=True)),
    )


def _work(comparison: Comparison, losses: int, episodes: Episodes) -> int:
    """The approximate number of training steps on a family."""
    inner = episodes.family.inner
    grid = len(comparison.rates) * comparison.tuning_tasks
    longer = losses if comparison.tune == "steps" else 1
    # Where the rate's course depends on its end, each number of steps is a training of its own.
    longest = step_grid(inner)[-1] if inner.anytime else sum(step_grid(inner))
    each_loss = inner.steps * (
        grid + 2 * comparison.test_tasks + min(comparison.curve_tasks, comparison.test_tasks)
    )
    # Which number of steps will be the best is not known yet.
    typical_steps = step_grid(inner)[len(step_grid(inner)) // 2]
    return losses * each_loss + longer * (longest * grid + typical_steps * comparison.test_tasks)


def command(
    losses: Sequence[Any],
    compared: Sequence[ComparedLoss],
    own_settings: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> list[str]:
    """The command that makes the same comparison."""
    rest = flatten(
        {key: value for key, value in own_settings.items() if key != "tasks"} | dict(changes)
    )
    return [
        "metaloss",
        "compare",
        *_specs(losses, compared),
        "--tasks",
        *own_settings["tasks"],
        *_assignments(rest),
    ]


def side_by_side(
    family: TrainingFamily, losses: Sequence[str], rates: Sequence[float]
) -> list[str]:
    """The command that trains losses as a family of full trainings does.

    Each loss is tuned over these rates.
    """
    table = registry.table(family.training)
    defaults = registry.table(Training())
    # Rates are given as a flag of their own, and what is the default needs no flag.
    own_settings = {
        key: value
        for key, value in table.items()
        if value != defaults.get(key) and key not in ("lr", "rates")
    }
    options = [
        "--model",
        family.training.model,
        "--data",
        own_settings.pop("data", defaults["data"]),
    ]
    own_settings.pop("model", None)
    rate_options = ["--rates", *map(str, rates), "--seeds", str(family.seeds)]
    return [
        "metaloss",
        "train",
        "--loss",
        *losses,
        *options,
        *rate_options,
        *_assignments(flatten(own_settings)),
    ]


def _specs(losses: Sequence[Any], compared: Sequence[ComparedLoss]) -> list[str]:
    """Losses as they were given; one that was given as an object by its name."""
    return [
        str(x) if isinstance(x, str | Path) else y.label
        for x, y in zip(losses, compared, strict=False)
    ]


def _assignments(table: Mapping[str, Any]) -> list[str]:
    """Settings as flags."""
    return [
        word for key, value in table.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]


def _name(families: Sequence[Episodes], seed: int) -> str:
    return f"{'+'.join(e.family.name for e in families)}-{seed}"
