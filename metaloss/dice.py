"""The Dice loss for segmentation: a ratio of sums over all pixels of a class, so no sum over images that episodes need.

One minus twice the overlap of prediction and target over the sum of both, per class, averaged over the classes; as in
segmentation_models_pytorch, whose defaults (no smoothing, 1e-7 below) are used.
"""

from typing import Any, Self

import torch
from torch import Tensor

from metaloss.criterion import Criterion, rows, shares, widened
from metaloss.errors import SettingsError
from metaloss.losses import Losses

LEAST = 1e-7


class Dice(Criterion):
    """Takes what `Criterion` takes; `reduction` must be "mean", and `weight` weighs the classes' mean.

    Args:
        smooth: added above and below.
        options: as `Criterion`'s.
    """

    def __init__(self, smooth: float = 0.0, **options: Any) -> None:
        super().__init__({"name": "dice", "source": "segmentation_models_pytorch"}, **options)
        if self.reduction != "mean" or self.normalise:
            raise ValueError("dice is a ratio over the whole batch: reduction must be 'mean', and it has no gain")
        self.smooth = smooth

    def losses(self) -> Losses:
        """None.

        Raises:
            SettingsError: always.
        """
        raise SettingsError("dice is a ratio over the whole batch; episodes need a loss that is a sum over images")

    def describe(self) -> str:
        """Its name."""
        return "dice" + (f"(smooth={self.smooth:g})" if self.smooth else "")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: the shapes do not go together.
        """
        self._check(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            z = widened(logits)
            if target.is_floating_point():
                y, valid = rows(target).to(z), torch.ones_like(z[:, :1])
            else:
                label = target.reshape(-1)
                counts = label != self.ignore_index
                y, valid = shares(label.where(counts, 0), z), counts.to(z)[:, None]
            p, y = z.softmax(-1).where(valid > 0, 0), self._smooth(y) * valid
            below = (p.sum(0) + y.sum(0) + self.smooth).clamp(min=LEAST)
            terms = 1 - (2 * (p * y).sum(0) + self.smooth) / below
            weight = torch.ones_like(terms) if self.weight is None else self.weight.to(terms)
            return (weight * terms).sum() / weight.sum()

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.smooth, **options)
