"""A recommendation from its settings to its folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.reporting import Reporter
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import Interrupted
from metaloss.experiments import recommendation_by_training
from metaloss.experiments.recommendation.advice import Advice
from metaloss.experiments.recommendation.cross_validation import (
    CrossValidation,
    choice_options,
    training_steps,
)
from metaloss.experiments.recommendation.question import open_question


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
    engine: EngineTable = None,
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
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
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
        "engine": engine,
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
    engine: EngineTable = None,
) -> Advice:
    """Make the recommendation that a table of settings describes.

    Args and errors: as for `recommend`; `table` has its settings and those of the family or, with
    `train`, of the training.
    """
    if "train" in table:
        made = recommendation_by_training.start(
            table,
            losses,
            out=out,
            name=name,
            runs=runs,
            reporter=reporter,
            stop=stop,
            engine=engine,
        )
        return Advice.of(made.verdict, made.compared, made.summary, made.folder)
    reporter = reporter or Reporter()
    question = open_question(table, losses, (Path(out), name), Path(runs), reporter)
    recommendation, images = question.recommendation, question.images
    options = choice_options(recommendation, images, question.requested.expected)
    steps = training_steps(recommendation, options, question.compared, images)
    reporter.on_recommendation_start(recommendation, images, len(question.compared), steps)
    variants = {x.label: x.variants() for x in question.compared}
    folds = CrossValidation(images, variants, options, recommendation)
    memory = recommendation.memory
    with open_engine(engine, question.device, memory, stop=stop, reporter=reporter) as opened:
        opened.on_progress = reporter.on_progress
        try:
            folds.judge_folds(opened, reporter)
            final = folds.choose(opened, question.whole)
        except Interrupted:
            if folds.choices:
                reporter.on_recommendation_stop(question.part(folds.results()))
            raise
    advice = question.advice(final, folds.results())
    reporter.on_recommendation_end(advice)
    return advice
