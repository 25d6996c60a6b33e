"""What a recommendation is asked: settings, images and losses; and the writing of its answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import flatten
from metaloss.evaluation.variants import tunes_own
from metaloss.experiments.comparison.losses import ComparedLoss, check_fit
from metaloss.experiments.recommendation import report, task_sizes
from metaloss.experiments.recommendation.advice import Advice, Partial
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.folds import FoldedImages, make_folds
from metaloss.experiments.recommendation.losses import (
    RequestedLosses,
    read_losses,
    without_seen_images,
)
from metaloss.experiments.recommendation.report_folder import write
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.settings import Recommendation
from metaloss.experiments.recommendation.summary import summarise, summarise_part
from metaloss.experiments.recommendation.verdict import Verdict, decide
from metaloss.storage import json_safe
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import EPISODE_SETTINGS
from metaloss.tasks.opening import conditions
from metaloss.tasks.uneven import has_uneven_tasks


@dataclass(frozen=True)
class Question:
    """What is asked, and where the answer goes.

    Attributes:
        recommendation: the settings.
        changes: settings of the task family that are not its own.
        images: cut into folds.
        whole: tasks of all of them, for the choice that is recommended.
        device: where classifiers train.
        requested: the losses that were asked for.
        compared: those of them that can be tried on the images.
        place: the parent folder, and the name of the new one; by default the data's and the seed.
    """

    recommendation: Recommendation
    changes: Mapping[str, Any]
    images: FoldedImages
    whole: Episodes
    device: torch.device
    requested: RequestedLosses
    compared: Sequence[ComparedLoss]
    place: tuple[Path, str]

    @property
    def about(self) -> dict[str, Any]:
        """Settings, command and conditions, for the summary."""
        settings = self.recommendation.model_dump(mode="json")
        return {
            "settings": {**settings, **self.changes},
            "command": self._command(),
            "conditions": conditions([self.whole], self.device),
        }

    def part(self, results: FoldResults) -> Partial:
        """What the folds say that were judged before the user stopped, and its new folder."""
        summary = summarise_part(self.about, self.compared, self.images, results)
        return Partial(*self._written(summary, results, None))

    def advice(self, final: LossChoice, results: FoldResults) -> Advice:
        """The advice, and its new folder.

        Args:
            final: the choice on all images.
            results: what came of the folds.
        """
        verdict = decide(final, results, self.requested.expected)
        # The numbers are of what is recommended; the report also shows what each fold chose.
        shown = results.fixed_to(verdict.loss) if verdict.expected else results
        specs = self.requested.specs
        summary = summarise(self.about, self.compared, specs, self.images, final, shown, verdict)
        return Advice.of(verdict, self.compared, *self._written(summary, results, verdict))

    def _written(
        self, summary: dict[str, Any], results: FoldResults, verdict: Verdict | None
    ) -> tuple[dict[str, Any], Path]:
        """The summary with the answers to held-out images, and the folder with it and its report.

        Args:
            summary: of the recommendation, or of a part of it.
            results: what came of the folds.
            verdict: what follows; None where the user stopped before it.
        """
        summary = summary | json_safe({"held_out": report.held_out(self.images, results, verdict)})
        page = report.report(summary, self.images, results.choices)
        out, name = self.place
        name = name or f"{self.images.family.name}-{self.recommendation.seed}"
        return summary, write(out, name, summary, results, page)

    def _command(self) -> list[str]:
        """The command that makes the same recommendation."""
        table = self.recommendation.model_dump(mode="json", exclude_unset=True)
        data = table.pop("data")
        options = [
            word
            for key, value in flatten(table | dict(self.changes)).items()
            for word in ("--set", f"{key}={json.dumps(value)}")
        ]
        names = self.requested.names
        loss_options = ["--losses", *names] if names else []
        return ["metaloss", "recommend", "--data", data, *loss_options, *options]


def open_question(
    table: Mapping[str, Any],
    losses: Sequence[Any] | None,
    place: tuple[Path, str],
    runs: Path,
    reporter: Reporter,
) -> Question:
    """The question that a table of settings describes, with its images and losses.

    Args:
        table: settings of the recommendation and of the family.
        losses: as they were given.
        place: as in the question.
        runs: where runs are looked for by name.
        reporter: is told of what begins, and of losses that have learned from the images.

    Raises:
        SettingsError: a loss or setting that cannot be, or a loss that has learned from these
            images.
        DataError: too few images, or none.
    """
    changes, own_table = split_settings(table, EPISODE_SETTINGS)
    recommendation: Recommendation = registry.from_table(Recommendation, own_table, "recommend")
    # Before images are read: a misspelt name must not wait for them.
    own = tunes_own(recommendation.tune)
    requested = read_losses(losses, runs, own)
    device = resolve_device(recommendation.device)
    reporter.on_work("loading images", plain=False)
    images = _folds(recommendation, changes, device, reporter)
    reporter.on_images(images.dataset, recommendation.data)
    if has_uneven_tasks(images.family):
        metric = _metric_as_is(images)
        requested = read_losses(losses, runs, own, uneven=True, metric=metric)
    whole = images.whole(device)
    compared = _compared(requested, whole, recommendation.allow_seen, reporter)
    return Question(recommendation, changes, images, whole, device, requested, compared, place)


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
    check_fit(compared, [whole])
    return compared
