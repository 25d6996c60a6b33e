"""What one training is, and which images each of its devices sees."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaloss.core.streams import Stream
from metaloss.data.datasets.voc import Scenes
from metaloss.errors import Interrupted
from metaloss.training.images import TrainingImages
from metaloss.training.sampling import balanced_order, batch_order
from metaloss.training.schedule import Schedule
from metaloss.training.settings import Training
from metaloss.training.sources import Batch, Resident, Rows, Streamed

NumberedBatch = tuple[Batch, Rows]  # images and labels, and the images' numbers


def _ignore_epoch(record: dict[str, Any], seconds: float) -> None:
    pass


def _ignore_history(records: Sequence[dict[str, Any]]) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, eq=False)
class TrainingSpec:
    """One training: a loss, a rate, a seed.

    Attributes:
        settings: of the training.
        images: those of the training.
        rows: those to train on.
        schedule: of the learning rate.
        lr: its highest.
        key: of every random draw.
        checkpoint: the file that an interrupted training goes on from; None: none is kept.
        on_epoch: called with every epoch's record and the seconds it took.
        on_resume: called with the records of the epochs before, where the training goes on from its
            checkpoint.
        stop: asked before every step, and before every batch of validation.
        logs: the folder of TensorBoard's files; None: none are written.
    """

    settings: Training
    images: TrainingImages
    rows: Rows
    schedule: Schedule
    lr: float
    key: Stream
    checkpoint: Path | None = None
    on_epoch: Callable[[dict[str, Any], float], None] = _ignore_epoch
    on_resume: Callable[[Sequence[dict[str, Any]]], None] = _ignore_history
    stop: Callable[[], bool] = _never
    logs: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        source = self.images.source
        return source.device if isinstance(source, Streamed) else source.labels.device


def on_device(spec: TrainingSpec, device: torch.device) -> TrainingSpec:
    """A training with its images on another device, as another process runs it.

    It calls nobody back.
    """
    source = spec.images.source
    if isinstance(source, Streamed):
        there: Resident | Streamed = replace(source, device=device)
    else:
        there = Resident(source.pixels.to(device), source.labels.to(device))
    return replace(
        spec,
        images=replace(spec.images, source=there),
        on_epoch=_ignore_epoch,
        on_resume=_ignore_history,
        stop=_never,
    )


def until_stopped(batches: Iterable[Batch], stop: Callable[[], bool]) -> Iterator[Batch]:
    """The batches, one by one, while no one asks to stop.

    Raises:
        Interrupted: `stop` says so before one of them.
    """
    for batch in batches:
        if stop():
            raise Interrupted
        yield batch


class EpochBatches:
    """The batches of the epoch that comes next: a device's part of every one.

    Args:
        spec: the training.
        step: gives the number of steps that are done.
        rank: the device's number.
    """

    def __init__(self, spec: TrainingSpec, step: Callable[[], int], rank: int) -> None:
        self.spec = spec
        self.step = step
        self.rank = rank

    def __iter__(self) -> Iterator[NumberedBatch]:
        spec = self.spec
        first = self.step()
        batch = spec.schedule.batch
        steps = min(spec.schedule.epoch_steps, spec.schedule.steps - first)
        part = batch // spec.settings.devices
        if spec.settings.sampling == "balanced":
            assert not isinstance(spec.images.dataset, Scenes)  # refused where images are opened
            labels = spec.images.dataset.labels[spec.rows]
            order = balanced_order(spec.rows, labels, batch, spec.key, first, steps)
        else:
            order = batch_order(spec.rows, batch, spec.key, first, steps)
        rows = order.reshape(steps, spec.settings.devices, part)[:, self.rank]
        return zip(spec.images.source.batches(rows.flatten(), part), rows, strict=True)
