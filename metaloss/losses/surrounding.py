"""What losses that surround others hand on from them."""

from dataclasses import replace
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor

from metaloss.losses.base import Clock, after, reads_clock, reads_past


class Surrounding:
    """A dataclass with `losses` within it, which see the clock and the past."""

    losses: Any

    @property
    def reads_clock(self) -> bool:
        """Whether the losses depend on how far the training is."""
        return reads_clock(self.losses)

    @property
    def clock(self) -> Clock:
        """How far the training is, where the losses depend on that."""
        return self.losses.clock if reads_clock(self.losses) else Clock()

    @property
    def reads_past(self) -> bool:
        """Whether the losses depend on what was predicted for each image before."""
        return reads_past(self.losses)

    def after(self, logits: Float[Tensor, "P T B C"]) -> Self:
        """The losses after these predictions."""
        return replace(self, losses=after(self.losses, logits))  # type: ignore[type-var]
