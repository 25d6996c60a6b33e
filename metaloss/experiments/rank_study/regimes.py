"""What a loss is trained under in a study: episodes of a task family, or full-size trainings.

A score is by the setting's metric, accuracy by default, on images that nothing was trained on, and
never on test images: meta-validation tasks, or the validation share of a full-size training.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion
from metaloss.data.places import features_role, is_path_source
from metaloss.errors import SettingsError
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.experiments.rank_study.settings import Study
from metaloss.search.settings import changed
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic import open_episodes
from metaloss.tasks.episodic_family import EPISODE_SETTINGS
from metaloss.tasks.protocols import Engine
from metaloss.training import folders
from metaloss.training.losses import NamedLoss

if TYPE_CHECKING:
    from metaloss.training.session import TrainingSession


@dataclass(frozen=True)
class Score:
    """What a loss reached under a setting.

    Attributes:
        lr: the learning rate.
        accuracy: the mean over tasks or seeds; a failed training counts as 0.
        std: over them, of what losses are ordered by; None of one.
        n: how many they are.
        failed: how many of them failed.
        reason: of the first failure of a full-size training.
        by_metric: the mean score where the setting has another metric, as `MetricScale.value` takes
            it; a failed training counts as 0.
    """

    lr: float
    accuracy: float
    std: float | None
    n: int
    failed: int
    reason: str = ""
    by_metric: float | None = None

    @property
    def score(self) -> float:
        """What losses are ordered by: the accuracy, unless the setting has another metric."""
        return self.accuracy if self.by_metric is None else self.by_metric

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class FewShot:
    """Episodes of a task family: the same meta-validation tasks and initial weights for every loss.

    Attributes:
        name: the setting's.
        rates: learning rates among which every loss's is chosen; one where none is.
        evaluation: scores losses on the family's tasks.
        tasks: how many a score is the mean of.
    """

    name: str
    rates: tuple[float, ...]
    evaluation: EpisodeEvaluation
    tasks: int

    @property
    def classes(self) -> int:
        """Of a task."""
        return self.evaluation.family.ways

    @property
    def fingerprint(self) -> str:
        """Of the images."""
        return self.evaluation.family.dataset.fingerprint()

    @property
    def scale(self) -> MetricScale:
        """How scores are shown."""
        return self.evaluation.family.scale

    @property
    def unit(self) -> str:
        """What a score is the mean of."""
        return "meta-validation tasks"

    def train(self, named: NamedLoss, lr: float) -> Score:
        """The mean score on the tasks.

        Raises:
            Interrupted: someone asked to stop.
        """
        assert isinstance(named.module, Criterion)
        key = self.evaluation.key.at("study")
        losses = named.module.losses_as_used()
        beside = self.scale.beside
        scores = self.evaluation.scores(losses, "validation", key, self.tasks, lr=lr, beside=beside)
        # [1 1 T], and accuracy in a column: one number of steps, one loss.
        if not beside:
            return as_score(lr, scores[0, 0].tolist())
        by_metric, accuracies = scores[0, 0].T.tolist()
        return as_score(lr, accuracies, by_metric=by_metric)

    def at(
        self, folder: Path, losses: Sequence[NamedLoss], again: str
    ) -> contextlib.AbstractContextManager[None]:
        """Nothing: episodes leave no files, and are soon done again."""
        return contextlib.nullcontext()


@dataclass(frozen=True)
class FullSize:
    """Full-size trainings on the setting's seeds: the same images and initial weights for every
    loss.

    Attributes:
        name, rates: as those of `FewShot`.
        session: what trains.
    """

    name: str
    rates: tuple[float, ...]
    session: "TrainingSession"

    @property
    def classes(self) -> int:
        """Of the data."""
        return self.session.images.classes

    @property
    def fingerprint(self) -> str:
        """Of the images."""
        return self.session.images.dataset.fingerprint()

    @property
    def scale(self) -> MetricScale:
        """How scores are shown."""
        target = self.session.images.target
        if not target.scale.is_accuracy:
            return target.scale
        return MetricScale(target.metric.key, target.metric.title, in_percent=target.metric.percent)

    @property
    def unit(self) -> str:
        """What a score is the mean of."""
        return "seeds, on the validation share"

    def train(self, named: NamedLoss, lr: float) -> Score:
        """The mean validation score after the last epoch; an interrupted training goes on from its
        checkpoint.

        Raises:
            Interrupted: someone asked to stop.
        """
        runs = [self.session.train(named, lr, seed) for seed in self.session.seeds]
        for path in (self.session.folder / "state").glob(f"{named.slug}-*/model.safetensors"):
            path.unlink()  # a thousand losses' weights would fill a disk, and nothing reads them
        reason = next((x.failed for x in runs if x.failed), "")
        metric = self.session.images.target.metric
        scores = [math.nan if x.failed else self.scale.score(x.validation(metric)) for x in runs]
        if self.scale.is_accuracy:
            return as_score(lr, scores, reason)
        accuracies = [math.nan if x.failed else x.epochs[-1]["val_accuracy"] for x in runs]
        return as_score(lr, accuracies, reason, by_metric=scores)

    @contextlib.contextmanager
    def at(self, folder: Path, losses: Sequence[NamedLoss], again: str) -> Iterator[None]:
        """Keep checkpoints and records in this folder, and at last the tables of all of them.

        Args:
            folder: the setting's.
            losses: the losses.
            again: the call that takes on a training that Ctrl-C has left.
        """
        from metaloss.training.interruption import resumable

        self.session.folder = folder / "trainings"
        self.session.folder.mkdir(parents=True, exist_ok=True)
        self.session.recall(losses, self.rates)  # a loss that has its score is not trained again
        with resumable(self.session, again):
            yield
        for name, data in folders.tables([*self.session.done.values()]).items():
            storage.write(self.session.folder / name, data)


Regime = FewShot | FullSize


def as_score(
    lr: float,
    accuracies: Sequence[float],
    reason: str = "",
    by_metric: Sequence[float] | None = None,
) -> Score:
    """The score that these accuracies make, NaN being a failure.

    Args:
        lr: the learning rate.
        accuracies: of tasks or seeds.
        reason: of the first failure.
        by_metric: their scores, where the setting has another metric.
    """
    right = torch.tensor(accuracies, dtype=torch.float64)
    scores = right if by_metric is None else torch.tensor(by_metric, dtype=torch.float64)
    # A failure counts as 0, so that a loss that often fails ranks low.
    values = scores.nan_to_num(nan=0.0)
    return Score(
        lr,
        accuracy=float(right.nan_to_num(nan=0.0).mean()),
        std=float(values.std()) if len(values) > 1 else None,
        n=len(values),
        failed=int(scores.isnan().sum()),
        reason=reason,
        by_metric=None if by_metric is None else float(values.mean()),
    )


def best(regime: Regime, named: NamedLoss) -> Score:
    """The best score among the regime's rates; the first rate of those that reach it."""
    return max((regime.train(named, lr) for lr in regime.rates), key=lambda x: x.score)


