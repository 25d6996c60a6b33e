"""P losses of all classes of an image together, run together."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.losses.base import (
    TrainingTargets,
    chosen_weights,
    images,
    log_softmax,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.image_formulas import ImageLoss
from metaloss.losses.parametrised import ParametrisedLosses


@dataclass(frozen=True)
class ImageLosses(ParametrisedLosses[ImageLoss]):
    """P losses of all classes of an image.

    Attributes:
        target: what `bind` keeps, class by class in memory.
        weight: of the images.
    """

    target: Float[Tensor, "T B C"] | None = None
    weight: Float[Tensor, "T B"] | None = None

    tasks_per_call: ClassVar[int] = 1

    def bind(self, targets: TrainingTargets) -> Self:
        """Keep the labels and the images' weights."""
        target = targets.target.mT.contiguous().mT
        parameters = self.parameters.to(target)
        return replace(self, parameters=parameters, target=target, weight=targets.weight)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound losses, for a minibatch."""
        return replace(
            self, target=images(self._y, index), weight=chosen_weights(self.weight, index)
        )

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

    @property
    def _y(self) -> Float[Tensor, "T B C"]:
        assert self.target is not None, "bind the targets first"
        return self.target
