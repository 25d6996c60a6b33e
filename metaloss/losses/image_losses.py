"""P losses of all classes of an image together, run together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.losses.base import (
    log_softmax,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.image_formulas import ImageLoss
from metaloss.losses.parametrised import ParametrisedLosses


@dataclass(frozen=True)
class ImageLosses(ParametrisedLosses[ImageLoss]):
    """P losses of all classes of an image."""

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """What each class adds to an image's value."""
        return self._loss(logits).terms(log_softmax(logits), self._y)

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value: the terms' sum, averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        logp = log_softmax(logits.mT.contiguous().mT)
        G = self._loss(logits).by_logp(logp, self._y)  # [P T B C], class by class in memory
        # The way through log-softmax: ∂L/∂z = G - p ΣG.
        gradient = torch.addcmul(G, logp.exp(), G.sum(-1, keepdim=True), value=-1)
        return weigh_images(gradient.div_(logits.shape[2]), self.weight)
