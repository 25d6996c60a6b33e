"""The Dice loss for segmentation: a ratio of sums over all pixels of a class, so no sum over images
that episodes need.

As in segmentation_models_pytorch, whose defaults (no smoothing, 1e-7 below) are used.
"""

from typing import Any, Self

import torch

from metaloss.criterion.base import Criterion
from metaloss.criterion.loss_module import LossModule, rows, shares, widened
from metaloss.errors import SettingsError
from metaloss.losses.base import Losses


class DiceModule(LossModule):
    """One minus twice the overlap of prediction and target over the sum of both, per class,
    averaged over the classes.

    A class without a pixel in the target has the value 0, so a perfect prediction has it, too.

    Args:
        smooth: added above and below.
        options: as `LossModule`'s; `reduction` must be "mean", and `weight` weighs the classes'
            mean.
    """

    LEAST = 1e-7  # of what the overlap is divided by

    def __init__(self, smooth: float = 0.0, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        if self.reduction != "mean" or self.normalise:
            raise ValueError(
                "dice is a ratio over the whole batch: reduction must be 'mean', and it has no gain"
            )
        self.smooth = float(smooth)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar.

        Raises:
            ValueError: as `LossModule.forward`.
        """
        self._check(logits, target)
        # Sums over all pixels of a batch are too large for half precision.
        with torch.autocast(logits.device.type, enabled=False):
            z = widened(logits)
            if target.is_floating_point():
                y = rows(target).to(z)
                valid = torch.ones_like(y[:, :1], dtype=torch.bool)
            else:
                label = target.reshape(-1).long()
                valid = (label != self.ignore_index)[:, None]
                # The ignored index may be negative, which scatter refuses.
                y = shares(label.where(valid[:, 0], 0), z).where(valid, 0)
            # Before smoothing, which gives every class a share.
            present = y.sum(0) > 0
            p = z.softmax(-1).where(valid, 0)
            y = self._smooth(y).where(valid, 0)
            below = (p.sum(0) + y.sum(0) + self.smooth).clamp(min=self.LEAST)
            terms = (1 - (2 * (p * y).sum(0) + self.smooth) / below).where(present, 0)
            if self.weight is None:
                return terms.mean()
            weight = self.weight.to(terms)
            return (weight * terms).sum() / weight.sum()


class Dice(DiceModule, Criterion):
    """The Dice loss by its name.

    Args:
        smooth, options: as `DiceModule`'s.
        about: as `Criterion`'s.
    """

    def __init__(
        self, smooth: float = 0.0, about: dict[str, Any] | None = None, **options: Any
    ) -> None:
        about = about or {"name": "dice", "source": "segmentation_models_pytorch"}
        super().__init__(smooth, about=about, **options)

    def losses(self) -> Losses:
        """None.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(
            "dice is a ratio over the whole batch; episodes need a loss that is a sum over images"
        )

    def describe(self) -> str:
        """Its name."""
        return "dice" + (f"(smooth={self.smooth:g})" if self.smooth else "")

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs; n runs over the pixels of the batch."""
        above = r"2 \sum_n \hat{y}_{nc} y_{nc}"
        below = r"\sum_n \left(\hat{y}_{nc} + y_{nc}\right)"
        smooth = f" + {self.smooth:g}" if self.smooth else ""
        ratio = rf"\frac{{{above}{smooth}}}{{{below}{smooth}}}"
        return rf"\frac{{1}}{{C}} \sum_{{c:\, \sum_n y_{{nc}} > 0}} \left[1 - {ratio}\right]"

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.smooth, self.about, **options)

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"
