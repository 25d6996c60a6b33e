"""A recommendation from its settings to its folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import flatten
from metaloss.criterion.base import Criterion
from metaloss.engines.local import Local
from metaloss.errors import Interrupted
from metaloss.evaluation.variants import tunes_own
from metaloss.experiments import recommendation_by_training
from metaloss.experiments.comparison.losses import CE, ComparedLoss, check_classes
from metaloss.experiments.recommendation import report, task_sizes
from metaloss.experiments.recommendation.cross_validation import (
    CrossValidation,
    choice_options,
    training_steps,
)
from metaloss.experiments.recommendation.folds import FoldedImages, make_folds
from metaloss.experiments.recommendation.losses import (
    RequestedLosses,
    read_losses,
    without_seen_images,
)
from metaloss.experiments.recommendation.report_folder import write
from metaloss.experiments.recommendation.settings import Recommendation
from metaloss.experiments.recommendation.summary import summarise, summarise_part
from metaloss.experiments.recommendation.verdict import (
    FoldResults,
    ScoreGain,
    Verdict,
    decide,
)
from metaloss.storage import json_safe
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import EPISODE_SETTINGS
from metaloss.tasks.opening import conditions
from metaloss.tasks.uneven import has_uneven_tasks


@dataclass(frozen=True)
class Partial:
    """What the folds say that were judged before the user stopped.

    Attributes:
        summary: all of it.
        folder: where it was written.
    """

    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        loss: to train with; cross-entropy where there is no evidence for another, or where what is
            recommended is no loss.
        name: of what is recommended, with its own parameters where those were chosen.
        lr: its learning rate.
        steps: its number of steps.
        evidence: whether another loss than cross-entropy is recommended.
        gain: of choosing so, over cross-entropy, on new images.
        table: one row per loss.
        answer: what to use and why, in plain words, a part each with its `label` and `text`.
        sentences: what the numbers allow one to say, for who knows the field.
        code: lines of Python that use the loss.
        summary: all of it.
        folder: where it was written.
    """

    loss: Criterion
    name: str
    lr: float
    steps: int
    evidence: bool
    gain: ScoreGain
    table: list[dict[str, Any]]
    answer: list[dict[str, str]]
    sentences: list[str]
    code: list[str]
    summary: dict[str, Any]
    folder: Path

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        compared: Sequence[ComparedLoss],
        summary: dict[str, Any],
        folder: Path,
    ) -> Self:
        """The advice that follows from a verdict.

        Args:
            verdict: the loss, its setting and the evidence.
            compared: the losses.
            summary: all of it as plain values.
            folder: where it was written.
        """
        # What is no loss has cross-entropy before it, or none at all.
        label = CE if verdict.rival else verdict.loss
        loss = next(x for x in compared if x.label == label)
        return cls(
            loss=loss.with_parameters(verdict.setting.spec),
            name=verdict.name,
            lr=verdict.setting.lr,
            steps=verdict.setting.steps,
            evidence=verdict.evidence,
            gain=verdict.gain,
            table=summary["rows"],
            answer=summary["answer"],
            sentences=summary["sentences"],
            code=summary["code"],
            summary=summary,
            folder=folder,
        )


def recommend(
    data: str,
    losses: Sequence[Any] | None = None,
    *,
    train: str | None = None,
    out: str | Path = "recommend",
    name: str = "",
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    **others: Any,
) -> Advice:
    """Say which loss suits these images, by nested cross-validation, or that there is no evidence
    for any.

    Args:
        data: folder:PATH, or a task family or data set by name.
        losses: runs, files, published losses by name, formulas, or losses as `metaloss.load` gives
            them; "usual" among them stands for the usual ones, which alone are tried by default.
        train: a network as `metaloss.fit` takes it: judge by its real trainings, not by episodes.
        out: the folder that the recommendation's folder is made in.
        name: of that folder; by default the data's name and the seed.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`. What the
            folds say that were judged by then is written, and `reporter.on_recommendation_stop`
            is told.
        others: any further field of `Recommendation`, or of the family, as `inner={"steps": 40}`;
            with `train` of `TrainingRecommendation`, or of the training, as `augment="base"`.

    Raises:
        SettingsError: a loss or setting that cannot be, or a loss that has learned from these
            images.
        DataError: too few images, or none.
    """
    requested = [losses] if isinstance(losses, str) else losses
    options: dict[str, Any] = {
        "out": out,
        "name": name,
        "runs": runs,
        "reporter": reporter,
        "stop": stop,
    }
    by_training = {} if train is None else {"train": train}
    return start({"data": data, **by_training, **others}, requested, **options)