def open_regimes(
    study: Study, engine: Engine, stop: Callable[[], bool], where: Mapping[str, str] | None = None
) -> list[Regime]:
    """The settings of a study, their images loaded, from `where` these lie by the setting's name.

    Raises:
        SettingsError: a setting that cannot be, or Lightning is needed and not installed.
        DataError: images that are missing or do not fit.
    """
    return [
        _few_shot(study, x, engine)
        if x["kind"] == "tasks"
        else _full_size(study, x, engine.device, stop)
        for x in map(partial(_placed, where or {}), study.settings)
    ]


def _placed(where: Mapping[str, str], table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A setting with the images where these lie now."""
    placed = dict(table)
    if is_path_source(place := where.get(table["name"], "")):
        placed["family" if table["kind"] == "tasks" else "data"] = place
    if (role := features_role(table["name"])) in where:
        placed["features"] = where[role]
    return placed


def _few_shot(study: Study, table: Mapping[str, Any], engine: Engine) -> FewShot:
    overrides = {
        key: x for key, x in table.items() if key not in ("kind", "name", "family", "rates")
    }
    for key in overrides:
        if key not in EPISODE_SETTINGS:
            known = [*EPISODE_SETTINGS, "rates"]
            raise SettingsError(
                f"{table['name']}: {registry.unknown_message('setting', key, known)}"
            )
    family = changed(episodic_family.read(table["family"], overrides), overrides)
    episodes = open_episodes(family, engine.device)
    rates = tuple(map(float, table.get("rates") or study.rates)) or (family.inner.lr,)
    return FewShot(
        table["name"],
        rates,
        EpisodeEvaluation(engine, episodes, Stream(study.seed)),
        study.tasks,
    )


def _full_size(
    study: Study, table: Mapping[str, Any], device: torch.device, stop: Callable[[], bool]
) -> FullSize:
    from metaloss.training import fitting
    from metaloss.training.defaults import decided
    from metaloss.training.images import open_images
    from metaloss.training.models import check_model
    from metaloss.training.session import TrainingSession
    from metaloss.training.settings import resolve

    # Refused here, before images are loaded.
    fitting.needed()
    overrides = {key: x for key, x in table.items() if key not in ("kind", "name")}
    settings = resolve({"seed": study.seed, **overrides})
    if not settings.validation:
        raise SettingsError(
            f"{table['name']}: validation = 0 holds out no images, and a study scores losses on "
            "them: a validation above 0"
        )
    check_model(settings.model)
    images = open_images(settings, device)
    # Some defaults hang on how many images there are to train on.
    rows = images.training_rows(settings.per_class, Stream(settings.seed))
    settings = decided(settings, len(rows), images.feature_count)
    session = TrainingSession(Path(), settings, images, [], device, None, Reporter(), stop)
    session.check()
    return FullSize(table["name"], settings.rates or study.rates or (settings.rate,), session)
