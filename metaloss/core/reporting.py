"""The events of a job while it runs: one class with a method for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloss.core.event_protocols import (
    ActorCounts,
    FullSizeSession,
    ImageSource,
    OpenFamily,
    Outcome,
    ReportedBaseline,
    ReportedEngine,
    ReportedFolds,
    SearchRun,
    StudyCondition,
    StudyScore,
    StudySettings,
    TaskCounts,
)
from metaloss.core.records import GenerationRecord, StageRow


class Reporter:
    """Receives the events of `evolve`, `compare`, `recommend`, `fit` and the other jobs.

    Every method does nothing here: subclass it and override the events that you want to see.
    `metaloss.Console` prints all of them. Methods are called in the process that the user started,
    in the order of the events; an exception in one of them ends the job.
    """

    def on_work(self, what: str, plain: bool = True) -> None:
        """Something begins that may take some seconds.

        Args:
            what: begins.
            plain: it usually takes long, so that it is worth a line in a pipe, too.
        """

    def on_warning(self, text: str) -> None:
        """There is something that the user should know."""

    def on_images(self, dataset: ImageSource, source: str) -> None:
        """Images have been read.

        Args:
            dataset: the images.
            source: the name that they were read by, as folder:PATH.
        """

    def on_features(self, source: str, done: int, images: int) -> None:
        """A pretrained network has seen so many of the images.

        Args:
            source: the network, as the family names it.
            done: images whose features are known; equal to `images` at the end.
            images: how many there are.
        """

    def on_progress(self, work: int) -> None:
        """So many more steps of training are done, of those that the start of the job stated."""

    def on_actors(self, counts: ActorCounts) -> None:
        """Other actors take work than before, or about a second has gone by; of `engine="ray"`."""

    # --- a search ---

    def on_search_start(
        self, run: SearchRun, engine: ReportedEngine, families: Sequence[OpenFamily], genome: object
    ) -> None:
        """The run's folder is there, the images are loaded, and nothing has been trained."""

    def on_baseline(self, baselines: Sequence[ReportedBaseline], tasks: int) -> None:
        """Cross-entropy has been tuned, on so many meta-validation tasks, for each family."""

    def on_generation(self, record: GenerationRecord, seconds: float, trainings: int) -> None:
        """A generation has been stored.

        Args:
            record: its line of the history.
            seconds: that it took.
            trainings: how many it needed.
        """

    def on_search_end(self, run: SearchRun, summary: dict[str, Any]) -> None:
        """The winner has been written and tested."""

    # --- what is done with a run's losses ---

    def on_elimination_start(self, run: SearchRun, losses: int) -> None:
        """So many losses of a run are about to be eliminated in stages."""

    def on_elimination_stage(self, row: StageRow) -> None:
        """A stage is over, with this row of the table."""

    def on_elimination_end(self, folder: Path, summary: dict[str, Any]) -> None:
        """The last stage is over, and the folder is written."""

    def on_refine_end(self, table: dict[str, Any]) -> None:
        """A formula's constants have been tuned, and tested before and after."""

    # --- comparisons and recommendations ---

    def on_comparison_start(
        self, settings: TaskCounts, families: Sequence[OpenFamily], work: int
    ) -> None:
        """Losses are about to be compared, in so many steps of training."""

    def on_comparison_end(self, report: Outcome) -> None:
        """The report has been written."""

    def on_recommendation_start(
        self, settings: TaskCounts, images: ReportedFolds, losses: int, work: int
    ) -> None:
        """So many losses are about to be tried on a user's images, in so many steps of training."""

    def on_recommendation_fold(self, fold: int, folds: int, found: str) -> None:
        """A fold of a recommendation has been judged.

        Args:
            fold: its number, from 1.
            folds: how many there are.
            found: what was chosen without it and what that reached on it, in words.
        """

    def on_recommendation_stop(self, advice: Outcome) -> None:
        """The user has stopped a recommendation; what its judged folds say has been written."""

    def on_recommendation_end(self, advice: Outcome) -> None:
        """The advice has been written."""

    def on_trainings_start(self, heading: Sequence[str], work: int, folder: Path) -> None:
        """Losses are about to be tried on a user's images in real trainings.

        Args:
            heading: what is going to happen and what it costs, in lines.
            work: steps of training.
            folder: where the trainings that are over are kept until all are.
        """

    def on_trainings_end(self, advice: Outcome) -> None:
        """The advice has been written."""

    # --- full-size training ---

    def on_fit_start(self, session: FullSizeSession) -> None:
        """Losses are about to be trained with at full size."""

    def on_epoch(self, record: dict[str, Any], epochs: int, seconds: float) -> None:
        """An epoch of such a training is over."""

    def on_fit_end(self, fits: Outcome) -> None:
        """All trainings are over and tested."""

    # --- studies ---

    def on_study_start(
        self, folder: Path, study: StudySettings, settings: Sequence[StudyCondition]
    ) -> None:
        """Losses are about to be scored under several settings."""

    def on_setting(self, name: str) -> None:
        """All losses are about to be scored under this setting."""

    def on_score(self, loss: str, score: StudyScore, place: tuple[int, int]) -> None:
        """A loss has its score under a setting.

        Args:
            loss: its name.
            score: of the loss.
            place: which score this is, and of how many.
        """

    def on_study_end(self, study: Outcome) -> None:
        """All losses have their scores under all settings."""
