"""Full trainings as tasks: a loss scores what a network reaches with it, and a task is a seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes
from metaloss.data.groups import digest_of_groups
from metaloss.data.pools import pools
from metaloss.errors import SettingsError
from metaloss.inner.metrics import Metric
from metaloss.inner.observers import Observer
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.storage.environment import digest_of_rows
from metaloss.tasks.held_out_halves import open_halved_images
from metaloss.tasks.one_kind import OneKind
from metaloss.tasks.protocols import Engine, FamilyCost, SearchBudget
from metaloss.tasks.provenance import describe_images
from metaloss.tasks.single_training import (
    accuracy_reached,
    attempt,
    failures_as_nan,
    seconds_of_training,
    shortened,
    training_requests,
    untrained_classifier,
)
from metaloss.tasks.training_cache import TrainingCache, open_cache
from metaloss.tasks.training_family import TrainingFamily
from metaloss.tasks.worker_pool import TrainingRequest, WorkerPool
from metaloss.training.images import TrainingImages
from metaloss.training.models import ImageClassifier, build, check_batch
from metaloss.training.schedule import Schedule, make_schedule
from metaloss.training.sources import Rows


@dataclass(frozen=True, eq=False)
class FullTrainingTasks(OneKind):
    """A family of full trainings with its images on the device.

    Attributes:
        family: the settings.
        material: the images; its validation share is the half of what is held out that fitness is
            measured on.
        winner: the other half, which the winner is chosen on; no candidate's fitness has seen it.
        device: where to train.
        cache: what has been trained before, and is not trained again.
        place: where the images lie, if not where the family says.
    """

    family: TrainingFamily
    material: TrainingImages
    winner: Rows
    device: torch.device
    cache: TrainingCache = field(default_factory=TrainingCache)
    place: str = ""

    @property
    def dataset(self) -> Dataset | Files:
        """The labels, classes, splits and origin."""
        assert not isinstance(self.material.dataset, Scenes)  # refused when the family is opened
        return self.material.dataset

    @cached_property
    def pools(self) -> dict[str, tuple[Rows, ...]]:
        """The pools of images as episodes have them.

        What may be seen is "train" and "validation" together.
        """
        return {name: pool.rows for name, pool in pools(self.dataset).items()}

    @property
    def shares(self) -> dict[str, Rows]:
        """The rows of the images by their use: training, fitness, choice of the winner, test."""
        shares = self.material.shares
        return {
            "training": shares.train,
            "train": shares.validation,
            "validation": self.winner,
            "test": shares.test,
        }

    @property
    def ways(self) -> int:
        """Classes."""
        return self.material.classes

    @cached_property
    def schedule(self) -> Schedule:
        """Steps, epochs and batches of a training."""
        settings = self.family.training
        rows = self.material.training_rows(settings.per_class, Stream(0))
        return make_schedule(settings, len(rows))

    @property
    def steps(self) -> int:
        """Of a training."""
        return self.schedule.steps

    def most(self, tasks: int) -> int:
        """How many seeds there are where so many tasks are asked for."""
        return min(tasks, self.family.seeds)

    def rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates among which a loss's is chosen: the family's own, or else the run's."""
        return self.family.training.rates or rates

    @property
    def metric(self) -> None:
        """None: accuracy."""
        return

    @property
    def answers(self) -> None:
        """None: a full training has its score and nothing else."""
        return

    def measured_by(self, kind: str) -> tuple[Metric, MetricScale]:
        """Nothing.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(
            f"{self.family.name} is a family of full trainings, which have their accuracy and no "
            "other metric: leave the guard out (guard = {})"
        )

    @property
    def scale(self) -> MetricScale:
        """How scores are shown."""
        return replace(ACCURACY, guess=1 / self.ways)

    @property
    def chance(self) -> float:
        """The score of guesses."""
        return 1 / self.ways

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
        steps: Sequence[int] = (),
        metric: Observer | None = None,
        beside: tuple[str, ...] = (),
    ) -> list[Float[Tensor, "M P T"]]:
        """Scores of networks whose seeds are drawn by a key, after M numbers of steps.

        Args:
            engine: says where networks train, and when to stop.
            populations: of P losses each.
            pool: what is looked at in the end: "train", "validation" or "test".
            key: of all random draws.
            tasks: the numbers of the seeds; those beyond the family's own number do not count.
            val: for episodes alone: every pool is looked at as a whole.
            rates: of each population the highest learning rate, for all or one per loss; the
                family's own where None, and by default.
            steps: of the trainings; the family's own number where there are none.
            metric: for episodes alone: a full training has its score and nothing else.
            beside: likewise.
        """
        keys = [key.at("task", t) for t in tasks if t < self.family.seeds]
        each_rate = rates or [None] * len(populations)
        return [
            self.scores(losses, pool, keys, lr, steps, engine)
            for losses, lr in zip(populations, each_rate, strict=True)
        ]

    def sample(self, keys: list[Stream], pool: str) -> None:
        """None: all seeds look at the same images, and only the seeds can be drawn again."""

    def step_choices(self) -> tuple[int, ...]:
        """The numbers of steps among which the strongest cross-entropy's is chosen: its own."""
        return (self.steps,)

    def enlarged(self, steps: int, scale: int) -> Self:
        """The family with so many times the steps.

        Raises:
            SettingsError: `scale` is not 1, as a network has no other width.
        """
        if scale != 1:
            raise SettingsError(
                f"{self.family.origin}: a stage of full trainings cannot have scale = {scale}, "
                "only 1"
            )
        if steps == 1:
            return self
        longer = replace(self.family.training, steps=self.steps * steps)
        return replace(self, family=replace(self.family, training=longer))

    def with_cache(self, folder: Path, conditions: Callable[[], Mapping[str, str]]) -> Self:
        """The family whose trainings, each as it ends, are kept in a folder that this process has
        locked.

        Raises:
            DamagedFile: what is kept there does not check out.
        """
        return replace(self, cache=open_cache(folder, conditions()))

    def fingerprints(self) -> dict[str, str]:
        """The digests of its images and of their groups, by names among a run's conditions."""
        name, groups = self.family.name, self.dataset.groups
        of_groups = {} if groups is None else {f"groups {name}": digest_of_groups(groups)}
        return {f"data {name}": self.dataset.fingerprint(), **of_groups}

    def provenance(self) -> dict[str, Any]:
        """Where its images come from, and what each of them is used for."""
        return {
            **describe_images(self.family.dataset, self.dataset.origin, self.pools),
            "shares": {
                name: {"images": len(rows), "sha256": digest_of_rows(rows)}
                for name, rows in self.shares.items()
            },
            "use": {
                "search": "train",
                "choice": "validation",
                "test, once, after the choice": "test",
                "training": "training",
            },
        }

    def estimate(
        self, engine: Engine, losses: Losses, budget: SearchBudget, key: Stream
    ) -> FamilyCost:
        """What a search with this family costs, by the time of a few steps of one training.

        Args:
            engine: trains it.
            losses: examples of candidates; the first one is timed.
            budget: the size of the search.
            key: of the training.
        """
        trainings = budget.candidate_trainings(self.most)
        tuning = (len(self.rates(budget.rates)) + 1) * self.most(budget.baseline_tasks)
        winner = budget.election_trainings(self.most)
        test = 2 * self.most(budget.test_tasks)
        reports = budget.reports * self.most(budget.baseline_tasks)

        seconds = seconds_of_training(
            lambda steps: self.scores(losses[:1], "train", [key], steps=(steps,), engine=engine),
            self.schedule,
        )
        seconds_each = seconds / engine.attempts_at_once(self)
        return FamilyCost(trainings, seconds_each * (trainings + tuning + winner + test + reports))

    def scores(
        self,
        losses: Losses,
        pool: str,
        keys: Sequence[Stream],
        lr: float | Float[Tensor, " P"] | None = None,
        steps: Sequence[int] = (),
        engine: Engine | None = None,
    ) -> Float[Tensor, "M P T"]:
        """Accuracies of networks after M numbers of steps, NaN where a training failed.

        A score is a function of its own loss, key, rate and steps: neither of its neighbours nor of
            where it is trained.

        Args:
            losses: P candidates; formulas that are written the same are trained once.
            pool: "train" (images for fitness), "validation" (for the choice of the winner) or
                "test".
            keys: one per task; all of a training's random draws come from it.
            lr: the highest learning rate, for all or one per candidate; the family's own where
                None.
            steps: of the trainings; the family's own number where there are none.
            engine: says where networks train, and when to stop; None: on this machine.
        """
        lr = self.family.training.rate if lr is None else lr
        rates = lr.tolist() if isinstance(lr, Tensor) else [lr] * len(losses)
        names, requests = training_requests(losses, pool, keys, rates, steps or (self.steps,))
        jobs = list(requests.values())

        def train(new: Sequence[TrainingRequest]) -> Iterator[tuple[TrainingRequest, Any]]:
            return engine.attempts(self, new) if engine else self.attempts(new, lambda: False)

        done = self.cache.results(self.family, jobs, train)
        results = dict(zip(requests, failures_as_nan(done), strict=True))
        score = torch.tensor([results[name] for name in names])
        return score.reshape(-1, len(losses), len(keys))

    def attempts(
        self, jobs: Sequence[TrainingRequest], stop: Callable[[], bool]
    ) -> Iterator[tuple[TrainingRequest, float | Exception]]:
        """Every job with its result, as it ends, on this machine."""
        if self.family.workers > 1 and len(jobs) > 1:
            yield from self.worker_pool.run(jobs, stop)
        else:
            yield from ((job, self.attempt(job, stop)) for job in jobs)

    @property
    def workers(self) -> int:
        """Trainings at once on one machine."""
        return self.family.workers

    @property
    def opener(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What opens the family in another process, and its arguments."""
        return open_full_training, (self.family, self.device, self.place)

    @property
    def fingerprint(self) -> str:
        """The digest of its images and groups."""
        return repr(self.fingerprints())

    @cached_property
    def worker_pool(self) -> WorkerPool:
        """The processes that train, each with the images of its own."""
        return WorkerPool(self.family.workers, *self.opener)

    def attempt(self, job: TrainingRequest, stop: Callable[[], bool]) -> float | Exception:
        """The accuracy that a training reaches.

        NaN where it diverged; the exception that the loss raised where it cannot be computed.
        """
        settings = shortened(self.family.training, job.steps, self.steps)
        measured = self.shares[job.pool]
        train = partial(accuracy_reached, job, settings, self.material, measured, self.device, stop)
        return attempt(train, self.device)

    def classifier(self, key: Stream) -> ImageClassifier:
        """The untrained network of a seed, the same for every loss and rate."""
        return untrained_classifier(self.family.training, self.material, key, self.device)


def open_full_training(
    family: TrainingFamily, device: torch.device | str = "cpu", place: str = ""
) -> FullTrainingTasks:
    """Load a family's images onto a device and halve what is held out, class by class.

    `place` is where they lie, if not where the family says.

    Raises:
        SettingsError: the network does not fit the images, or Lightning is not installed.
        DataError: images are missing, or too few.
    """
    device = torch.device(device)
    family, material, winner = open_halved_images(family, device, place)
    settings = family.training
    tasks = FullTrainingTasks(family, material, winner, device, place=place)
    # What does not fit is said before any training: the network, the batch, a warm-up that is too
    # long.
    classifier = tasks.classifier(Stream(0))
    build(settings.model, classifier.shape, Stream(0), pretrained=settings.pretrained)
    check_batch(classifier, tasks.schedule.batch)
    return tasks
