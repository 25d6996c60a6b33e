"""Trainings on parts of the images: what each answers to the images that it has not seen."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metaloss import storage
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import Interrupted
from metaloss.experiments.recommendation_by_training.folds import Part, TrainingFolds, open_folds
from metaloss.experiments.recommendation_by_training.settings import TrainingRecommendation
from metaloss.losses.base import Losses
from metaloss.storage.environment import digest_of_rows
from metaloss.tasks.protocols import Engine
from metaloss.tasks.single_training import LOOK, as_criterion, attempt, untrained_classifier
from metaloss.tasks.training_cache import fingerprint
from metaloss.tasks.worker_pool import WorkerPool
from metaloss.training.images import TrainingImages
from metaloss.training.losses import told_of_classes
from metaloss.training.models import ImageClassifier, outputs
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import Training
from metaloss.training.spec import TrainingSpec

Answers = np.ndarray  # [V C], the logits of the images that are looked at


@dataclass(frozen=True)
class FoldTraining:
    """One training.

    Attributes:
        loss: its number.
        lr: its highest learning rate.
        part: the images that are looked at in the end.
        steps: its length.
        seed: of its initial weights and batches; trainings of the same part, length and seed
            differ in nothing but loss and rate.
    """

    loss: int
    lr: float
    part: Part
    steps: int
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FoldTrainer:
    """What one process trains with.

    Attributes:
        folds: the images.
        losses: those that trainings number.
        device: where to train.
        seed: of every draw.
        seen: the images as trainings that look at a part see them.
    """

    folds: TrainingFolds
    losses: Sequence[Losses]
    device: torch.device
    seed: int
    seen: dict[Part, TrainingImages] = field(default_factory=dict)

    def attempt(
        self, training: FoldTraining, stop: Callable[[], bool]
    ) -> Answers | float | Exception:
        """What a training reaches; NaN where it diverged, or what its loss raised."""
        return attempt(partial(self._answers, training, stop), self.device)

    def _answers(self, training: FoldTraining, stop: Callable[[], bool]) -> Answers:
        from metaloss.training.module import train

        settings = self.folds.training(training.steps)
        rows, looked_at = self.folds.cut(training.part)
        if training.part not in self.seen:
            self.seen[training.part] = self.folds.seen_by(rows)
        images = self.seen[training.part]
        key = Stream(self.seed).at("training", *training.part.path, training.seed)
        schedule = make_schedule(settings, len(rows))
        spec = TrainingSpec(
            settings, images, rows, schedule, training.lr, key.at("train"), stop=stop
        )
        classifier = self.classifier(images, key)
        loss = as_criterion(self.losses[training.loss])
        train(classifier, told_of_classes(loss, images, rows).to(self.device), spec)
        classifier.eval()
        with torch.no_grad():
            batches = images.source.batches(looked_at, LOOK)
            logits = [outputs(classifier(x))[0].float().cpu() for x, _ in batches]
        # An array and no tensor: a process hands it over as plain bytes.
        return torch.cat(logits).numpy()

    def classifier(self, images: TrainingImages, key: Stream) -> ImageClassifier:
        """The untrained network of a seed, the same for every loss and rate."""
        return untrained_classifier(self.folds.settings, images, key, self.device)

    @property
    def fingerprint(self) -> str:
        """The digest of the images."""
        return self.folds.dataset.fingerprint()

    def name(self, training: FoldTraining) -> str:
        """All that decides a training but versions, device and pixels."""
        rows = [digest_of_rows(x) for x in self.folds.cut(training.part)]
        settings = registry.table(self.folds.training(training.steps))
        parts = (
            settings,
            rows,
            fingerprint(self.losses[training.loss]),
            training.lr,
            self.seed,
            training.part.path,
            training.seed,
        )
        return repr(parts)


def open_trainer(
    asked: TrainingRecommendation,
    training: Training,
    losses: Sequence[Losses],
    device: torch.device,
) -> FoldTrainer:
    """What a process of its own trains with: the images are read again there."""
    return FoldTrainer(open_folds(asked, training, device), losses, device, asked.seed)


@dataclass(frozen=True)
class AnswerCache:
    """Logits that trainings reached, a file each, so that none is made twice after a stop.

    Attributes:
        folder: where they lie; None: nothing is kept.
        conditions: versions, device and images; a training under others is another one.
    """

    folder: Path | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Float[Tensor, "V C"] | None:
        """What is kept under this name; None: nothing."""
        if self.folder is None or not storage.is_file(self._path(name)):
            return None
        return storage.read_tensors(self._path(name), storage.REMAKE)["logits"]

    def keep(self, name: str, logits: Float[Tensor, "V C"]) -> None:
        """Write logits under this name, whole or not at all."""
        if self.folder is not None:
            storage.write_tensors(self._path(name), {"logits": logits})

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        text = repr((name, *self.conditions.items()))
        return self.folder / f"{storage.sha256(text.encode())[:32]}.safetensors"


@dataclass(eq=False)
class Trainings:
    """Trainings and their results, each made once.

    Attributes:
        trainer: trains in this process.
        asked: the settings; how many trainings run at once is among them.
        cache: what was trained before a stop.
        stop: asked before every step; True drops the work.
        on_progress: is told of the steps of every training that is over.
        engine: says where they run; None: on this machine.
    """

    trainer: FoldTrainer
    asked: TrainingRecommendation
    cache: AnswerCache
    stop: Callable[[], bool]
    on_progress: Callable[[int], None]
    engine: Engine | None = None
    known: dict[FoldTraining, Float[Tensor, "V C"]] = field(default_factory=dict)

    @property
    def workers(self) -> int:
        """Trainings at once."""
        usual = 1 if self.trainer.device.type == "cuda" else os.cpu_count() or 1
        return self.asked.workers or usual

    @property
    def at_once(self) -> int:
        """The same, wherever they run."""
        return self.engine.attempts_at_once(self) if self.engine else self.workers

    @property
    def opener(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What opens the images in another process, and its arguments."""
        trainer = self.trainer
        arguments = (self.asked, trainer.folds.settings, trainer.losses, trainer.device)
        return open_trainer, arguments

    @property
    def fingerprint(self) -> str:
        """The digest of the images."""
        return self.trainer.fingerprint

    def results(self, trainings: Sequence[FoldTraining]) -> list[Float[Tensor, "V C"]]:
        """The logits of each, NaN where it failed.

        Raises:
            Interrupted: it was asked to stop.
            Exception: what every one of several losses raised.
        """
        new = [x for x in dict.fromkeys(trainings) if not self._is_known(x)]
        errors = []
        done = self.engine.attempts(self, new) if self.engine else self.attempts(new, self.stop)
        for training, result in done:
            logits = self._logits(training, result)
            self.known[training] = logits
            if isinstance(result, Exception):  # is not kept: another version may mend it
                errors.append(result)
            else:
                self.cache.keep(self.trainer.name(training), logits)
            self.on_progress(training.steps)
        if errors and len(errors) == len(new):
            raise errors[0]  # no bad candidate, but a bug, which would be hidden
        return [self.known[x] for x in trainings]

    def _is_known(self, training: FoldTraining) -> bool:
        """Whether its result is known, from before a stop, too."""
        if training in self.known:
            return True
        logits = self.cache.read(self.trainer.name(training))
        if logits is None:
            return False
        self.known[training] = logits
        self.on_progress(training.steps)
        return True

    def _logits(
        self, training: FoldTraining, result: Answers | float | Exception
    ) -> Float[Tensor, "V C"]:
        if isinstance(result, np.ndarray):
            return torch.from_numpy(result)
        folds = self.trainer.folds
        return torch.full((len(folds.cut(training.part)[1]), folds.images.classes), math.nan)

    def attempts(
        self, trainings: Sequence[FoldTraining], stop: Callable[[], bool]
    ) -> Iterator[tuple[FoldTraining, Answers | float | Exception]]:
        """Every training with what it gives, as it ends, on this machine."""
        if self.workers > 1 and len(trainings) > 1:
            yield from self.pool.run(trainings, stop)
            return
        for training in trainings:
            if stop():
                raise Interrupted
            yield training, self.trainer.attempt(training, stop)

    @cached_property
    def pool(self) -> WorkerPool:
        """The processes that train, each with the images of its own."""
        return WorkerPool(self.workers, *self.opener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "pool" in vars(self):
            self.pool.executor.shutdown(cancel_futures=True)
