"""What a Lightning trainer of a user's own can be given."""

import math
from typing import Any

from torch import nn

from metaloss.core import installation
from metaloss.criterion.base import clock_readers
from metaloss.errors import SettingsError

try:
    import lightning
except ModuleNotFoundError:
    raise SettingsError(f"ClockCallback needs Lightning: {installation.command('train')}") from None

__all__ = ["ClockCallback"]


class ClockCallback(lightning.Callback):
    """Tells losses, before every batch, how far the training is.

    `lightning.Trainer(callbacks=[metaloss.ClockCallback()])` does it for every loss that is part of
    the trained module and reads the clock, exported ones too.

    Args:
        loss: the loss, where it is no part of the trained module.
        steps: of the optimiser in the whole training; as many as the trainer expects where None.
    """

    def __init__(self, loss: nn.Module | None = None, steps: int | None = None) -> None:
        self.loss = loss
        self.steps = steps
        self._readers: list[Any] = []
        self._total = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the losses, and how many steps there will be.

        Raises:
            SettingsError: the training has no end that is known.
        """
        total = trainer.estimated_stepping_batches if self.steps is None else self.steps
        if not math.isfinite(total) or total < 1:
            raise SettingsError(
                "the trainer does not say how many steps there will be: ClockCallback(steps=...)"
            )
        self._total = int(total)
        self._readers = clock_readers(pl_module if self.loss is None else self.loss)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say which step comes next."""
        # More steps than were expected count as the last.
        step = min(trainer.global_step, self._total)
        for loss in self._readers:
            loss.at(step, self._total)
