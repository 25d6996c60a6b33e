"""What both architectures of the Meta-Loss Network share: P networks of one shape side by side."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import Channel
from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    logit_gradient_by_autograd,
    mean_over_images,
)
from metaloss.losses.told import ToldClock

Weights = dict[str, Float[Tensor, "P out in"]]


@dataclass(frozen=True)
class Networks(ToldClock):
    """P networks as losses.

    Attributes:
        weights: by name.
        channels: what they read of each prediction.
        activation: between the layers.
        reference_classes: how many there were at evolution.
        sees_prior: whether ln(C·π), of the class's share π, stands behind the channels.
        target, label, weight, log_prior: what `bind` keeps: labels, what depends on them alone, the
            weights of the images, and ln(C·π) where it is read.
        told: how far the training is; None: nobody has said.
    """

    weights: Weights
    channels: tuple[Channel, ...]
    activation: str
    reference_classes: int
    sees_prior: bool = False
    target: Float[Tensor, "T C B"] | None = None
    label: Tensor | None = None
    weight: Float[Tensor, "T B"] | None = None
    log_prior: Float[Tensor, "T C 1"] | None = None
    told: Clock | None = None

    tasks_per_call: ClassVar[int] = 1

    @classmethod
    def of(
        cls,
        weights: Weights,
        channels: tuple[Channel, ...],
        activation: str,
        reference_classes: int,
    ) -> Self:
        """P networks with these weights and this function between their layers."""
        return cls(weights, channels, activation, reference_classes)

    def __len__(self) -> int:
        return len(next(iter(self.weights.values())))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        label = None if self.label is None else self.label[rows]
        return replace(self, weights={k: w[rows] for k, w in self.weights.items()}, label=label)

    @property
    def reads_clock(self) -> bool:
        """Whether they see how far the training is: `w_clock` is among the weights."""
        return "w_clock" in self.weights

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """What a loss is the sum of: one term per class (K = C), or one per image (K = 1)."""
        raise NotImplementedError

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum of the terms, averaged over the batch."""
        return mean_over_images(self.terms(logits).sum(-1), self.weight)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        gradient = logit_gradient_by_autograd(self, logits, create_graph=self._trained_through)
        if self.weight is None:
            return gradient
        return gradient.masked_fill((self.weight == 0)[..., None], 0)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        raise NotImplementedError

    @property
    def _trained_through(self) -> bool:
        """Whether autograd goes through the weights, which no loop in place allows."""
        return any(w.requires_grad for w in self.weights.values())

    def _to(self, like: Tensor) -> Self:
        return replace(self, weights={k: w.to(like) for k, w in self.weights.items()})

    def _inputs(self, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P channels T C B"]:
        inputs = [channel.value(logp, self.reference_classes) for channel in self.channels]
        if self.log_prior is not None:
            inputs.append(self.log_prior.expand_as(logp))
        return torch.stack(inputs, 1)

    @property
    def _first_bias(self) -> Float[Tensor, "P out 1"]:
        """The bias of the ŷ channel's first layer, with what it reads of the clock."""
        bias = self.weights["b_pred"]
        if not self.reads_clock:
            return bias
        # The same for all images and classes: no input of its own is needed.
        t, logn = self.clock.centred
        by_t, by_logn = self.weights["w_clock"].split(1, dim=2)
        result: Tensor = bias + by_t * t + by_logn * logn
        return result

    def _log_prior_of(self, targets: TrainingTargets) -> Float[Tensor, "T C 1"] | None:
        return targets.shares["logprior"][..., None] if self.sees_prior else None
