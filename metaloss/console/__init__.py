"""What is printed while work runs: plain lines, and a live bar on a terminal and in a notebook."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metaloss._version import __version__
from metaloss.console.comparison_table import comparison_lines
from metaloss.console.display import Display
from metaloss.console.epoch_lines import EpochLines
from metaloss.console.text import (
    BESIDE,
    HEADER,
    baseline_line,
    comparison_heading,
    cut_row,
    elimination_lines,
    generation_line,
    label,
    recommendation_lines,
    refinement_lines,
    search_lines,
    stage_line,
    summary_lines,
)
from metaloss.core.event_protocols import (
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
from metaloss.core.formatting import clock, counted
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.records import GenerationRecord, StageRow

__all__ = ["Console", "comparison_lines", "label", "summary_lines"]

OWN_IMAGES = ("folder:", "imagenet:")  # beginnings of sources of which the first lines say more


class Console(Display):
    """Prints a search's progress: the `reporter` of `evolve`, `resume`, `refine`, `eliminate` and
    `fit`.

    The table's lines stay. On a terminal a bar moves under them, where the console is entered:
    `with Console() as c`. A notebook shows one above them.

    Args:
        quiet: print nothing but warnings.
        verbose: a line for every generation, not only for those with a look at held-out tasks.
        brief: of everything but warnings and bars only what begins, for a command that prints its
            own result.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, brief: bool = False) -> None:
        super().__init__(quiet, brief)
        self.verbose = verbose
        self.folder: Path | None = None
        self.scale = ACCURACY  # of the search's families, or of a study's setting
        self.scales: dict[str, MetricScale] = {}  # of a study's settings
        self.speed: list[tuple[float, int]] = []
        self.target: Any = None  # what full-size networks learn to tell
        self.epoch_lines = EpochLines()
        self.features = False  # a network is computing some
        self.unfinished = False  # there is something to report of, though no folder yet
        self.began = 0.0

    # --- searches ---
    def on_search_start(
        self, run: SearchRun, engine: ReportedEngine, families: Sequence[OpenFamily], genome: object
    ) -> None:
        """The settings in a few lines, and where everything goes."""
        self.scale = families[0].scale
        self.folder = run.folder
        self.total = run.settings.generations
        self.course = run.settings.task_course()
        self._say_all(search_lines(run, engine, families, genome))

    def on_baseline(self, baselines: Sequence[ReportedBaseline], tasks: int) -> None:
        """What cross-entropy reaches, which is to be beaten, and the head of the table."""
        for baseline in baselines:
            self.say(baseline_line(baseline, tasks, self.scale))
        self._start_bar(
            "generation {task.completed}/{task.total}", "generation {done}/{total}", self.total
        )
        if not self.scale.is_accuracy:
            self.say(f"table   best, mean, held-out: {self.scale.axis}")
        self._row(HEADER if self.scale.is_accuracy else HEADER + BESIDE)

    def on_generation(self, record: GenerationRecord, seconds: float, trainings: int) -> None:
        """A line where held-out tasks were scored, and for the first generation; the bar always."""
        number = record["generation"]
        # Of the last generations alone: speed changes, and the estimated rest follows it.
        self.speed = [*self.speed[-10:], (seconds, trainings)]
        if self.bar:
            self.bar.reach(number)
        for event in record.get("events", ()):
            self.on_warning(event)
        # A generation in which nothing trained is always told.
        if self.verbose or number == 1 or "held_out" in record or record["best"] is None:
            left = self.course.generations_left(number, self.total)
            self._row(generation_line(record, self.speed, left, self.scale))

    def _row(self, text: str) -> None:
        """A line of the generations' table, with as many columns as the terminal has room for."""
        self.say(cut_row(text, self.width))

    def on_search_end(self, run: SearchRun, summary: dict[str, Any]) -> None:
        """The winner, what it reached, and what to do next."""
        self._stop_bar()
        self._say_all(summary_lines(summary))
        self.say(f"saved   {run.folder}/        next: metaloss show {run.folder}")

    def on_elimination_start(self, run: SearchRun, losses: int) -> None:
        """What is about to be eliminated."""
        self.folder = run.folder
        self.say(
            f"metaloss {__version__} · the best {counted(losses, 'loss')} of {run.name} · "
            f"seed {run.settings.seed}"
        )
        self.say("stage  losses  steps  width  tasks  times   best     CE    τ to the stage before")

    def on_elimination_stage(self, row: StageRow) -> None:
        """A stage of an elimination is over."""
        self.say(stage_line(row))

    def on_elimination_end(self, folder: Path, summary: dict[str, Any]) -> None:
        """The winner, and where everything lies."""
        self._say_all(elimination_lines(summary))
        self.say(f"saved   {folder}/        next: metaloss show {folder}")

    def on_refine_end(self, table: dict[str, Any]) -> None:
        """What other constants gained."""
        self._say_all(refinement_lines(table))

    # --- comparisons and recommendations ---
    def on_comparison_start(
        self, settings: TaskCounts, families: Sequence[OpenFamily], work: int
    ) -> None:
        """What is about to be compared, with a bar of the training steps."""
        self._say_all(comparison_heading(settings, families))
        self._start_bar("{task.percentage:3.0f} %", "{share:.0%}", work)

    def on_recommendation_start(
        self, settings: TaskCounts, images: ReportedFolds, losses: int, work: int
    ) -> None:
        """What is about to be tried on a user's images, with a bar of the training steps."""
        if images.copies:
            left_out = f"{counted(images.copies, 'image')} left out as exact copies"
            self.on_warning(f"{left_out}: {images.copies_in_words}")
        self._say_all(recommendation_lines(settings, images, losses))
        self._start_bar("{task.percentage:3.0f} %", "{share:.0%}", work)
        self.began = time.monotonic()

    def on_recommendation_fold(self, fold: int, folds: int, found: str) -> None:
        """What a fold has shown, and how long the others may take."""
        # A stop leaves a report of it.
        self.unfinished = True
        # The choice on all images, at the end, takes about as long as a fold.
        left = (time.monotonic() - self.began) / fold * (folds + 1 - fold)
        self.say(f"fold {fold}/{folds}  {found}; about {clock(left)} left")

    def on_recommendation_end(self, advice: Outcome) -> None:
        """The table, the advice, and where all of it lies."""
        from metaloss.experiments.recommendation.text import lines

        self._stop_bar()
        self._say_advice(lines(advice.summary, self.width), advice.folder)

    on_recommendation_stop = on_recommendation_end

    def on_trainings_start(self, heading: Sequence[str], work: int, folder: Path) -> None:
        """What is about to be tried in real trainings, its cost, and a bar of their steps."""
        self.folder = folder
        self._say_all(heading)
        self._start_bar("{task.percentage:3.0f} %", "{share:.0%}", work)
        self.began = time.monotonic()

    def on_trainings_end(self, advice: Outcome) -> None:
        """The tables, the advice, and where all of it lies."""
        from metaloss.experiments.recommendation_by_training.text import lines

        self._stop_bar()
        self._say_advice(lines(advice.summary, self.width), advice.folder)

    def on_images(self, dataset: Any, source: str) -> None:
        """What a user should know of images of their own before anything is trained on them."""
        if not self.terminal.quiet and source.startswith(OWN_IMAGES):
            from metaloss.data.inspection import first_lines

            for line in first_lines(dataset, source):
                self.say(line)

    def on_features(self, source: str, done: int, images: int) -> None:
        """A line when a network begins, and a bar of the images that it has seen."""
        if done == images:
            self._stop_bar()
            self.features = False
            return
        if not self.features:
            self.features = True
            self.say(f"        features of {images} images by {source} …")
            self._start_bar("{task.completed}/{task.total} images", "{done}/{total} images", images)
        if self.bar:
            self.bar.reach(done)

    def on_comparison_end(self, report: Outcome) -> None:
        """The table, what it allows one to say, and where all of it lies."""
        if self.bar:  # how much work there would be was only guessed
            self.bar.reach(self.bar.total)
        self._stop_bar()
        self._say_report(comparison_lines(report.summary, self.width), report.folder)

    def _say_advice(self, lines: Iterable[str], folder: Path) -> None:
        """A recommendation's lines, the files of its folder, and the one to look at."""
        self._say_report(lines, folder)
        self.say(f"report  {folder}/report.html")

    def _say_report(self, lines: Iterable[str], folder: Path) -> None:
        """A report's lines, and the files of its folder."""
        self._say_all(lines)
        files = sorted(path.name for path in folder.iterdir())
        self.say(f"wrote {folder}/{{{', '.join(files)}}}")

    # --- full-size trainings and studies ---
    def on_fit_start(self, session: Any) -> None:
        """What is about to be trained at full size."""
        from metaloss.training import text

        self.folder = session.folder
        self.target = session.images.target
        self._say_all(text.heading(session))

    def on_epoch(self, record: dict[str, Any], epochs: int, seconds: float) -> None:
        """A line for an epoch; of many quick ones for a few, and for the last."""
        from metaloss.training import text

        if self.epoch_lines.due(record["epoch"], epochs, seconds):
            self.say(text.epoch(record, epochs, seconds, self.target))

    def on_fit_end(self, fits: Any) -> None:
        """What the trainings came to on the test images."""
        from metaloss.training import text

        self._say_all(text.table(fits))
        self.say(f"saved   {fits.folder}/")

    def on_study_start(
        self, folder: Path, study: StudySettings, settings: Sequence[StudyCondition]
    ) -> None:
        """What is about to be scored."""
        from metaloss.experiments.rank_study import lines

        self.folder = folder
        self.scales = {x.name: x.scale for x in settings}
        self._say_all(lines.heading(folder, study, settings))

    def on_setting(self, setting: str) -> None:
        """All losses are about to be scored under a setting."""
        self.scale = self.scales[setting]
        self.say(f"under   {setting}")

    def on_score(self, loss: str, score: StudyScore, place: tuple[int, int]) -> None:
        """A loss has its score under this setting."""
        from metaloss.experiments.rank_study import lines

        self.say(lines.scored(loss, score, self.scale, *place))

    def on_study_end(self, study: Outcome) -> None:
        """How alike the settings order the losses."""
        from metaloss.experiments.rank_study import lines

        self._say_all(lines.result(study.summary))
        self.say(f"saved   {study.folder}/")
