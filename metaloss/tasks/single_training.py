"""One full training of a family: a network of one seed, trained with one candidate."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import torch

from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.no_formula import named_criterion
from metaloss.errors import DataError, Interrupted, MetalossError, SettingsError, out_of_memory
from metaloss.losses.base import Losses, reads_clock
from metaloss.losses.formulas import Formulas
from metaloss.losses.parametrised import ParametrisedLosses
from metaloss.losses.unit_gain import LEAST, UnitGain
from metaloss.tasks.worker_pool import TrainingRequest
from metaloss.training.images import TrainingImages
from metaloss.training.losses import told_of_classes
from metaloss.training.measurement import measure
from metaloss.training.models import ImageClassifier, NetworkShape, build, repeats
from metaloss.training.schedule import Schedule, make_schedule
from metaloss.training.settings import Training
from metaloss.training.sources import Rows
from metaloss.training.spec import TrainingSpec

LOOK = 512  # images looked at at once
TIMED_STEPS = 10  # that an estimate is timed on


Reached = TypeVar("Reached")


class CandidateLoss(Criterion):
    """One of a search's losses, for a loop that wants a module."""

    def __init__(self, one: Losses, **options: Any) -> None:
        # Before the module is made, which asks whether it reads the clock.
        self.reads_clock = reads_clock(one)
        super().__init__(**options)
        self.one = one

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.one, **options)

    def losses(self) -> Losses:
        """The loss as a population of one."""
        return self.one

    def describe(self) -> str:
        """The kind of loss: candidates have no names."""
        return type(self.one).__name__


def as_criterion(one: Losses) -> Criterion:
    """A population of one as a module of logits and targets."""
    if isinstance(one, UnitGain):
        return as_criterion(one.losses).with_options(normalise=True)
    if isinstance(one, Formulas):
        return FormulaCriterion(one.formulas[0])
    if isinstance(one, ParametrisedLosses):
        return named_criterion(one.row(0))
    return CandidateLoss(one)


RequestName = tuple[int, str | int, float, Stream]  # steps, loss, learning rate, seed


def training_requests(
    losses: Losses,
    pool: str,
    keys: Sequence[Stream],
    rates: Sequence[float],
    marks: Sequence[int],
) -> tuple[list[RequestName], dict[RequestName, TrainingRequest]]:
    """The names of all trainings [M P T], and each different one's request.

    Args:
        losses: P candidates; formulas that are written the same are trained once.
        pool: what is measured in the end.
        keys: T of them, one per task.
        rates: the highest learning rate of each candidate.
        marks: M numbers of steps.
    """
    plain = losses.losses if isinstance(losses, UnitGain) else losses
    if isinstance(plain, Formulas):
        candidates: Sequence[str | int] = [formula.digest for formula in plain.formulas]
    else:
        candidates = range(len(losses))
    names = [
        (steps, candidate, rate, key)
        for steps in marks
        for candidate, rate in zip(candidates, rates, strict=True)
        for key in keys
    ]
    rows = dict(zip(candidates, range(len(losses)), strict=True))
    requests = {}
    for name in dict.fromkeys(names):
        steps, candidate, rate, key = name
        row = rows[candidate]
        requests[name] = TrainingRequest(losses[row : row + 1], pool, key, rate, steps)
    return names, requests


def attempt(train: Callable[[], Reached], device: torch.device) -> Reached | float | Exception:
    """What a training reaches.

    NaN where it diverged; the exception that the loss raised where it cannot be computed.

    Raises:
        Interrupted: it was asked to stop.
        SettingsError: its settings do not fit.
        DataError: nor do its images.
    """
    try:
        with one_thread(device):
            return train()
    except (Interrupted, SettingsError, DataError):
        raise
    except MetalossError:  # its loss was not finite
        return math.nan
    except Exception as error:
        if out_of_memory(error):
            raise
        return error


def failures_as_nan(results: Sequence[float | Exception]) -> list[float]:
    """What trainings gave, NaN where they raised; where all did, the first exception is raised."""
    if results and all(isinstance(result, Exception) for result in results):
        # No bad candidate, but a bug, which would be hidden.
        raise results[0]  # type: ignore[misc]
    return [math.nan if isinstance(result, Exception) else result for result in results]


def accuracy_reached(
    request: TrainingRequest,
    settings: Training,
    material: TrainingImages,
    measured: Rows,
    device: torch.device,
    stop: Callable[[], bool],
) -> float:
    """What a training reaches on the images that its request names.

    Args:
        request: the candidate, the seed, the rate and what is measured.
        settings: of the training, its length among them.
        material: the images.
        measured: the rows to measure on in the end.
        device: where to train.
        stop: asked before every step; True drops the work.
    """
    from metaloss.training.module import train

    key = request.key
    rows = material.training_rows(settings.per_class, key)
    schedule = make_schedule(settings, len(rows))
    spec = TrainingSpec(settings, material, rows, schedule, request.lr, key.at("train"), stop=stop)
    classifier = untrained_classifier(settings, material, key, device)
    loss = as_criterion(request.loss)
    if isinstance(request.loss, UnitGain) and loss.gain(material.classes) < LEAST:
        return math.nan  # as in episodes: there is nothing to divide by
    criterion = told_of_classes(loss, material, rows)
    history = train(classifier, criterion, spec)
    if request.pool == "train":  # these are the images that its last epoch ended with
        return float(history[-1]["val_accuracy"])
    return measure(classifier, criterion, material.source.batches(measured, LOOK)).accuracy


def untrained_classifier(
    settings: Training, material: TrainingImages, key: Stream, device: torch.device
) -> ImageClassifier:
    """The untrained network of a seed, the same for every loss and rate.

    Args:
        settings: of the training, its network among them.
        material: the images.
        key: of its initial weights.
        device: where it is put.
    """
    size = (settings.size, settings.size) if settings.size else material.size
    shape = NetworkShape(material.channels, size, material.classes)
    network = build(
        settings.model, shape, key.at("init"), pretrained=settings.pretrained, probe=False
    )
    repeat = repeats(network, material.channels)
    return ImageClassifier(network, shape, material.mean, material.std, repeat).to(device)


def seconds_of_training(train: Callable[[int], object], schedule: Schedule) -> float:
    """Seconds of one full training, by the time of a few steps.

    They are those of its start and a look at held-out images in every epoch, and of its steps.
    `train` trains for so many steps.
    """
    few = min(schedule.steps, TIMED_STEPS)
    measured = []
    for n in (1, 1, few):  # the first one imports Lightning, and is not counted
        began = time.perf_counter()
        train(n)
        measured.append(time.perf_counter() - began)
    _, one_step, several_steps = measured
    seconds_per_step = max(several_steps - one_step, 0.0) / max(few - 1, 1)
    return one_step * schedule.epochs + seconds_per_step * (schedule.steps - 1)


def shortened(settings: Training, steps: int, full: int) -> Training:
    """The settings of a training of so many steps, where the whole has `full` of them.

    Its warm-up takes the same share of them.
    """
    if steps == full:
        return settings
    warmup = None if settings.warmup is None else settings.warmup * steps // full
    return replace(settings, steps=steps, warmup=warmup)


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
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
