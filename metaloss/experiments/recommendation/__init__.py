"""`recommend`: which loss for these images, at which learning rate, by how much, and with what
certainty.

The best of many losses looks better than it is on the images that it was chosen on. So the images
are cut into folds, per class. For each fold, every loss is tuned and one is chosen on tasks of the
other folds' images; then the chosen one and cross-entropy train on those images and are validated
on the fold's, which the choice has not seen, not even through the mean of their pixels. The mean
difference over the folds is what the whole procedure, to choose and then to use, is worth on new
images (nested cross-validation, Stone 1974, Varma and Simon 2006); a best of many that is not
better gains nothing there. The loss that is recommended is chosen in the same way on all images.

The interval resamples tasks and images (Owen 2007): an image validates in many tasks of its fold,
and in no other fold. It holds for new images of the same kind and for trainings on the images that
are here; another set of images to train on could give another gain, which folds that share their
training images cannot tell (Bengio and Grandvalet 2004). Cross-entropy is recommended unless the
interval lies above 0. The intervals of single losses in the table are not corrected for their
number and decide nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.core.tables import flatten
from metaloss.criterion.base import Criterion
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.experiments.comparison.losses import ComparedLoss, check_classes
from metaloss.experiments.recommendation.folds import FoldedImages, make_folds
from metaloss.experiments.recommendation.losses import (
    RequestedLosses,
    read_losses,
    without_seen_images,
)
from metaloss.experiments.recommendation.selection import (
    ChoiceEvaluation,
    LossChoice,
    choose,
    evaluate_choice,
    with_rates_between,
)
from metaloss.experiments.recommendation.summary import summarise, write
from metaloss.experiments.recommendation.verdict import AccuracyGain, FoldResults, decide
from metaloss.search.settings import RATES
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.episodic_family import EPISODE_SETTINGS
from metaloss.tasks.step_counts import step_grid

Many = Annotated[int, Field(ge=2, le=1_000_000)]


class Recommendation(BaseModel):
    """What decides a recommendation.

    Attributes:
        data: folder:PATH, or a task family or data set by name.
        images: "all" but those of an official test split; or "test": the meta-test pool alone,
            which no search learns from, for losses that were evolved on these images.
        folds: how many; by default five, or as many as leave two images of every class in each.
        certainty: of the intervals; another loss than cross-entropy is recommended where its own
            lies above 0.
        tune: "rate" at the family's number of steps; "steps": each loss at its best number of
            steps, too.
        rates: learning rates among which each loss's is chosen.
        tuning_tasks: on which a loss is chosen, in each fold and at last on all images.
        test_tasks: of each fold.
        seed: of every random draw.
        device: where classifiers train.
        memory: bytes that trainings may take.
        allow_seen: go on although a loss has learned from these images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    images: Literal["all", "test"] = "all"
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    certainty: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    tune: Literal["rate", "steps"] = "rate"
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = RATES
    tuning_tasks: Many = 16
    test_tasks: Many = 40
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30
    allow_seen: bool = False


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        loss: to train with; cross-entropy where there is no evidence for another.
        name: its name.
        lr: its learning rate.
        steps: its number of steps.
        evidence: whether another loss than cross-entropy is recommended.
        gain: of choosing so, over cross-entropy, on new images.
        table: one row per loss.
        sentences: what the numbers allow one to say.
        code: lines of Python that use the loss.
        summary: all of it.
        folder: where it was written.
    """

    loss: Criterion
    name: str
    lr: float
    steps: int
    evidence: bool
    gain: AccuracyGain
    table: list[dict[str, Any]]
    sentences: list[str]
    code: list[str]
    summary: dict[str, Any]
    folder: Path


def recommend(
    data: str,
    losses: Sequence[Any] | None = None,
    *,
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
        out: the folder that the recommendation's folder is made in.
        name: of that folder; by default the data's name and the seed.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it, raises `Interrupted` and leaves
            nothing behind.
        others: any further field of `Recommendation`, or of the family, as `inner={"steps": 40}`.

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
    return start({"data": data, **others}, requested, **options)


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

    Args and errors: as for `recommend`; `table` has its settings and those of the family.
    """
    changes, own_settings = split_settings(table, EPISODE_SETTINGS)
    recommendation: Recommendation = registry.from_table(Recommendation, own_settings, "recommend")
    reporter = reporter or Reporter()
    requested = read_losses(losses, Path(runs))
    device = resolve_device(recommendation.device)
    reporter.on_work("loading images", plain=False)
    images = make_folds(recommendation.data, changes, recommendation.images, recommendation.folds)
    whole = images.whole(device)
    # Before anything trains: a loss that has learned from these images would win by that.
    compared = without_seen_images(requested, whole, recommendation.allow_seen, reporter.on_warning)
    check_classes(compared, [whole])
    with Local(device, recommendation.memory, stop=stop, told=reporter.on_progress) as engine:
        reporter.on_recommendation_start(
            recommendation, images, len(compared), _work(recommendation, len(compared), images)
        )
        final, folds = _played(engine, recommendation, compared, images, whole)
    settings = {**recommendation.model_dump(mode="json"), **changes}
    about = {"settings": settings, "command": _command(own_settings, changes, requested)}
    verdict = decide(final, folds)
    summary = summarise(
        about, compared, requested.specs, images, whole, device, final, folds, verdict
    )
    folder = write(Path(out), name or f"{images.family.name}-{recommendation.seed}", summary, folds)
    best = next(x.criterion for x in compared if x.label == verdict.loss)
    use = verdict.setting.lr, verdict.setting.steps, verdict.evidence, verdict.gain
    advice = Advice(
        best,
        verdict.loss,
        *use,
        summary["rows"],
        summary["sentences"],
        summary["code"],
        summary,
        folder,
    )
    reporter.on_recommendation_end(advice)
    return advice


