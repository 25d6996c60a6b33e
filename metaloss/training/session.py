"""All trainings of a folder, one after another.

First the rates on the first seed, then every seed, then the test images.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaloss import storage
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.errors import MetalossError
from metaloss.training import cautions, distributed, figures, folders, results
from metaloss.training.corrections import cautions_of_correction, in_use, offsets_of
from metaloss.training.folders import TrainingRecord
from metaloss.training.images import TrainingImages
from metaloss.training.losses import NamedLoss, at_last_step, told_of_classes, weighted
from metaloss.training.models import (
    ImageClassifier,
    NetworkShape,
    build,
    check_batch,
    repeats,
    seeded,
)
from metaloss.training.schedule import Schedule, make_schedule
from metaloss.training.settings import Training
from metaloss.training.sources import Batch
from metaloss.training.spec import TrainingSpec, until_stopped
from metaloss.training.testing import measured_scores

PAUSE = 5.0  # seconds between two writings of the tables, at least
LOOK = 512  # test images looked at at once


@dataclass(eq=False)
class TrainingSession:
    """Trainings at work.

    Attributes:
        folder: theirs.
        settings: of the training.
        images: those of the trainings.
        losses: under their names.
        device: where to train.
        network: a network, or what makes one, in the place of a name.
        reporter: is told of every epoch.
        stop: asked before every step, and before every batch of validation and test.
    """

    folder: Path
    settings: Training
    images: TrainingImages
    losses: list[NamedLoss]
    device: torch.device
    network: Any
    reporter: Reporter
    stop: Callable[[], bool]
    done: dict[Path, TrainingRecord] = field(default_factory=dict)  # by the folder of its state
    written: float = -math.inf
    # Losses and rates that were warned of.
    exploded: set[tuple[str, float]] = field(default_factory=set)

    @property
    def seeds(self) -> list[int]:
        """Of the trainings of every loss."""
        return [self.settings.seed + i for i in range(self.settings.seeds)]

    @property
    def image_count(self) -> int:
        """How many a training learns from."""
        return len(self.images.training_rows(self.settings.per_class, Stream(self.settings.seed)))

    @property
    def schedule(self) -> Schedule:
        """How long a training is."""
        return make_schedule(self.settings, self.image_count)

    def check(self) -> None:
        """Say what does not fit, before there is a folder.

        Raises:
            SettingsError: the images are too few, or too small for the network; the batch is; the
                warm-up is too long; or what `distributed.check` says of several devices.
        """
        settings = self.settings
        classifier = self.classifier(self.settings.seed)
        batch = self.schedule.batch
        if settings.devices > 1:
            losses = {f"the loss {x.label}": x.module for x in self.losses}
            needed = {"the network": classifier, **losses}
            distributed.check(settings.devices, self.device, batch, needed)
        check_batch(classifier, batch, settings.devices)

    def cautions(self) -> list[str]:
        """What the user should know before the training begins."""
        share, images = self.settings.validation, len(self.images.shares.validation)
        groups = self.images.group_counts.get("validation", 0)
        few = cautions.few_groups(groups, images, share) or cautions.few_images(images, share)
        texts = [few, cautions.few_steps(self.schedule.steps)]
        if self.settings.thresholds:
            texts.append(cautions.few_for_thresholds(self.images.validation_counts, share))
        texts += cautions_of_correction(self.losses, offsets_of(self.settings, self.images))
        return [text for text in texts if text is not None]

    def run(self) -> dict[str, Any]:
        """Train all that is not trained yet, test, and write the summary."""
        tuning: dict[str, list[dict[str, float]]] = {}
        finals: dict[str, list[TrainingRecord]] = {}
        for loss in self.losses:
            rate = self.settings.rate
            if self.settings.rates:
                rate, tuning[loss.label] = self._tune(loss)
            finals[loss.label] = [self.train(loss, rate, seed) for seed in self.seeds]
        failures = [x.failed for runs in finals.values() for x in runs]
        self._write()
        if all(failures):
            raise MetalossError(failures[0])
        runs = [self._test(loss, x) for loss in self.losses for x in finals[loss.label]]
        table = self._summary(finals, runs, tuning)
        for text in table["cautions"]:
            self.reporter.on_warning(text)
        trained = [x for runs in finals.values() for x in runs if x.epochs]
        pictures = [
            *figures.curves(trained, self.images.target),
            *figures.confusions(table["table"], self.images.dataset.classes),
        ]
        files = {f"{p.name}.{kind}": getattr(p, kind) for p in pictures for kind in ("png", "pdf")}
        storage.write(self.folder / "results.csv", folders.per_training(runs))
        folders.finish(self.folder, table, files)
        for path in (self.folder / "state").glob("*/model.safetensors"):
            path.unlink()
        return table

    def train(self, loss: NamedLoss, lr: float, seed: int) -> TrainingRecord:
        """The record of one training, which is done or continued where it is not over."""
        state = self._state(loss, lr, seed)
        record = folders.saved(state / "done.json")
        if record is None:
            state.mkdir(parents=True, exist_ok=True)
            self._finish(loss, TrainingRecord(loss.label, lr, seed, [], []), state)
            # Read back, so that a resumed training's tables have the same numbers.
            record = folders.saved(state / "done.json")
            assert record is not None
        self.done[state] = record
        return record

    def recall(self, losses: Sequence[NamedLoss], rates: Sequence[float]) -> None:
        """Read the records of these losses' finished trainings at these rates, for the tables."""
        for loss in losses:
            for lr in rates:
                for seed in self.seeds:
                    state = self._state(loss, lr, seed)
                    if (record := folders.saved(state / "done.json")) is not None:
                        self.done[state] = record

    def classifier(self, seed: int) -> ImageClassifier:
        """The untrained classifier of a seed, the same for every loss and rate."""
        images = self.images
        settings = self.settings
        shape = NetworkShape(images.channels, images.seen_size(settings.size), images.classes)
        key = Stream(seed).at("init")
        if isinstance(self.network, nn.Module):
            network = copy.deepcopy(self.network)
        elif self.network is not None:
            network = seeded(self.network, key)
        else:
            network = build(
                settings.model,
                shape,
                key,
                pretrained=settings.pretrained,
                probe=seed == settings.seed,
            )
        repeat = repeats(network, images.channels)
        return ImageClassifier(network, shape, images.mean, images.std, repeat).to(self.device)

    def loss_module(self, loss: NamedLoss) -> nn.Module:
        """A copy of a loss as these images are trained with, on the device."""
        # As many images of a class for every seed, so any of them will do.
        rows = self.images.training_rows(self.settings.per_class, Stream(self.settings.seed))
        module = told_of_classes(copy.deepcopy(loss.module), self.images, rows)
        module = weighted(module, self.images, rows, self.settings.class_power)
        return self.images.target.adapt(module).to(self.device)

    def _tune(self, loss: NamedLoss) -> tuple[float, list[dict[str, float]]]:
        """The rate with the best validation score on the first seed, and the score of each."""
        rates = self.settings.rates
        if not len(self.images.shares.validation):
            return rates[0], []  # there is one rate, and nothing to judge it by
        tried = [self.train(loss, lr, self.seeds[0]) for lr in rates]
        metric = self.images.target.metric
        values = [x.validation(metric) for x in tried]
        # A training that failed is below every other one, whatever the others are.
        scores = [
            -math.inf if x.failed else metric.score(value)
            for x, value in zip(tried, values, strict=True)
        ]
        best = tried[scores.index(max(scores))]
        if len(tried) > 1 and best.lr in (min(rates), max(rates)):
            self.reporter.on_warning(
                f"{loss.label}: the best rate, {best.lr:g}, is at the end of those tried; try more"
            )
        pairs = zip(tried, values, strict=True)
        return best.lr, [{"lr": x.lr, f"val_{metric.key}": value} for x, value in pairs]

    def _finish(self, loss: NamedLoss, record: TrainingRecord, state: Path) -> None:
        """Train to the end, from the checkpoint where there is one; write the weights and the
        record, which says that the training is over.
        """
        from metaloss.training.module import train

        spec = self._spec(loss, record, state)
        classifier = self.classifier(record.seed)
        classes = self.images.dataset.classes
        offsets = offsets_of(self.settings, self.images)
        folders.describe(self.folder / "model.json", self.settings, classifier, classes, offsets)
        try:
            history = train(classifier, self.loss_module(loss), spec)
            failed = ""
        except MetalossError as error:
            if type(error) is not MetalossError:  # what did not come from the loss
                raise
            history = record.epochs
            failed = f"{loss.label}, seed {record.seed}: {error}"
            self.reporter.on_warning(failed)
        if not failed:
            folders.save_weights(state / "model.safetensors", classifier)
        folders.save(state / "done.json", replace(record, epochs=history, failed=failed))
        (state / "last.ckpt").unlink(missing_ok=True)

    def _spec(self, loss: NamedLoss, record: TrainingRecord, state: Path) -> TrainingSpec:
        """What one training is; its epochs are added to the record."""
        settings = self.settings
        key = Stream(record.seed)
        rows = self.images.training_rows(settings.per_class, key)
        schedule = make_schedule(settings, len(rows))
        name = {"loss": loss.label, "seed": record.seed, "rate": record.lr}

        def on_epoch(epoch: dict[str, Any], seconds: float) -> None:
            self._watch(loss, record.lr, record.seed, epoch)
            record.epochs.append(epoch)
            record.seconds.append(seconds)
            self._write(record)
            self.reporter.on_epoch({**name, **epoch}, schedule.epochs, seconds)

        def on_resume(earlier: Sequence[dict[str, Any]]) -> None:
            record.epochs.extend(earlier)
            record.seconds.extend([0.0] * len(earlier))  # not known any more

        return TrainingSpec(
            settings,
            self.images,
            rows,
            schedule,
            record.lr,
            key.at("train"),
            checkpoint=state / "last.ckpt",
            on_epoch=on_epoch,
            on_resume=on_resume,
            stop=self.stop,
            logs=self.folder / "tensorboard" / state.name if settings.tensorboard else None,
        )

    def _watch(self, loss: NamedLoss, lr: float, seed: int, record: dict[str, Any]) -> None:
        """Warn of a loss that has exploded: once for a loss and a rate."""
        place = (loss.label, lr)
        text = (
            None if place in self.exploded else cautions.exploded(record, self.images.classes, lr)
        )
        if text is not None:
            self.exploded.add(place)
            self.reporter.on_warning(f"{loss.label}, seed {seed}: {text}")

    def _state(self, loss: NamedLoss, lr: float, seed: int) -> Path:
        return self.folder / "state" / f"{loss.slug}-{lr:.12g}-{seed}"

    def _test(self, loss: NamedLoss, x: TrainingRecord) -> dict[str, Any]:
        """What a training's last weights reach on the test images; the weights' file is renamed."""
        row = {"loss": x.loss, "seed": x.seed, "lr": x.lr, "failed": x.failed, "file": ""}
        target = self.images.target
        dataset = self.images.dataset
        if x.failed:
            return row | target.scores(None, dataset.classes)
        path = self._state(loss, x.lr, x.seed) / "model.safetensors"
        classifier = self.classifier(x.seed)
        classifier.load_state_dict(storage.read_tensors(path, storage.REMAKE))
        size = target.measured_at_once(self.schedule.batch, LOOK)
        batches = self.images.source.batches(self.images.shares.test, size)
        scores = measured_scores(
            target,
            classifier,
            at_last_step(self.loss_module(loss), self.schedule.steps),
            until_stopped(batches, self.stop),
            self.images.shares.test,
            dataset,
            self._for_thresholds(size),
            offsets_of(self.settings, self.images),
        )
        file = f"model-{'' if len(self.losses) == 1 else loss.slug + '-'}{x.seed}.safetensors"
        storage.write(self.folder / file, path.read_bytes())
        return {**row, "file": file, **scores}

    def _for_thresholds(self, size: int) -> Iterable[Batch] | None:
        """The images that thresholds are chosen on; None where none are."""
        if not self.settings.thresholds:
            return None
        batches = self.images.source.batches(self.images.shares.validation, size)
        return until_stopped(batches, self.stop)

    def _summary(
        self, finals: dict[str, list[TrainingRecord]], runs: list[dict[str, Any]], tuning: Any
    ) -> dict[str, Any]:
        base = results.baseline(list(finals))
        by_loss = {label: [x for x in runs if x["loss"] == label] for label in finals}
        rates = {label: x[0].lr for label, x in finals.items()}
        lines = results.rows(by_loss, rates, base, self.images.target)
        images = {name: len(rows) for name, rows in vars(self.images.shares).items()}
        images["train"] = self.image_count
        groups = self.images.group_counts
        about = {
            "model": self.settings.model,
            "data": self.images.dataset.name,
            "images": images,
            **({"groups": groups} if groups else {}),
            "seeds": self.seeds,
        }
        results_of = {"baseline": base, "table": lines, "trainings": runs, "tuning": tuning}
        counts = self.images.class_counts(self.settings.per_class, Stream(self.settings.seed))
        warned = {"cautions": cautions.of_results(in_use(by_loss), counts, self.settings.balanced)}
        return {**about, **self.images.target.scale.entry(), **results_of, **warned}

    def _write(self, now: TrainingRecord | None = None) -> None:
        """The tables of all epochs so far; not at every one of quick epochs."""
        if now is None or time.monotonic() - self.written > PAUSE:
            for name, data in folders.tables(
                [*self.done.values(), *([now] if now else [])]
            ).items():
                storage.write(self.folder / name, data)
            self.written = time.monotonic()
