"""What a recommendation by real trainings is asked, and the writing of its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from metaloss.core.devices import resolve_device
from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.data.datasets import Dataset
from metaloss.data.groups import digest_of_groups
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.recommendation.losses import (
    RequestedLosses,
    read_losses,
    without_seen_images,
)
from metaloss.experiments.recommendation.verdict import Verdict, decide
from metaloss.experiments.recommendation_by_training import report, summary
from metaloss.experiments.recommendation_by_training.choice import Choosing
from metaloss.experiments.recommendation_by_training.commands import recommend_command
from metaloss.experiments.recommendation_by_training.folds import TrainingFolds, open_folds
from metaloss.experiments.recommendation_by_training.halving import Survivors
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFolds, choice_of
from metaloss.experiments.recommendation_by_training.plan import Plan, metric_table
from metaloss.experiments.recommendation_by_training.report_folder import write
from metaloss.experiments.recommendation_by_training.settings import (
    TrainingRecommendation,
    read_settings,
)
from metaloss.storage.environment import describe_environment
from metaloss.storage.folders import file_name
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
    compared: Sequence[ComparedLoss]
    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class TrainingQuestion:
    """What is asked, and where the answer goes.

    Attributes:
        table: the settings as they were given.
        asked: those of the recommendation.
        folds: the images, and the settings of the training.
        device: where networks train.
        requested: the losses that were asked for.
        compared: those of them that can be tried on the images.
        out: the parent folder.
        name: of the new one.
    """

    table: Mapping[str, Any]
    asked: TrainingRecommendation
    folds: TrainingFolds
    device: torch.device
    requested: RequestedLosses
    compared: Sequence[ComparedLoss]
    out: Path
    name: str

    @property
    def kept(self) -> Path:
        """The folder that keeps trainings until the recommendation is made."""
        return self.out / f"{file_name(self.name, 'recommendation')}.unfinished"

    @cached_property
    def conditions(self) -> dict[str, str]:
        """Versions, device and images; a training under others is another one."""
        dataset = self.folds.dataset
        of_groups = {} if dataset.groups is None else {"groups": digest_of_groups(dataset.groups)}
        environment = describe_environment(self.device, PACKAGES)
        return {**environment, "data": dataset.fingerprint(), **of_groups}

    @property
    def about(self) -> dict[str, Any]:
        """Settings, command and conditions, for the summary."""
        settings = self.asked.model_dump(mode="json")
        return {
            "settings": {**settings, "training": self.folds.settings.table()},
            "command": recommend_command(self.table, self.requested.names),
            "conditions": self.conditions,
        }

    def write_part(self, plan: Plan, judged: JudgedFolds) -> Path:
        """Write what the folds say that were judged before the user stopped.

        Args:
            plan: what was to happen.
            judged: the folds' choices so far and what came of them.

        Returns:
            the path of its report.
        """
        part = summary.summarise_part(self.about, self.compared, plan, judged)
        return report.write_part(self.kept, part, self.folds, judged)

    def write_answer(
        self, plan: Plan, choosing: Choosing, final: Survivors, judged: JudgedFolds
    ) -> TrainedChoice:
        """The answer, and its new folder.

        Args:
            plan: what was to happen.
            choosing: what has trained.
            final: what is left of the halving on all images.
            judged: the folds' choices and what came of them.
        """
        folds = self.folds
        choice = choice_of(final, folds.steps, choosing.judged_beside(final))
        verdict = decide(choice, judged, self.requested.expected)
        # The rates beyond those of the beginning are among what was tried.
        plan = replace(plan, candidates=final.tried)
        specs = self.requested.specs
        written = summary.summarise(self.about, self.compared, specs, plan, choice, judged, verdict)
        written = report.with_answers(written, folds, judged)
        page = report.report(written, folds, judged)
        folder = write(self.out, self.name, written, judged, page)
        return TrainedChoice(verdict, self.compared, written, folder)


def open_question(
    table: Mapping[str, Any],
    losses: Sequence[Any] | None,
    place: tuple[Path, str],
    runs: Path,
    reporter: Reporter,
) -> TrainingQuestion:
    """The question that a table of settings describes, with its images and losses.

    Args:
        table: fields of `TrainingRecommendation` and of the training.
        losses: as they were given.
        place: the parent folder, and the name of the new one; "": the data's name, the network's
            and the seed.
        runs: where runs are looked for by name.
        reporter: is told of what begins, of copies, and of losses that have learned from the
            images.

    Raises:
        SettingsError: a loss or setting that cannot be, or a loss that has learned from these
            images.
        DataError: too few images, or none.
    """
    asked, training = read_settings(table)
    check_model(asked.train)
    # Before images are read: a misspelt name must not wait for them.
    requested = read_losses(losses, runs, own=True)
    device = resolve_device(asked.device)
    reporter.on_work("loading images", plain=False)
    folds = open_folds(asked, training, device)
    reporter.on_images(folds.dataset, asked.data)
    if folds.copies:
        copies = f"{counted(len(folds.copies), 'image')} left out as exact copies"
        reporter.on_warning(f"{copies}: {summary.copies_in_words(folds)}")
    if folds.uneven:
        metric = metric_table(asked, folds) or {}
        requested = read_losses(losses, runs, own=True, uneven=True, metric=metric.get("kind", ""))
    compared = _unseen(requested, folds, asked.allow_seen, reporter)
    out, name = place
    data = folds.dataset.name
    name = name or f"{data.partition(':')[2] or data}-{asked.train}-{asked.seed}"
    return TrainingQuestion(table, asked, folds, device, requested, compared, out, name)


def _unseen(
    requested: RequestedLosses, folds: TrainingFolds, allow: bool, reporter: Reporter
) -> list[ComparedLoss]:
    """The losses without those usual ones that have learned from the images."""
    dataset = folds.dataset
    if not isinstance(dataset, Dataset):  # which is too large to look at every image
        return requested.losses
    return without_seen_images(requested, dataset, folds.everything, allow, reporter.on_warning)
