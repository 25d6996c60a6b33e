"""A recommendation by real trainings, from its settings to its folder."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import DiskError, Interrupted
from metaloss.experiments.recommendation_by_training import summary
from metaloss.experiments.recommendation_by_training.choice import Choosing
from metaloss.experiments.recommendation_by_training.halving import Survivors
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFold, JudgedFolds
from metaloss.experiments.recommendation_by_training.plan import choosing_of, heading, plan_of
from metaloss.experiments.recommendation_by_training.question import (
    TrainedChoice,
    TrainingQuestion,
    open_question,
)
from metaloss.experiments.recommendation_by_training.trainings import AnswerCache
from metaloss.tasks.protocols import Engine
from metaloss.training.fitting import needed


def start(
    table: Mapping[str, Any],
    losses: Sequence[Any] | None = None,
    *,
    out: str | Path,
    name: str,
    runs: str | Path,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
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
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.

    Raises:
        SettingsError: a loss or setting that cannot be, or a loss that has learned from these
            images.
        DataError: too few images, or none.
        RunInUse: another process makes a recommendation of this name.
    """
    needed()
    reporter = reporter or Reporter()
    question = open_question(table, losses, (Path(out), name), Path(runs), reporter)
    with open_engine(engine, question.device, stop=stop, reporter=reporter) as opened:
        return _answered(question, opened, stop, reporter)


def _answered(
    question: TrainingQuestion, engine: Engine, stop: Callable[[], bool], reporter: Reporter
) -> TrainedChoice:
    """Make the trainings, and write what they say.

    Args:
        question: what is asked.
        engine: says where trainings run.
        stop: asked before every step.
        reporter: is told of everything that happens.
    """
    asked, folds, kept = question.asked, question.folds, question.kept
    expected = question.requested.expected
    choosing = choosing_of(
        asked, folds, question.compared, expected, question.device, stop, reporter.on_progress
    )
    choosing.trainings.engine = engine
    plan = plan_of(choosing, asked)

    def on_stop(judged: JudgedFolds) -> None:
        known = "no fold is judged yet"
        if judged.folds:
            path = question.write_part(plan, judged)
            known = f"{summary.partly(judged, folds)}; {path}"
        reporter.on_warning(f"{known}; the trainings that are over are kept in {kept}")

    key = Stream(asked.seed).at("bootstrap")
    none = JudgedFolds(
        [], choosing.metric, choosing.scale, asked.certainty, key, folds.dataset.groups
    )
    with _kept(kept), choosing.trainings:
        choosing.trainings.cache = AnswerCache(kept, question.conditions)
        reporter.on_trainings_start(heading(plan), plan.cost.steps, kept)
        judged, final = _cross_validate(choosing, none, reporter, on_stop)
    made = question.write_answer(plan, choosing, final, judged)
    shutil.rmtree(kept, ignore_errors=True)
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
        on_stop: is told of the folds that are judged when the user stops; they may be none.
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
        on_stop(judged)
        raise


def _judge(choosing: Choosing, number: int) -> JudgedFold:
    """A fold's choice and what came of it; cross-entropy is trained once where it is chosen."""
    survivors = choosing.choose(number)
    folds = choosing.trainings.trainer.folds
    rows = folds.held_out(number)
    label = folds.dataset.labels[rows]
    ours = choosing.judge(number, survivors.best)
    ce = choosing.judge(number, survivors.ce)
    beside = {x.label: choosing.judge(number, x) for x in choosing.judged_beside(survivors)}
    return JudgedFold(survivors, rows, label, ours, ce, beside)


def _kept(folder: Path) -> storage.Lock:
    """The lock of the folder that keeps trainings until the recommendation is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot make {folder}: {error.strerror}") from None
    return storage.Lock(folder)
