"""Full trainings as tasks: a loss scores what a network reaches with it, and a task is a seed."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core import installation
from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion, FormulaCriterion
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes
from metaloss.data.pools import pools
from metaloss.errors import DataError, Interrupted, MetalossError, SettingsError, out_of_memory
from metaloss.inner.metrics import Metric
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas
from metaloss.storage.environment import digest_of_rows
from metaloss.tasks.protocols import Engine, FamilyCost, SearchBudget
from metaloss.tasks.provenance import describe_images
from metaloss.tasks.training_cache import TrainingCache, open_cache
from metaloss.tasks.training_family import TrainingFamily
from metaloss.tasks.worker_pool import TrainingRequest, WorkerPool
from metaloss.training.defaults import decided
from metaloss.training.images import Rows, TrainingImages, open_images
from metaloss.training.measurement import measure
from metaloss.training.models import (
    ImageClassifier,
    NetworkShape,
    build,
    check_batch,
    check_model,
    repeats,
)
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import Training
from metaloss.training.spec import TrainingSpec

LOOK = 512  # images looked at at once
TIMED_STEPS = 10  # that an estimate is timed on


class CandidateLoss(Criterion):
    """One of a search's losses, for a loop that wants a module."""

    def __init__(self, one: Losses) -> None:
        super().__init__()
        self.one = one

    def losses(self) -> Losses:
        """The loss as a population of one."""
        return self.one

    def describe(self) -> str:
        """The kind of loss: candidates have no names."""
        return type(self.one).__name__


def as_criterion(one: Losses) -> Criterion:
    """A population of one as a module of logits and targets."""
    return FormulaCriterion(one.formulas[0]) if isinstance(one, Formulas) else CandidateLoss(one)