def start(
    table: Mapping[str, Any],
    losses: Sequence[Any] | None = None,
    *,
    out: str | Path,
    name: str,
    runs: str | Path,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Advice:
    """Make the recommendation that a table of settings describes.

    Args and errors: as for `recommend`; `table` has its settings and those of the family or, with
    `train`, of the training.
    """
    if "train" in table:
        made = recommendation_by_training.start(
            table, losses, out=out, name=name, runs=runs, reporter=reporter, stop=stop
        )
        return Advice.of(made.verdict, made.compared, made.summary, made.folder)
    changes, recommendation_table = split_settings(table, EPISODE_SETTINGS)
    recommendation: Recommendation = registry.from_table(
        Recommendation, recommendation_table, "recommend"
    )
    reporter = reporter or Reporter()
    # Before images are read: a misspelt name must not wait for them.
    own = tunes_own(recommendation.tune)
    requested = read_losses(losses, Path(runs), own)
    device = resolve_device(recommendation.device)
    reporter.on_work("loading images", plain=False)
    images = _folds(recommendation, changes, device, reporter)
    reporter.on_images(images.dataset, recommendation.data)
    if has_uneven_tasks(images.family):
        metric = _metric_as_is(images)
        requested = read_losses(losses, Path(runs), own, uneven=True, metric=metric)
    whole = images.whole(device)
    compared = _compared(requested, whole, recommendation.allow_seen, reporter)
    options = choice_options(recommendation, images, requested.expected)
    steps = training_steps(recommendation, options, compared, images)
    reporter.on_recommendation_start(recommendation, images, len(compared), steps)
    about = {
        "settings": {**recommendation.model_dump(mode="json"), **changes},
        "command": _command(recommendation_table, changes, requested),
        "conditions": conditions([whole], device),
    }
    place = Path(out), name or f"{images.family.name}-{recommendation.seed}"
    losses_by_label = {x.label: x.variants() for x in compared}
    folds = CrossValidation(images, losses_by_label, options, recommendation)
    memory = recommendation.memory
    with Local(device, memory, stop=stop, on_progress=reporter.on_progress) as engine:
        try:
            folds.judge_folds(engine, reporter)
            final = folds.choose(engine, whole)
        except Interrupted:
            if folds.choices:
                results = folds.results()
                summary = summarise_part(about, compared, images, results)
                partial = Partial(*_written(place, summary, images, results, None))
                reporter.on_recommendation_stop(partial)
            raise
    results = folds.results()
    verdict = decide(final, results, options.expected)
    # The numbers are of what is recommended; the report also shows what each fold chose.
    shown = replace(results, fixed=verdict.loss if verdict.expected else "")
    summary = summarise(about, compared, requested.specs, images, final, shown, verdict)
    advice = Advice.of(verdict, compared, *_written(place, summary, images, results, verdict))
    reporter.on_recommendation_end(advice)
    return advice


def _written(
    place: tuple[Path, str],
    summary: dict[str, Any],
    images: FoldedImages,
    results: FoldResults,
    verdict: Verdict | None,
) -> tuple[dict[str, Any], Path]:
    """The summary with the answers to held-out images, and the folder with it and its report.

    Args:
        place: the parent folder, and the name of the new one.
        summary: of the recommendation, or of a part of it.
        images: cut into folds.
        results: what came of the folds.
        verdict: what follows; None where the user stopped before it.
    """
    summary = summary | json_safe({"held_out": report.held_out(images, results, verdict)})
    page = report.report(summary, images, results.choices)
    return summary, write(*place, summary, results, page)


def _folds(
    recommendation: Recommendation,
    changes: Mapping[str, Any],
    device: torch.device,
    reporter: Reporter,
) -> FoldedImages:
    """The images, cut into folds."""
    return make_folds(
        recommendation.data,
        changes,
        Stream(recommendation.seed).at("folds"),
        recommendation.images,
        recommendation.folds,
        device,
        reporter,
    )


def _metric_as_is(images: FoldedImages) -> str:
    """What losses are compared by where all images take part in their own proportions; else ""."""
    metric = images.family.metric
    return metric["kind"] if metric and task_sizes.drawn_as_is(images.family) else ""


def _compared(
    requested: RequestedLosses, whole: Episodes, allow_seen: bool, reporter: Reporter
) -> list[ComparedLoss]:
    """The losses that can be tried on the images."""
    rows = torch.cat(whole.pools["validation"])
    # Before anything trains: a loss that has learned from these images would win by that.
    compared = without_seen_images(requested, whole.dataset, rows, allow_seen, reporter.on_warning)
    check_classes(compared, [whole])
    return compared


def _command(
    recommendation_table: Mapping[str, Any], changes: Mapping[str, Any], requested: RequestedLosses
) -> list[str]:
    """The command that makes the same recommendation."""
    rest = {key: value for key, value in recommendation_table.items() if key != "data"} | dict(
        changes
    )
    options = [word for k, v in flatten(rest).items() for word in ("--set", f"{k}={json.dumps(v)}")]
    loss_options = ["--losses", *requested.names] if requested.names else []
    return [
        "metaloss",
        "recommend",
        "--data",
        recommendation_table["data"],
        *loss_options,
        *options,
    ]
