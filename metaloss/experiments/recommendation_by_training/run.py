"""A recommendation by real trainings, from its settings to its folder."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.devices import resolve_device
from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.errors import DiskError, Interrupted
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.recommendation.losses import (
    RequestedLosses,
    read_losses,
    without_seen_images,
)
from metaloss.experiments.recommendation.verdict import Verdict
from metaloss.experiments.recommendation_by_training import report, summary
from metaloss.experiments.recommendation_by_training.choice import Choosing
from metaloss.experiments.recommendation_by_training.commands import recommend_command
from metaloss.experiments.recommendation_by_training.folds import TrainingFolds, open_folds
from metaloss.experiments.recommendation_by_training.halving import Survivors
from metaloss.experiments.recommendation_by_training.plan import choosing_of, heading, plan_of
from metaloss.experiments.recommendation_by_training.report_folder import write
from metaloss.experiments.recommendation_by_training.settings import read_settings
from metaloss.experiments.recommendation_by_training.trainings import AnswerCache
from metaloss.experiments.recommendation_by_training.verdict import (
    JudgedFold,
    JudgedFolds,
    choice_of,
    decide,
)
from metaloss.storage.environment import describe_environment
from metaloss.storage.folders import file_name
from metaloss.training.fitting import needed
from metaloss.training.folders import PACKAGES
from metaloss.training.models import check_model


@dataclass(frozen=True)
class TrainedChoice:
    """What a recommendation by real trainings comes to.

    Attributes:
        verdict: the loss, its setting and the evidence.
        compared: the losses that were tried.
        summary: all of it as plain values.
        folder: where it was written.
    """

    verdict: Verdict
    compared: list[ComparedLoss]
    summary: dict[str, Any]
    folder: Path


def start(
    table: Mapping[str, Any],
    losses: Sequence[Any] | None = None,
    *,
    out: str | Path,
    name: str,
    runs: str | Path,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedChoice:
    """Make the recommendation that a table of settings describes.

    Args:
        table: fields of `TrainingRecommendation` and of the training.
        losses: as for `metaloss.recommend`.
        out: the folder that the recommendation's folder is made in.
        name: of that folder; by default the data's name, the network's and the seed.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every step; True ends the work and raises `Interrupted`. The trainings
            that are over are kept until the same recommendation is made to the end.

    Raises:
        SettingsError: a loss or setting that cannot be, or a loss that has learned from these
            images.
        DataError: too few images, or none.
        RunInUse: another process makes a recommendation of this name.
    """
    needed()
    asked, training = read_settings(table)
    reporter = reporter or Reporter()
    check_model(asked.train)
    # Before images are read: a misspelt name must not wait for them.
    requested = read_losses(losses, Path(runs), own=True)
    device = resolve_device(asked.device)
    reporter.on_work("loading images", plain=False)
    folds = open_folds(asked, training, device)
    reporter.on_images(folds.dataset, asked.data)
    if folds.copies:
        copies = summary.copies_in_words(folds)
        reporter.on_warning(
            f"{counted(len(folds.copies), 'image')} left out as exact copies: {copies}"
        )
    if folds.uneven:
        requested = read_losses(losses, Path(runs), own=True, uneven=True)
    compared = _unseen(requested, folds, asked.allow_seen, reporter)
    choosing = choosing_of(asked, folds, compared, device, stop, reporter.on_progress)
    plan = plan_of(choosing, asked, len(compared))
    data = folds.dataset.name
    name = name or f"{data.partition(':')[2] or data}-{asked.train}-{asked.seed}"
    kept = Path(out) / f"{file_name(name, 'recommendation')}.unfinished"
    conditions = {
        **describe_environment(device, PACKAGES),
        "data": folds.dataset.fingerprint(),
    }
    about = {
        "settings": {**asked.model_dump(mode="json"), "training": folds.settings.table()},
        "command": recommend_command(table, requested.names),
        "conditions": conditions,
    }

    def on_stop(judged: JudgedFolds) -> None:
        part = summary.summarise_part(about, compared, plan, judged)
        path = report.write_part(kept, part, folds, judged)
        reporter.on_warning(f"{summary.partly(judged, folds)}; {path}")

    with _kept(kept), choosing.trainings:
        choosing.trainings.cache = AnswerCache(kept, conditions)
        reporter.on_trainings_start(heading(plan), plan.cost.steps, kept)
        key = Stream(asked.seed).at("bootstrap")
        judge = JudgedFolds(
            [], choosing.metric, choosing.scale, asked.certainty, key, folds.dataset.groups
        )
        judged, final = _cross_validate(choosing, judge, reporter, on_stop)
    # The rates beyond those of the beginning are among what was tried.
    plan = replace(plan, candidates=final.tried)
    verdict = decide(choice_of(final, folds.steps), judged)
    written = summary.summarise(
        about, compared, requested.specs, plan, choice_of(final, folds.steps), judged, verdict
    )
    written = report.with_answers(written, folds, judged)
    page = report.report(written, folds, judged)
    folder = write(Path(out), name, written, judged, page)
    shutil.rmtree(kept, ignore_errors=True)
    made = TrainedChoice(verdict, compared, written, folder)
    reporter.on_trainings_end(made)
    return made


def _cross_validate(
    choosing: Choosing,
    judged: JudgedFolds,
    reporter: Reporter,
    on_stop: Callable[[JudgedFolds], None],
) -> tuple[JudgedFolds, Survivors]:
    """Every fold's choice and what came of it, and what is left of the halving on all images.

    Args:
        choosing: trains and scores.
        judged: no folds yet.
        reporter: is told of every fold.
        on_stop: is told of the folds that are judged when the user stops.
    """
    folds = choosing.trainings.trainer.folds
    try:
        # --- nested cross-validation: choose without the fold's images, judge on them ---
        for number in range(folds.folds):
            fold = _judge(choosing, number)
            judged = replace(judged, folds=[*judged.folds, fold])
            reporter.on_recommendation_fold(number + 1, folds.folds, summary.fold_in_words(judged))
        # The loss that is recommended may see all images: the folds have told what choosing is
        # worth.
        return judged, choosing.choose(None)
    except Interrupted:
        if judged.folds:
            on_stop(judged)
        raise


def _judge(choosing: Choosing, number: int) -> JudgedFold:
    """A fold's choice and what came of it; cross-entropy is trained once where it is chosen."""
    survivors = choosing.choose(number)
    folds = choosing.trainings.trainer.folds
    rows = folds.held_out(number)
    label = folds.dataset.labels[rows]
    ours = choosing.judge(number, survivors.best)
    return JudgedFold(survivors, rows, label, ours, choosing.judge(number, survivors.ce))


def _unseen(
    requested: RequestedLosses, folds: TrainingFolds, allow: bool, reporter: Reporter
) -> list[ComparedLoss]:
    """The losses without those usual ones that have learned from the images."""
    dataset = folds.dataset
    if not isinstance(dataset, Dataset):  # which is too large to look at every image
        return requested.losses
    return without_seen_images(requested, dataset, folds.everything, allow, reporter.on_warning)


def _kept(folder: Path) -> storage.Lock:
    """The lock of the folder that keeps trainings until the recommendation is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot make {folder}: {error.strerror}") from None
    return storage.Lock(folder)
