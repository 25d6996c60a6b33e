"""The Lightning module of a training; this file and `callbacks` alone import Lightning."""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.warnings import PossibleUserWarning  # type: ignore[attr-defined]
from torch import Tensor, nn

from metaloss import storage
from metaloss.core import installation
from metaloss.core.streams import Stream
from metaloss.criterion.base import clock_readers, past_readers
from metaloss.errors import DamagedFile, Interrupted, MetalossError, SettingsError
from metaloss.losses.base import past_refused
from metaloss.training import distributed
from metaloss.training.models import ImageClassifier, outputs
from metaloss.training.spec import (
    EpochBatches,
    NumberedBatch,
    TrainingSpec,
    on_device,
    until_stopped,
)

# Steps after which a GPU is asked whether the losses are finite; a CPU is asked every time.
WATCH = 50
LOOK = 4  # times as many images as a batch has are validated at once
PAUSE = 5.0  # seconds between two checkpoints, at least


class Supervised(lightning.LightningModule):
    """A classifier, its loss, and what becomes of them epoch by epoch.

    Args:
        classifier: is trained in place.
        loss: takes logits and class indices, or distributions where images are mixed up.
        spec: everything else.
    """

    def __init__(self, classifier: ImageClassifier, loss: nn.Module, spec: TrainingSpec) -> None:
        super().__init__()
        self.classifier = classifier
        self.loss = loss
        self.spec = spec
        self.history: list[dict[str, Any]] = []
        self.values: list[Tensor] = []  # this epoch's losses
        self.began = time.perf_counter()
        self.saved = -PAUSE
        for reader in past_readers(loss):
            reader.remember(len(spec.images.source), spec.images.classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; its rate is set before every step."""
        settings = self.spec.settings
        params = list(self.parameters())
        common: dict[str, Any] = {"lr": self.spec.lr, "weight_decay": settings.weight_decay}
        if settings.optimiser == "sgd":
            return torch.optim.SGD(
                params, momentum=settings.momentum, nesterov=settings.nesterov, **common
            )
        kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
        return kind(params, betas=settings.betas, **common)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        # Without validation images there are none, and no schedule that follows them.
        validation = [row["val_loss"] for row in self.history if "val_loss" in row]
        return self.spec.lr * self.spec.schedule.scale(step, validation)

    def on_train_batch_start(self, batch: NumberedBatch, batch_idx: int) -> None:
        """Set the rate and the loss's clock, and seed torch's generators by the numbers of the step
        and the device.
        """
        if self.spec.stop():
            raise Interrupted
        step = self.global_step
        part = (self.global_rank,) if self.spec.settings.devices > 1 else ()
        sow(self.spec.key.at("step", step, *part), self.device)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate(step)
        for loss in clock_readers(self.loss):
            loss.at(step, self.spec.schedule.steps)

    def training_step(self, batch: NumberedBatch, batch_idx: int) -> Tensor:
        """The loss of a batch, augmented."""
        settings = self.spec.settings
        pairs, rows = batch
        images, target = self.spec.images.target.prepare(self.classifier, *pairs, settings.augment)
        logits, others = outputs(self.classifier.look(images))
        past = past_readers(self.loss)
        if past and others:
            raise past_refused("this network", "further outputs to train")
        value: Tensor = self.loss(logits, target, rows) if past else self.loss(logits, target)
        for other in others:
            value = value + settings.auxiliary * self.loss(other, target)
        self.values.append(distributed.mean(value.detach(), settings.devices))
        # A GPU would have to finish all of its work before it can answer.
        period = 1 if value.device.type == "cpu" else WATCH
        if len(self.values) % period == 0:
            self._watch(period)
        return value

    def on_after_backward(self) -> None:
        """Refuse a parameter without a gradient: several devices would wait for it."""
        if self.spec.settings.devices == 1:
            return
        idle = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            raise SettingsError(
                f"devices: {', '.join(idle[:3])} had no part in the loss of a step, and several "
                "devices need all "
                "parameters: freeze them, or train on one device"
            )

    def on_train_epoch_end(self) -> None:
        """On the first device, measure on the validation share, and keep a checkpoint."""
        self._watch(WATCH)
        outcome: Any = (self._record(), self._due()) if self.global_rank == 0 else None
        record, due = self.trainer.strategy.broadcast(outcome)
        self.values = []
        self.history.append(record)
        if self.logger is not None:
            self.log_dict(
                {key: float(x) for key, x in record.items() if key not in ("epoch", "step")}
            )
        if due and self.spec.checkpoint is not None:
            self._save(self.spec.checkpoint)
            self.saved = time.monotonic()
        now = time.perf_counter()
        self.spec.on_epoch(record, now - self.began)
        self.began = now

    def _save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all.

        All devices must call this; the first one writes.
        """
        written = path.with_name(f".{path.name}.tmp")
        self.trainer.save_checkpoint(written)
        if self.global_rank == 0:
            storage.seal_file(written, path)

    def _record(self) -> dict[str, Any]:
        """What there is to say of an epoch."""
        step = self.global_step
        seen, by_metrics = self._validation()
        return {
            "epoch": len(self.history) + 1,
            "step": step,
            "train_loss": float(torch.stack(self.values).double().mean()),
            **seen,
            "lr": self.rate(step - 1),
            "first_loss": self.history[0]["first_loss"] if self.history else float(self.values[0]),
            **by_metrics,
        }

    def _validation(self) -> tuple[dict[str, float], dict[str, float]]:
        """What the network is worth on the validation images, and by the target's own metrics;
        nothing where none are held out.
        """
        spec = self.spec
        rows = spec.images.shares.validation
        if not len(rows):
            return {}, {}
        target = spec.images.target
        size = target.measured_at_once(spec.schedule.batch, LOOK * spec.schedule.batch)
        batches = until_stopped(spec.images.source.batches(rows, size), spec.stop)
        measured = target.measure(self.classifier, self.loss, batches)
        seen = {
            "val_loss": measured.loss,
            "val_accuracy": measured.accuracy,
            "val_f1": measured.f1,
        }
        return seen, {f"val_{key}": target.value(measured, key) for key in target.epoch_metrics}

    def _due(self) -> bool:
        """Whether a checkpoint is."""
        spec = self.spec
        last = self.global_step >= spec.schedule.steps
        return spec.checkpoint is not None and not last and time.monotonic() - self.saved >= PAUSE

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epochs so far."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from them."""
        self.history = checkpoint["history"]
        self.spec.on_resume(self.history)

    def _watch(self, last: int) -> None:
        """Raise a MetalossError where a loss of the last steps was not finite."""
        recent = torch.stack(self.values[-last:]).isfinite()
        if not bool(recent.all()):
            ago = len(recent) - int((~recent).nonzero()[0])
            step = len(self.values) - ago + self._before
            raise MetalossError(
                f"the loss is {float(self.values[-ago]):g} at step {step + 1} (learning rate "
                f"{self.rate(step):.3g}): "
                f"{self.loss}; try a smaller rate or another loss"
            )

    @property
    def _before(self) -> int:
        """Steps of the past epochs."""
        return int(self.history[-1]["step"]) if self.history else 0


def sow(key: Stream, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of a GPU in use.

    `torch.manual_seed` writes down a traceback for every kind of device that is not in use: a
    millisecond.
    """
    number = key.generator().initial_seed()
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)


class Placed(LightningEnvironment):
    """Tells Lightning that its processes are there already, and which one this is."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """Always: by the file beside this one."""
        return True

    def local_rank(self) -> int:
        """The number of this process and of its device."""
        return self.rank


def train(classifier: ImageClassifier, loss: nn.Module, spec: TrainingSpec) -> list[dict[str, Any]]:
    """Train a classifier in place, from the spec's checkpoint where there is one; one record per
    epoch.

    On the CPU the result is a function of the spec alone: interrupted or not, it is the same to the
    bit.

    Raises:
        MetalossError: the loss became infinite or not a number.
        Interrupted: the spec's `stop` said so; the checkpoint of an earlier epoch stays.
        DamagedFile: the checkpoint cannot be read.
        ProcessLost: the process of another device has ended.
    """
    start = spec.checkpoint if spec.checkpoint is not None and spec.checkpoint.exists() else None
    if start is not None:
        _check(start)
    if spec.settings.devices == 1:
        return _fitted(classifier, loss, spec, start, 0)
    arguments = (classifier, loss, on_device(spec, torch.device("cpu")), start)
    with distributed.spread(_follow, arguments, spec.settings.devices, spec.device):
        return _fitted(classifier, loss, spec, start, 0)


def _follow(
    rank: int,
    device: torch.device,
    classifier: ImageClassifier,
    loss: nn.Module,
    spec: TrainingSpec,
    start: Any,
) -> None:
    """What another process does: the same training, on its part of every batch."""
    _fitted(classifier.to(device), loss.to(device), on_device(spec, device), start, rank)


def _fitted(
    classifier: ImageClassifier, loss: nn.Module, spec: TrainingSpec, start: Path | None, rank: int
) -> list[dict[str, Any]]:
    module = Supervised(classifier, loss, spec)
    device = spec.device
    devices = spec.settings.devices
    strategy: Any = DDPStrategy(cluster_environment=Placed(rank)) if devices > 1 else "auto"
    with _quiet(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=devices,
            strategy=strategy,
            max_epochs=spec.schedule.epochs,
            precision=spec.settings.precision,
            logger=_logger(spec),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            gradient_clip_val=spec.settings.clip or None,
            default_root_dir=None if spec.checkpoint is None else spec.checkpoint.parent,
        )
        feed = EpochBatches(spec, lambda: module.global_step, rank)
        trainer.fit(module, feed, ckpt_path=start, weights_only=True)
    return module.history


def _check(path: Path) -> None:
    """Raise a DamagedFile unless a checkpoint is whole, and only tensors and plain values."""
    storage.check_file(path, "restore it from a copy, or remove it, and this training begins again")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever the file leads it to
        raise DamagedFile(
            f"{path}: not a checkpoint ({' '.join(str(error).split())[:200]})"
        ) from None


def _logger(spec: TrainingSpec) -> Any:
    """TensorBoard's, where it is asked for."""
    if spec.logs is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(spec.logs.parent, name="", version=spec.logs.name)
    except ModuleNotFoundError:
        raise SettingsError(
            f"tensorboard is not installed: {installation.command('tensorboard')}"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from telling what it found and what it would do otherwise."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning calls torch in its old way.
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(level)
