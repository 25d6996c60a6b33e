"""Published losses that are no formula of one class, as criteria.

Some are ratios of sums over all images of a batch, or all pixels, as Dice is; some see all classes
of an image at once.
"""

import inspect
from dataclasses import fields
from typing import Any, Self

import torch

from metaloss.criterion.base import Criterion
from metaloss.criterion.loss_module import LossModule, rows, shares, widened
from metaloss.losses import batch_formulas
from metaloss.losses.base import Losses
from metaloss.losses.batch_formulas import BatchLoss, SoftCounts
from metaloss.losses.batch_losses import BatchLosses
from metaloss.losses.image_formulas import ImageLoss
from metaloss.losses.image_losses import ImageLosses


class BatchModule(LossModule):
    """A loss of a whole batch: the mean over the classes of what it makes of their soft counts.

    Args:
        loss: what it makes of them.
        options: as `LossModule`'s; `reduction` must be "mean", and `weight` weighs the classes'
            mean.
    """

    def __init__(self, loss: BatchLoss, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        if self.reduction != "mean" or self.normalise:
            raise ValueError(
                f"{loss.name} reads a whole batch: reduction must be 'mean', and it has no gain"
            )
        self.loss = loss

    def _value(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
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
            share = self.loss.share(z.softmax(-1)).where(valid, 0)
            y = self._smooth(y).where(valid, 0)
            counts = SoftCounts((share * y).sum(0), share.sum(0), y.sum(0), valid.sum(), present)
            terms = self.loss.of_classes(counts)
            # Where all places are ignored, nothing is to be learned.
            terms = terms.where(valid.any(), 0)
            if self.weight is None:
                return terms.mean()
            weight = self.weight.to(terms)
            return (weight * terms).sum() / weight.sum()


class ImageModule(LossModule):
    """A loss of all classes of an image together.

    Args:
        loss: what it makes of them.
        options: as `LossModule`'s.
    """

    def __init__(self, loss: ImageLoss, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.loss = loss

    def terms(self, logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        """What each image's value is the sum of, [N, C]."""
        return self.loss.terms(logits.log_softmax(-1), soft)


class NamedCriterion(Criterion):
    """A loss of the zoo that is no formula: what it says of itself."""

    loss: BatchLoss | ImageLoss

    @property
    def identity(self) -> object:
        """The loss with its parameters."""
        return self.loss

    def describe(self) -> str:
        """Its name, and the parameters that are not the defaults."""
        changed = [
            f"{field.name}={value if isinstance(value, bool) else format(value, 'g')}"
            for field in fields(self.loss)
            if (value := getattr(self.loss, field.name)) != field.default
        ]
        return self.loss.name + (f"({', '.join(changed)})" if changed else "")

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        return self.loss.latex()

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"


class BatchCriterion(BatchModule, NamedCriterion):
    """A loss of a whole batch.

    Args:
        loss: the loss.
        about, options: as `Criterion`'s; `reduction` must be "mean".
    """

    loss: BatchLoss

    def losses(self) -> Losses:
        """The loss as a population of one."""
        return BatchLosses.of(self.loss)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.loss, about=self.about, **options)


class ImageCriterion(ImageModule, NamedCriterion):
    """A loss of all classes of an image.

    Args:
        loss: the loss.
        about, options: as `Criterion`'s.
    """

    loss: ImageLoss

    def losses(self) -> Losses:
        """The loss as a population of one."""
        return ImageLosses.of(self.loss)

    def _traced_gain(self, classes: int) -> torch.Tensor:
        # Not by `one_hot`, which `torch.export` writes for one number of classes only.
        z = torch.zeros(1, classes, dtype=torch.float64)
        logp = z.log_softmax(-1)
        G = self.loss.by_logp(logp, shares(torch.zeros(1, dtype=torch.int64), z))
        slope = (G - logp.exp() * G.sum())[0, 0]
        return -slope * classes / (classes - 1)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.loss, about=self.about, **options)


def named_criterion(
    loss: BatchLoss | ImageLoss, about: dict[str, Any] | None = None
) -> BatchCriterion | ImageCriterion:
    """A loss that is no formula as a criterion."""
    about = about or {"name": loss.name}
    if isinstance(loss, BatchLoss):
        return BatchCriterion(loss, about=about)
    return ImageCriterion(loss, about=about)


def standalone_source(criterion: BatchCriterion | ImageCriterion) -> tuple[type, str]:
    """The class that a module for others is to be based on, and the text of it and of its loss."""
    loss = criterion.loss
    base, parts = (
        (BatchModule, [batch_formulas.ratio, SoftCounts, BatchLoss])
        if isinstance(loss, BatchLoss)
        else (ImageModule, [ImageLoss])
    )
    return base, "\n\n\n".join(
        inspect.getsource(part).rstrip() for part in (*parts, type(loss), base)
    )