@dataclass(frozen=True, eq=False)
class FullTrainingTasks:
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
        own = self.material.shares
        return {
            "training": own.train,
            "train": own.validation,
            "validation": self.winner,
            "test": own.test,
        }

    @property
    def ways(self) -> int:
        """Classes."""
        return self.material.classes

    @cached_property
    def length(self) -> tuple[int, int]:
        """Steps and epochs of a training."""
        chosen = self.family.training
        rows = self.material.training_rows(chosen.per_class, Stream(0))
        whole = make_schedule(chosen, len(rows))
        return whole.steps, whole.epochs

    @property
    def steps(self) -> int:
        """Of a training."""
        return self.length[0]

    def most(self, tasks: int) -> int:
        """How many seeds there are where so many tasks are asked for."""
        return min(tasks, self.family.seeds)

    def rates(self, given: Sequence[float]) -> Sequence[float]:
        """The rates among which cross-entropy's is chosen: the family's own, or else the run's."""
        return self.family.training.rates or given

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
        metric: Metric | None = None,
    ) -> list[Float[Tensor, "M P T"]]:
        """Scores of networks whose seeds are drawn by a key, after M numbers of steps.

        Args:
            engine: says when to stop; networks train on this family's own device.
            populations: of P losses each.
            pool: what is looked at in the end: "train", "validation" or "test".
            key: of all random draws.
            tasks: the numbers of the seeds; those beyond the family's own number do not count.
            val: for episodes alone: every pool is looked at as a whole.
            rates: of each population the highest learning rate, for all or one per loss; the
                family's own where None, and by default.
            steps: of the trainings; the family's own number where there are none.
            metric: for episodes alone: a full training has its score and nothing else.
        """
        keys = [key.at("task", t) for t in tasks[: self.most(len(tasks))]]
        each_rate = rates or [None] * len(populations)
        return [
            self.scores(losses, pool, keys, lr, steps, engine.stop)
            for losses, lr in zip(populations, each_rate, strict=True)
        ]

    def validation_rows(self, keys: list[Stream], pool: str) -> None:
        """None: all seeds look at the same images, and only the seeds can be drawn again."""
        return

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
        self,
        engine: Engine,
        losses: Losses,
        budget: SearchBudget,
        key: Stream,
    ) -> FamilyCost:
        """What a search with this family costs, by the time of a few steps of one training.

        Args:
            engine: for episodes alone.
            losses: examples of candidates; the first one is timed.
            budget: the size of the search.
            key: of the training.
        """
        trainings = budget.candidates * self.most(budget.tasks)
        tuning = (len(self.rates(budget.rates)) + 1) * self.most(budget.baseline_tasks)
        winner = (budget.finalists + 2) * self.most(budget.winner_tasks)
        test = 2 * self.most(budget.test_tasks)
        reports = budget.reports * self.most(budget.baseline_tasks)
        seconds_each = self._seconds_of_training(losses, key) / self.family.workers
        return FamilyCost(trainings, seconds_each * (trainings + tuning + winner + test + reports))

    def _seconds_of_training(self, losses: Losses, key: Stream) -> float:
        """Seconds of one full training.

        They are those of its start and a look at held-out images in every epoch, and of its steps.
        """
        steps, epochs = self.length
        few = min(steps, TIMED_STEPS)
        measured = []
        for n in (1, 1, few):  # the first one imports Lightning, and is not counted
            began = time.perf_counter()
            self.scores(losses[:1], "train", [key], steps=(n,))
            measured.append(time.perf_counter() - began)
        _, one_step, several_steps = measured
        seconds_per_step = max(several_steps - one_step, 0.0) / max(few - 1, 1)
        return one_step * epochs + seconds_per_step * (steps - 1)

    def scores(
        self,
        losses: Losses,
        pool: str,
        keys: Sequence[Stream],
        lr: float | Float[Tensor, " P"] | None = None,
        steps: Sequence[int] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> Float[Tensor, "M P T"]:
        """Accuracies of networks after M numbers of steps, NaN where a training failed.

        A score is a function of its own loss, key, rate and steps: neither of its neighbours nor of
            `workers`.

        Args:
            losses: P candidates; formulas that are written the same are trained once.
            pool: "train" (images for fitness), "validation" (for the choice of the winner) or
                "test".
            keys: one per task; all of a training's random draws come from it.
            lr: the highest learning rate, for all or one per candidate; the family's own where
                None.
            steps: of the trainings; the family's own number where there are none.
            stop: asked before every step; True drops the work.
        """
        own = self.family.training.rate if lr is None else lr
        rates = own.tolist() if isinstance(own, Tensor) else [own] * len(losses)
        names = (
            [f.digest for f in losses.formulas]
            if isinstance(losses, Formulas)
            else range(len(losses))
        )
        places = [
            (mark, name, rate, key)
            for mark in steps or (self.steps,)
            for name, rate in zip(names, rates, strict=True)
            for key in keys
        ]
        rows = dict(zip(names, range(len(losses)), strict=True))
        distinct = list(dict.fromkeys(places))
        jobs = [
            TrainingRequest(losses[rows[name] : rows[name] + 1], pool, key, rate, mark)
            for mark, name, rate, key in distinct
        ]
        found = dict(zip(distinct, self._done(jobs, stop), strict=True))
        score = torch.tensor([found[place] for place in places])
        return score.reshape(-1, len(losses), len(keys))

    def _done(self, jobs: Sequence[TrainingRequest], stop: Callable[[], bool]) -> list[float]:
        results = self.cache.results(self.family, jobs, lambda new: self._each(new, stop))
        if results and all(isinstance(x, Exception) for x in results):
            # No bad candidate, but a bug, which would be hidden.
            raise results[0]  # type: ignore[misc]
        return [math.nan if isinstance(x, Exception) else x for x in results]

    def _each(
        self, jobs: Sequence[TrainingRequest], stop: Callable[[], bool]
    ) -> Iterator[tuple[TrainingRequest, float | Exception]]:
        """Every job with its result, as it ends."""
        if self.family.workers > 1 and len(jobs) > 1:
            yield from self.worker_pool.run(jobs, stop)
        else:
            yield from ((job, self.attempt(job, stop)) for job in jobs)

    @cached_property
    def worker_pool(self) -> WorkerPool:
        """The processes that train, each with the images of its own."""
        return WorkerPool(
            self.family.workers, open_full_training, (self.family, self.device, self.place)
        )

    def attempt(self, job: TrainingRequest, stop: Callable[[], bool]) -> float | Exception:
        """The accuracy that a training reaches.

        NaN where it diverged; the exception that the loss raised where it cannot be computed.
        """
        try:
            with _alone(self.device):
                return self._trained(job, stop)
        except (Interrupted, SettingsError, DataError):
            raise
        except MetalossError:  # its loss was not finite
            return math.nan
        except Exception as error:
            if out_of_memory(error):
                raise
            return error

    def _trained(self, job: TrainingRequest, stop: Callable[[], bool]) -> float:
        from metaloss.training.module import train

        chosen = shortened(self.family.training, job.steps, self.steps)
        key = job.key
        rows = self.material.training_rows(chosen.per_class, key)
        path = make_schedule(chosen, len(rows))
        plan = TrainingSpec(chosen, self.material, rows, path, job.lr, key.at("train"), stop=stop)
        classifier = self.classifier(key)
        loss = as_criterion(job.loss)
        history = train(classifier, loss, plan)
        if job.pool == "train":  # these are the images that its last epoch ended with
            return float(history[-1]["val_accuracy"])
        return measure(
            classifier, loss, self.material.source.batches(self.shares[job.pool], LOOK)
        ).accuracy

    def classifier(self, key: Stream) -> ImageClassifier:
        """The untrained network of a seed, the same for every loss and rate."""
        chosen = self.family.training
        material = self.material
        size = (chosen.size, chosen.size) if chosen.size else material.size
        shape = NetworkShape(material.channels, size, material.classes)
        network = build(
            chosen.model, shape, key.at("init"), pretrained=chosen.pretrained, probe=False
        )
        repeat = repeats(network, material.channels)
        return ImageClassifier(network, shape, material.mean, material.std, repeat).to(self.device)


def open_full_training(
    family: TrainingFamily, device: torch.device | str = "cpu", place: str = ""
) -> FullTrainingTasks:
    """Load a family's images onto a device and halve what is held out, class by class.

    `place` is where they lie, if not where the family says.

    Raises:
        SettingsError: the network does not fit the images, or Lightning is not installed.
        DataError: images are missing, or too few.
    """
    if find_spec("lightning") is None:
        install = installation.command("train")
        raise SettingsError(f"{family.origin}: full-size training needs Lightning: {install}")
    chosen = family.training
    device = torch.device(device)
    check_model(chosen.model)
    material = open_images(replace(chosen, data=place or chosen.data), device)
    if isinstance(material.dataset, Scenes):
        raise SettingsError(
            f"{family.origin}: {chosen.data} has a class for every pixel; a family has one for "
            "every image"
        )
    rows = material.training_rows(chosen.per_class, Stream(0))
    chosen = decided(chosen, len(rows))
    family = replace(family, training=chosen)
    fitness, winner = halve(
        material.shares.validation, material.dataset, Stream(chosen.seed).at("halves")
    )
    material = replace(material, shares=replace(material.shares, validation=fitness))
    found = FullTrainingTasks(family, material, winner, device, place=place)
    # What does not fit is said before any training: the network, the batch, a warm-up that is too
    # long.
    classifier = found.classifier(Stream(0))
    build(chosen.model, classifier.shape, Stream(0), pretrained=chosen.pretrained)
    check_batch(classifier, make_schedule(chosen, len(rows)).batch)
    return found


def halve(held: Rows, dataset: Dataset | Files, key: Stream) -> tuple[Rows, Rows]:
    """The held-out rows in two, of every class as many in each as can be.

    Raises:
        DataError: fewer than two images of a class are held out.
    """
    first = []
    second = []
    for label, name in enumerate(dataset.classes):
        rows = held[dataset.labels[held] == label]
        if len(rows) < 2:
            raise DataError(
                f"class '{name}': {len(rows)} images are held out, and fitness and the choice of "
                "the winner need one "
                "each: raise training.validation"
            )
        rows = rows[key.at(label).permutation(len(rows))]
        first.append(rows[: len(rows) // 2])
        second.append(rows[len(rows) // 2 :])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def shortened(chosen: Training, steps: int, own: int) -> Training:
    """The settings of a training of so many steps; its warm-up takes the same share of them."""
    if steps == own:
        return chosen
    warmup = None if chosen.warmup is None else chosen.warmup * steps // own
    return replace(chosen, steps=steps, warmup=warmup)


@contextlib.contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """One thread of torch within the block.

    A result on the CPU must not depend on how many trainings run beside it.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