def _played(
    engine: Local,
    recommendation: Recommendation,
    compared: Sequence[ComparedLoss],
    images: FoldedImages,
    whole: Episodes,
) -> tuple[LossChoice, FoldResults]:
    """Every fold's choice and what came of it, and the choice on all images."""
    key = Stream(recommendation.seed)
    losses = {x.label: x.criterion.losses() for x in compared}
    choice_options = (
        losses,
        recommendation.rates,
        recommendation.tuning_tasks,
        recommendation.tune == "steps",
    )
    choices: list[LossChoice] = []
    judged: list[ChoiceEvaluation] = []
    # --- nested cross-validation: choose without the fold's images, judge on them ---
    for number in range(images.folds):
        fold_key = key.at("fold", number)
        choosing, judging = images.fold(number, key.at("folds"), engine.device)
        choices.append(choose(EpisodeEvaluation(engine, choosing, fold_key), *choice_options))
        judged.append(
            evaluate_choice(
                EpisodeEvaluation(engine, judging, fold_key),
                losses,
                choices[-1],
                recommendation.test_tasks,
            )
        )
    # The loss that is recommended may see all images: the folds have told what choosing is worth.
    final = choose(EpisodeEvaluation(engine, whole, key.at("all")), *choice_options)
    return final, FoldResults.of(choices, judged, recommendation.certainty, key.at("bootstrap"))


def _work(recommendation: Recommendation, losses: int, images: FoldedImages) -> int:
    """About how many steps of training it takes."""
    inner = images.family.inner
    rates = len(recommendation.rates)
    steps = recommendation.tune == "steps"
    longest = step_grid(inner)[-1] if inner.anytime else sum(step_grid(inner))
    # Which number of steps will be the best is not known yet.
    typical_steps = step_grid(inner)[len(step_grid(inner)) // 2]
    # Cross-entropy alone also has the rates half-way between.
    grid = (losses - 1) * rates + len(with_rates_between(recommendation.rates))
    choosing = grid * longest if steps else grid * inner.steps + rates * longest
    judging = losses * typical_steps if steps else losses * inner.steps + typical_steps
    return (
        images.folds + 1
    ) * recommendation.tuning_tasks * choosing + images.folds * recommendation.test_tasks * judging


def _command(
    own_settings: Mapping[str, Any], changes: Mapping[str, Any], requested: RequestedLosses
) -> list[str]:
    """The command that makes the same recommendation."""
    rest = {key: value for key, value in own_settings.items() if key != "data"} | dict(changes)
    options = [word for k, v in flatten(rest).items() for word in ("--set", f"{k}={json.dumps(v)}")]
    loss_options = ["--losses", *requested.given] if requested.given else []
    return ["metaloss", "recommend", "--data", own_settings["data"], *loss_options, *options]
