"""`compare`: any losses side by side on the meta-test tasks of any families, each one tuned first."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from metaloss.core import registry
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import flatten
from metaloss.criterion.leakage import DataOverlap, data_overlap
from metaloss.engines.local import Local
from metaloss.errors import SettingsError
from metaloss.evaluation.statistics import Draws
from metaloss.experiments.comparison import report_folder
from metaloss.experiments.comparison.family_evaluation import (
    FamilyEvaluation,
    Setting,
    TunedSettings,
)
from metaloss.experiments.comparison.losses import CE, ComparedLoss, check_classes, read_losses
from metaloss.experiments.comparison.results import LossMeasures, compared_with_baseline
from metaloss.experiments.comparison.summary import FamilyResults, summarise
from metaloss.search.settings import RATES, changed
from metaloss.tasks import opening
from metaloss.tasks.episodic import Episodes, TaskFamily, open_episodes
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
    how: dict[str, Any] = {"reporter": reporter, "stop": stop}
    return start(
        [losses] if isinstance(losses, str) else losses, table, out=out, name=name, runs=runs, **how
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
    """Make the comparison that a table of settings asks for (arguments and errors: as for `compare`)."""
    of_families = TaskFamily.__dataclass_fields__.keys() - {"name", "origin"}
    changes = {key: value for key, value in table.items() if key in of_families}
    own = {key: value for key, value in table.items() if key not in of_families}
    chosen: Comparison = registry.from_table(Comparison, own, "compare")
    reporter = reporter or Reporter()
    found, baseline = read_losses(losses, chosen.against, Path(runs))
    device = resolve_device(chosen.device)
    names = [*_specs(losses, found), *(x.label for x in found[len(losses) :])]
    reporter.on_work("loading images", plain=False)
    opened = [open_episodes(f, device) for f in _families(chosen, changes, names)]
    check_classes(found, opened)
    exposures = _exposures(found, opened, chosen.allow_seen, reporter)
    with Local(device, chosen.memory, stop=stop, told=reporter.on_progress) as engine:
        reporter.on_comparison_start(
            chosen, opened, sum(_work(chosen, len(found), e) for e in opened)
        )
        contests = [FamilyEvaluation(engine, e, Stream(chosen.seed)) for e in opened]
        played = [_play(contest, chosen, found, baseline) for contest in contests]
    settings = {**chosen.model_dump(mode="json"), **changes}
    about = {
        "settings": settings,
        "baseline": baseline,
        "command": command(losses, found, {**own, "tasks": chosen.tasks}, changes),
    }
    summary = summarise(
        {**about, "conditions": conditions(opened, device)}, found, opened, exposures, played
    )
    written = report_folder.write(
        Path(out), name or _name(opened, chosen.seed), summary, [x.trainings for x in played]
    )
    report = Report(summary["rows"], [x["text"] for x in summary["sentences"]], summary, written)
    reporter.on_comparison_end(report)
    return report


def _families(
    chosen: Comparison, changes: Mapping[str, Any], losses: Sequence[str]
) -> list[TaskFamily]:
    """The families of episodes.

    Raises:
        SettingsError: there is no such family, two have one name, or one is of full trainings.
    """
    found = []
    for name in chosen.tasks:
        family = opening.read(name)
        if isinstance(family, TrainingFamily):
            line = shlex.join(side_by_side(family, losses, family.training.rates or chosen.rates))
            raise SettingsError(
                f"{family.origin} is a family of full trainings, and compare is for episodes; this sets the losses "
                f"side by side there: {line}"
            )
        found.append(changed(family, changes))
    names = [family.name for family in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"two task families are named '{twice[0]}', and results go by the name")
    return found


def _exposures(
    found: Sequence[ComparedLoss], opened: Sequence[Episodes], allow: bool, reporter: Reporter
) -> list[list[DataOverlap]]:
    """What every family's data is to every loss.

    Raises:
        SettingsError: a run has learned from test images, and that is not allowed.
    """
    all_of_them = [
        [data_overlap(x.origin, x.criterion, e.dataset, torch.cat(e.pools["test"])) for x in found]
        for e in opened
    ]
    for e, row in zip(opened, all_of_them, strict=True):
        for x, one in zip(found, row, strict=True):
            if one.refusal and not allow:
                raise SettingsError(
                    f"{x.label} {one.refusal} of {e.family.name}  (--allow-seen compares all the same)"
                )
            if one.refusal:
                reporter.on_warning(f"{x.label} {one.refusal} of {e.family.name}")
    return all_of_them


def _play(
    contest: FamilyEvaluation, chosen: Comparison, found: Sequence[ComparedLoss], baseline: str
) -> FamilyResults:
    """Tune, test and watch all losses on one family."""
    labels = [x.label for x in found]
    losses = [x.criterion.losses() for x in found]
    inner = contest.inner
    n = chosen.test_tasks
    rates = contest.tune(losses, chosen.rates, chosen.tuning_tasks)
    # The baseline may have more steps in any case: a loss that is merely faster must not look
    # better than that.
    longer = [i for i, label in enumerate(labels) if chosen.tune == "steps" or label == CE]
    steps = contest.tune_steps([losses[i] for i in longer], chosen.rates, chosen.tuning_tasks)
    tuned = [
        TunedSettings(rate, dict(zip(longer, steps, strict=True)).get(i))
        for i, rate in enumerate(rates)
    ]
    own = Setting(inner.lr, inner.steps)
    tested = contest.test(losses, [(x.rate, own) for x in tuned], n)
    longest = contest.test_each(losses, [x.steps for x in tuned], n)
    played = [
        LossMeasures(label, x.rate, at, plain, x.steps, long)
        for label, x, (at, plain), long in zip(labels, tuned, tested, longest, strict=True)
    ]
    key = contest.key.at("bootstrap")
    rows = compared_with_baseline(played, baseline, CE, Draws.of(contest.rows(n), key), key)
    moments, curves = contest.curves(losses, rates, min(chosen.curve_tasks, n))
    strongest = tuned[labels.index(CE)].steps
    assert strongest is not None
    return FamilyResults(
        rows,
        strongest,
        {x.loss: x for x in played},
        moments,
        dict(zip(labels, curves, strict=True)),
    )


def _work(chosen: Comparison, losses: int, e: Episodes) -> int:
    """About how many steps of training a family takes."""
    inner = e.family.inner
    grid = len(chosen.rates) * chosen.tuning_tasks
    longer = losses if chosen.tune == "steps" else 1
    most = step_grid(inner)[-1] if inner.anytime else sum(step_grid(inner))
    once = inner.steps * (grid + 2 * chosen.test_tasks + min(chosen.curve_tasks, chosen.test_tasks))
    # Which number of steps will be the best is not known yet.
    usual = step_grid(inner)[len(step_grid(inner)) // 2]
    return losses * once + longer * (most * grid + usual * chosen.test_tasks)


def command(
    losses: Sequence[Any],
    found: Sequence[ComparedLoss],
    own: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> list[str]:
    """The command that makes the same comparison."""
    rest = flatten({key: value for key, value in own.items() if key != "tasks"} | dict(changes))
    return [
        "metaloss",
        "compare",
        *_specs(losses, found),
        "--tasks",
        *own["tasks"],
        *_assignments(rest),
    ]


def side_by_side(
    family: TrainingFamily, losses: Sequence[str], rates: Sequence[float]
) -> list[str]:
    """The command that trains losses as a family of full trainings does, each at the best of these rates."""
    table = registry.table(family.training)
    usual = registry.table(Training())
    own = {
        key: value
        for key, value in table.items()
        if value != usual.get(key) and key not in ("lr", "rates")
    }
    named = ["--model", family.training.model, "--data", own.pop("data", usual["data"])]
    own.pop("model", None)
    grid = ["--rates", *map(str, rates), "--seeds", str(family.seeds)]
    return ["metaloss", "train", "--loss", *losses, *named, *grid, *_assignments(flatten(own))]


def _specs(losses: Sequence[Any], found: Sequence[ComparedLoss]) -> list[str]:
    """Losses as they were given; one that was given as an object by its name."""
    return [
        str(x) if isinstance(x, str | Path) else y.label
        for x, y in zip(losses, found, strict=False)
    ]


def _assignments(table: Mapping[str, Any]) -> list[str]:
    """Settings as flags."""
    return [
        word for key, value in table.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]


def _name(opened: Sequence[Episodes], seed: int) -> str:
    return f"{'+'.join(e.family.name for e in opened)}-{seed}"
