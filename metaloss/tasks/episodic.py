"""Episodes as tasks: a loss scores what small classifiers reach with it on drawn classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core import registry
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset, load
from metaloss.data.episodes import Images, Pool, Tasks, draw
from metaloss.data.features import Features, RawFeatures
from metaloss.data.groups import digest_of_groups, with_groups
from metaloss.data.noise import nearest_mean_errors
from metaloss.data.places import features_role
from metaloss.data.pools import pools
from metaloss.data.sizes import EpisodeShape, mean_val, with_mean
from metaloss.errors import SettingsError
from metaloss.inner.classifiers import Classifier
from metaloss.inner.metrics import Metric, columns_by, costs_of, logits, scale_of, scores_by
from metaloss.inner.observers import Observer, right_answers
from metaloss.inner.observers import scores as accuracies
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.classifier_inputs import features_of, inputs_of
from metaloss.tasks.episode_costs import STEP_GRID_COST, search_cost, seconds_each, timed_tasks
from metaloss.tasks.episodic_family import (
    TaskFamily,
    available_images,
    build_metric,
    fitted,
    metric_for,
    of,
)
from metaloss.tasks.one_kind import OneKind
from metaloss.tasks.protocols import (
    Engine,
    EpisodeTrainings,
    FamilyCost,
    SearchBudget,
)
from metaloss.tasks.provenance import describe_images
from metaloss.tasks.step_counts import observe_shared, step_grid, training_lengths

WEAK = 500  # images of each class that the weak classifier behind "confusion" is fitted on


@dataclass(frozen=True)
class Episodes(OneKind):
    """A family with its images on the device: what tasks are drawn from.

    Attributes:
        family: its settings.
        dataset: where the images come from.
        images: all of them.
        pools: what tasks are drawn from, by the pool's name.
        held_out: what the validation images of a pool's tasks are drawn from, where that is not the
            pool itself.
        features: what takes the place of the pixels, as it was computed; None: nothing does.
    """

    family: TaskFamily
    dataset: Dataset
    images: Images | Features
    pools: dict[str, Pool]
    held_out: dict[str, Pool] = field(default_factory=dict)
    features: RawFeatures | None = None

    def sample(self, keys: list[Stream], pool: str = "train", val: int | None = None) -> Tasks:
        """One task per key.

        Args:
            keys: a task depends on its own key alone.
            pool: "train" (meta-training), "validation" or "test".
            val: validation images per class; the family's own number where None.
        """
        shape = self.shape
        if val is not None:
            shape = replace(shape, val=with_mean(shape.val, min(val, mean_val(shape.val))))
        tasks = draw(
            self.images,
            self.pools[pool],
            shape,
            keys,
            self.held_out.get(pool),
            self.dataset.groups,
        )
        return replace(tasks, costs=costs_of(tasks, self.metric)) if self.metric else tasks

    @cached_property
    def shape(self) -> EpisodeShape:
        """The size of its tasks and the noise of their labels."""
        available = available_images(self.family, self.dataset, list(self.pools.values()))
        noise = self.family.noise
        confused = noise is not None and noise.kind == "confusion"
        return self.family.shape(available, self._errors() if confused else None)

    def _errors(self) -> Float[Tensor, "K K"]:
        """How often a weak classifier takes each class for each other one.

        It is fitted on the images that may be learned from alone: the meta-training pool.
        """
        pool = self.pools.get("train") or next(iter(self.pools.values()))
        return nearest_mean_errors(
            [
                self.images.at(rows[None, :WEAK].to(self.images.device))[0].flatten(1).cpu()
                for rows in pool
            ]
        )

    @property
    def ways(self) -> int:
        """Classes of a task."""
        return self.family.ways

    @property
    def steps(self) -> int:
        """Of a training."""
        return self.family.inner.steps

    def episodes_of(self, key: Stream, tasks: Sequence[int]) -> list[tuple[Self, list[int]]]:
        """These tasks, with the family of episodes that they are of: this one."""
        return [(self, list(tasks))]

    def most(self, tasks: int) -> int:
        """How many tasks are drawn where so many are asked for: all of them."""
        return tasks

    def rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates among which a loss's is chosen: those of the run."""
        return rates

    @cached_property
    def model(self) -> Classifier:
        """The family's classifier."""
        return self.family.model()

    @cached_property
    def metric(self) -> Metric | None:
        """What losses are scored by, on a task's validation images; None: accuracy."""
        return metric_for(self.family, self.dataset)

    @cached_property
    def scale(self) -> MetricScale:
        """How scores are shown."""
        if self.metric is None:
            return replace(ACCURACY, guess=1 / self.ways)
        return scale_of(self.metric, self.ways)

    @property
    def chance(self) -> float:
        """The score of guesses."""
        return self.scale.score(self.scale.guess)

    @property
    def answers(self) -> Observer:
        """What the scores of a test are computed from: which images are right, or the logits."""
        return logits if self.metric else right_answers

    def observer(self, beside: tuple[str, ...] = ()) -> Observer:
        """What shows an engine the scores of trained classifiers.

        With other metrics `beside` them these follow in columns.

        Raises:
            SettingsError: a metric does not fit the classes of the data.
        """
        if beside:
            own = (self.metric, self.scale) if self.metric else self.measured_by("accuracy")
            return columns_by([own, *map(self.measured_by, beside)])
        return scores_by(self.metric, self.scale) if self.metric else accuracies

    def measured_by(self, kind: str) -> tuple[Metric, MetricScale]:
        """A further metric, with its own defaults, for the classes of the data.

        Raises:
            SettingsError: it does not fit them.
        """
        metric = build_metric({"kind": kind}, self.family, self.dataset)
        return metric, scale_of(metric, self.ways)

    def evaluate(
        self,
        engine: Engine,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: range,
        *,
        val: int | None = None,
        rates: Sequence[Rate | None] = (),
        steps: tuple[int, ...] = (),
        metric: Observer | None = None,
        beside: tuple[str, ...] = (),
    ) -> list[Float[Tensor, "M P T ..."]]:
        """What a metric says of populations of losses on the same tasks, after M numbers of steps.

        Args:
            engine: trains the classifiers.
            populations: of P losses each.
            pool: where the tasks are drawn from: "train", "validation" or "test".
            key: of the tasks, of the initial weights and of the batches.
            tasks: the numbers of the tasks that the key draws.
            val: validation images per class; the family's own number where None.
            rates: of each population a learning rate for all, or one per loss; the family's own
                where None, and by default.
            steps: ascending; the family's own number where there are none.
            metric: what is measured of the trained classifiers; the family's score where None.
            beside: further metrics, in columns behind the score.
        """
        observer = metric or self.observer(beside)
        each_rate = rates or [None] * len(populations)

        def trainings(places: list[int], marks: tuple[int, ...]) -> EpisodeTrainings:
            some = [populations[i] for i in places]
            own = [each_rate[i] for i in places]
            return self.trainings(some, pool, key, tasks, observer, rates=own, steps=marks, val=val)

        marks = steps or (self.steps,)
        lengths = [training_lengths(self.family.inner, marks, x) for x in populations]
        return observe_shared(engine, lengths, trainings)

    def trainings(
        self,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: Sequence[int],
        metric: Observer,
        *,
        rates: Sequence[Rate | None] = (),
        steps: tuple[int, ...],
        val: int | None = None,
    ) -> EpisodeTrainings:
        """What an engine is asked for, so that a metric says something along one training.

        Arguments: as for `evaluate`, but `tasks` may be any numbers; the training is as long as
        the last number of steps.
        """
        return EpisodeTrainings(
            populations,
            self,
            self.sample([key.at("task", t) for t in tasks], pool, val),
            [key.at("init", t) for t in tasks],
            metric,
            replace(self.family.inner, steps=steps[-1]),
            rates or [None] * len(populations),
            steps,
        )

    def step_choices(self) -> tuple[int, ...]:
        """The numbers of steps among which the strongest cross-entropy's is chosen."""
        return step_grid(self.family.inner)

    def enlarged(self, steps: int, scale: int) -> Self:
        """The family with more steps and wider layers, by these factors.

        Raises:
            SettingsError: more than can be.
        """
        family = self.family
        table = {k: v for k, v in registry.table(family).items() if k not in ("name", "origin")}
        inner = {**table["inner"], "steps": family.inner.steps * steps}
        layers = registry.table(self.model)
        widths = self.model.widths
        if not widths and scale != 1:
            raise SettingsError(
                f"{family.origin}: classifier '{registry.kind(self.model)}' has no widths, so a "
                f"stage cannot have scale = {scale}, only 1"
            )
        if widths:
            layers[widths] = [width * scale for width in layers[widths]]
        table |= {"inner": inner, "classifier": {"kind": registry.kind(self.model), **layers}}
        return replace(self, family=of(table, family.name, family.origin))

    def with_cache(self, folder: Path, conditions: Callable[[], Mapping[str, str]]) -> Self:
        """The same: the trainings of episodes are short, and none is kept."""
        return self

    def fingerprints(self) -> dict[str, str]:
        """The digests of its images and features, by their names among a run's conditions."""
        name = self.family.name
        of_features = {f"features {name}": self.features.digest} if self.features else {}
        groups = self.dataset.groups
        of_groups = {} if groups is None else {f"groups {name}": digest_of_groups(groups)}
        return {f"data {name}": self.dataset.fingerprint(), **of_features, **of_groups}

    def provenance(self) -> dict[str, Any]:
        """Where its images and features come from, and what each image is used for."""
        features = {"features": self.features.about()} if self.features else {}
        return {
            **features,
            **describe_images(self.family.dataset, self.dataset.origin, self.pools),
            "use": {
                "search": "train",
                "choice": "validation",
                "test, once, after the choice": "test",
            },
        }

    def estimate(
        self, engine: Engine, losses: Losses, budget: SearchBudget, key: Stream
    ) -> FamilyCost:
        """What a search with this family costs, by the time of a few trainings.

        Args:
            engine: trains them.
            losses: examples of candidates.
            budget: the size of the search.
            key: of the tasks that are timed.
        """
        n_tasks = timed_tasks(engine.workers, budget.tasks)
        keys = [key.at(t) for t in range(n_tasks)]
        tasks = self.sample(keys, val=budget.validation)
        seconds = seconds_each(lambda x: engine.score(x, self, tasks, keys), losses, n_tasks)
        tuning = STEP_GRID_COST * len(budget.rates) * budget.baseline_tasks
        return search_cost(budget, seconds, tuning)


def open_episodes(
    family: TaskFamily,
    device: torch.device | str = "cpu",
    where: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
) -> Episodes:
    """Load a family's images onto a device, and check that every class of every pool has enough of
    them.

    Args:
        family: the settings.
        device: where classifiers train.
        where: where its data lie, by their role, if not where the family says.
        reporter: is told of the images, and of the progress where a network computes features.

    Raises:
        SettingsError: its features cannot be.
        DataError: names what was found and values that fit.
        SettingsError: the metric does not fit the classes.
    """
    place = (where or {}).get(family.name, family.dataset)
    dataset = with_groups(load(place, family.image_options), family.groups)
    family = fitted(family, dataset)
    metric_for(family, dataset)
    cut = {name: pool.rows for name, pool in pools(dataset).items()}
    spec = (where or {}).get(features_role(family.name), family.features)
    features = features_of(family, dataset, place, spec, device, reporter)
    images = inputs_of(dataset, features, torch.cat(cut["train"]), device, family.view)
    if reporter is not None:
        reporter.on_images(dataset, place)
    return Episodes(family, dataset, images, cut, features=features)
