"""The learning rate as a function of the step and of past validation losses.

Resuming therefore needs no state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metaloss.errors import SettingsError
from metaloss.training.defaults import decided, epoch_length, step_images
from metaloss.training.settings import Training


@dataclass(frozen=True)
class Schedule:
    """How long a training is, and what the rate is multiplied by on the way.

    Attributes:
        batch: images of a step.
        steps: of the whole training.
        epoch_steps: after which validation is due.
        schedule, warmup, every, factor: as in `Training`.
    """

    batch: int
    steps: int
    epoch_steps: int
    schedule: str
    warmup: int
    every: int
    factor: float

    @property
    def epochs(self) -> int:
        """How many there are; the last one may be shorter."""
        return -(-self.steps // self.epoch_steps)

    def scale(self, step: int, validation: Sequence[float]) -> float:
        """What the learning rate is multiplied by.

        Args:
            step: counted from 0.
            validation: the loss on the validation share after each past epoch.
        """
        if self.schedule == "one_cycle":
            if step < self.warmup:
                return (step + 1) / self.warmup
            return (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup))) / 2
        if self.schedule == "step":
            return float(self.factor ** (step // self.epoch_steps // self.every))
        return (
            float(self.factor ** _stalls(validation, self.every))
            if self.schedule == "plateau"
            else 1.0
        )


def make_schedule(settings: Training, images: int) -> Schedule:
    """The course that the settings ask for.

    Args:
        settings: the settings; what they leave open is decided here.
        images: how many there are to train on.

    Raises:
        SettingsError: the warm-up is longer than the training.
    """
    settings = decided(settings, images)
    each = epoch_length(settings, images)
    steps = settings.steps or (settings.epochs or 0) * each
    warmup = steps // 10 if settings.warmup is None else settings.warmup
    if settings.schedule == "one_cycle" and warmup >= steps:
        raise SettingsError(
            f"warmup must be below the {steps} steps of this training, got {warmup}"
        )
    batch = step_images(settings, images)
    return Schedule(
        batch, steps, min(each, steps), settings.schedule, warmup, settings.every, settings.factor
    )


def _stalls(losses: Sequence[float], patience: int) -> int:
    """How often the lowest loss was not improved on for so many epochs in a row.

    The count begins again after each time.
    """
    lowest = math.inf
    waited = 0
    stalls = 0
    for value in losses:
        waited = 0 if value < lowest else waited + 1
        lowest = min(lowest, value)
        if waited == patience:
            waited = 0
            stalls = stalls + 1
    return stalls
