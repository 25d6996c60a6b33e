"""P losses that read a whole batch, run together: Dice, soft F1, expected confusion matrices.

A classifier's value is a function of one number per class for each of its counts, so its gradient
is that of the counts, which is small, times what each image adds to them.
"""

from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.errors import SettingsError
from metaloss.losses.batch_formulas import BatchLoss, SoftCounts
from metaloss.losses.parametrised import ParametrisedLosses


@dataclass(frozen=True)
class BatchLosses(ParametrisedLosses[BatchLoss]):
    """P losses that read a whole batch."""

    def terms(self, logits: Float[Tensor, "P T B C"]) -> NoReturn:
        """None: an image has no value of its own.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(f"{self.form.name} {self.form.scope}, so no image has a value")

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value: the mean over the classes of what the batch's counts give."""
        loss = self._loss(logits)
        counts = self._counts(loss.share(self._probabilities(logits)))
        return loss.of_classes(counts).mean(-2)[..., 0]

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        loss = self._loss(logits)
        p = self._probabilities(logits)
        by_overlap, by_predicted = self._by_counts(loss, self._counts(loss.share(p)))
        # ∂L/∂share = y ∂L/∂overlap + ∂L/∂predicted, for an image of weight 1.
        G = torch.addcmul(by_predicted, self._y.mT, by_overlap)  # [P T C B]
        slope = loss.share_slope(p)
        if slope is not None:
            G = G.mul_(slope)
        if self.weight is not None:
            G = G.mul_(self.weight[:, None])
        # Through softmax: ∂L/∂z = p (G - Σ p G).
        return G.sub_((p * G).sum(-2, keepdim=True)).mul_(p).mT

    def _by_counts(self, loss: BatchLoss, counts: SoftCounts) -> tuple[Tensor, Tensor]:
        """The gradient of each classifier's value by its overlap and by what it predicts."""
        # The inner loop runs without gradients; here a graph of [P T C] numbers is needed.
        with torch.enable_grad():
            overlap, predicted = (
                x.detach().requires_grad_() for x in (counts.overlap, counts.predicted)
            )
            value = loss.of_classes(replace(counts, overlap=overlap, predicted=predicted))
            by_overlap, by_predicted = torch.autograd.grad(
                value.mean(-2).sum(), (overlap, predicted), materialize_grads=True
            )
        return by_overlap, by_predicted

    def _probabilities(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T C B"]:
        p = logits.mT.contiguous().softmax(-2)
        if self.weight is None:
            return p
        # Selected: an image that pads a task may have logits that are not finite.
        return p.masked_fill((self.weight == 0)[:, None], 0)

    def _counts(self, share: Float[Tensor, "P T C B"]) -> SoftCounts:
        """The counts [P T C 1]; those of the labels are one for all classifiers, [T C 1]."""
        y = self._y.mT  # [T C B]
        weight = y.new_ones(len(y), y.shape[-1]) if self.weight is None else self.weight
        if self.weight is not None:
            share = share * weight[:, None]
        actual = (y * weight[:, None]).sum(-1, keepdim=True)
        return SoftCounts(
            overlap=(share * y).sum(-1, keepdim=True),
            predicted=share.sum(-1, keepdim=True),
            actual=actual,
            total=weight.sum(-1)[:, None, None],
            present=actual > 0,
        )
