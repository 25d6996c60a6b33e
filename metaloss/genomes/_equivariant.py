"""The Meta-Loss Network whose weights all classes share."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import ACTIVATIONS, Channel
from metaloss.genomes._networks import Networks, Weights
from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    chosen_weights,
    images,
    log_softmax,
    weigh_images,
)


class Equivariant(Networks):
    """Weights shared over the classes: 1×1 convolutions, with context pooled over them."""

    @classmethod
    def of(
        cls,
        weights: Weights,
        channels: tuple[Channel, ...],
        activation: str,
        reference_classes: int,
    ) -> Self:
        """P networks; with σ in place of tanh, which takes a CPU six times as long."""
        return super().of(
            logistic(weights) if activation == "tanh" else weights,
            channels,
            activation,
            reference_classes,
        )

    @staticmethod
    def shapes(
        channels: int, features: int, hidden: int, context: str, clock: bool = False
    ) -> dict[str, tuple[int, int]]:
        """Name and shape of every weight."""
        pooled = {"none": (), "mean": ("w_mean",), "label": ("w_mean", "w_true")}[context]
        return {
            "w_pred": (features, channels),
            "b_pred": (features, 1),
            "w_label": (features, 1),
            "b_label": (features, 1),
            "w_mix_pred": (hidden, features),
            "w_mix_label": (hidden, features),
            "b_mix": (hidden, 1),
            **dict.fromkeys(pooled, (hidden, features)),
            "w_out": (1, hidden),
            **({"w_clock": (features, 2)} if clock else {}),
        }

    def bind(self, targets: TrainingTargets) -> Self:
        """The networks for these targets."""
        target = targets.target
        return replace(
            self,
            weights=self._to(target).weights,
            target=target.mT.contiguous(),
            label=None,
            weight=targets.weight,
            log_prior=self._log_prior_of(targets),
        )

    def at(self, clock: Clock) -> Self:
        """The networks at another point of the training."""
        # What labels alone give does not depend on it.
        label = self.label if self.target is None else self._label
        return replace(self, told=clock, label=label)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        target, label = (images(x.mT, index).mT.contiguous() for x in (self._y, self._label))
        weight = chosen_weights(self.weight, index)
        return replace(self, target=target, label=label, weight=weight)

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        logp = log_softmax(logits).mT
        _, _, u = self._layers(logp, ACTIVATIONS[self.activation].value)
        terms = torch.bmm(self.weights["w_out"], u) + self.weights.get("b_out", 0)
        return terms.reshape(logp.shape).mT

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits, layer by layer backwards."""
        if self._trained_through:
            return super().logit_gradient(logits)
        w = self.weights
        activation = ACTIVATIONS[self.activation]

        # --- forward, each activation in its argument's memory ---
        logp = log_softmax(logits).mT  # [P T C B]
        _, T, C, B = logp.shape
        x, h, u = self._layers(logp, activation.overwrite)

        # --- backward: the integration block ---
        du = activation.back((w["w_out"].mT / B).expand_as(u), u)  # [P H TCB]
        if "w_mean" in w:
            # Every class saw the mean over all: its gradient is spread over them.
            pooled = du.unflatten(2, (T, C, B)).sum(3).flatten(2)  # [P H TB]
            spread = (
                torch.bmm(w["w_mean"].mT, pooled)
                .div_(C)
                .unflatten(2, (T, 1, B))
                .expand(-1, -1, -1, C, -1)
            )
            if "w_true" in w:
                spread = torch.addcmul(
                    spread, self._y, torch.bmm(w["w_true"].mT, pooled).unflatten(2, (T, 1, B))
                )
            dh = spread.flatten(2).baddbmm_(w["w_mix_pred"].mT, du)  # [P F TCB]
        else:
            dh = torch.bmm(w["w_mix_pred"].mT, du)

        # --- backward: the ŷ channel, what it reads, the softmax ---
        dx = torch.bmm(w["w_pred"].mT, activation.back(dh, h)).unflatten(2, (T, C, B))
        # Not strict: behind the channels there may be the prior, which has no gradient.
        parts = zip(self.channels, dx.unbind(1), x.unbind(1), strict=False)
        gradients = [
            channel.back(grad, value, self.reference_classes) for channel, grad, value in parts
        ]
        result: Tensor = torch.ops.aten._log_softmax_backward_data(
            sum(gradients), logp, 2, logp.dtype
        ).mT
        return weigh_images(result, self.weight)

    def _layers(
        self, logp: Float[Tensor, "P T C B"], activation: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """The outputs of the layers: inputs, ŷ channel, integration block.

        Their shapes are [P channels T C B], [P F TCB] and [P H TCB].
        """
        w, (_, T, C, B) = self.weights, logp.shape
        x = self._inputs(logp)
        h = activation(torch.baddbmm(self._first_bias, w["w_pred"], x.flatten(2)))
        if "w_mean" not in w:
            return x, h, activation(torch.baddbmm(self._label.flatten(2), w["w_mix_pred"], h))
        per_class = h.unflatten(2, (T, C, B))
        # The mean comes before the product, which then has one column per image, not one per class.
        context = torch.bmm(w["w_mean"], per_class.sum(3).div_(C).flatten(2))
        if "w_true" in w:
            context = torch.baddbmm(context, w["w_true"], (per_class * self._y).sum(3).flatten(2))
        u = (self._label + context.unflatten(2, (T, 1, B))).flatten(2)
        return x, h, activation(u.baddbmm_(w["w_mix_pred"], h))

    @property
    def _y(self) -> Float[Tensor, "T C B"]:
        assert self.target is not None, "bind the targets first"
        return self.target

    @property
    def _label(self) -> Float[Tensor, "P H T C B"]:
        """The label's channel and its half of the integration block.

        They do not change while classifiers train.
        """
        if self.label is not None:
            return self.label
        # `torch.compile` cannot trace a cached property's lock, and needs no cache: its graph is
        # run as a whole.
        return self._label_half() if torch.compiler.is_compiling() else self._cached_label

    @cached_property
    def _cached_label(self) -> Float[Tensor, "P H T C B"]:
        return self._label_half()

    def _label_half(self) -> Float[Tensor, "P H T C B"]:
        w = self.weights
        y = self._y
        h = ACTIVATIONS[self.activation].value(w["w_label"] * y.reshape(1, 1, -1) + w["b_label"])
        result: Tensor = torch.baddbmm(w["b_mix"], w["w_mix_label"], h).unflatten(2, y.shape)
        return result


def logistic(weights: Weights) -> Weights:
    """An equivariant network with σ in place of tanh that gives the same values, for targets that
    add up to 1.

    tanh x = 2 σ(2x) - 1: the factors go into the weights, what the next layer loses by -1 into its
    bias.
    """
    scales = dict.fromkeys(("w_mix_pred", "w_mix_label", "w_mean", "w_true"), 4)
    w = {name: x * scales.get(name, 2) for name, x in weights.items()}
    w["b_mix"] = w["b_mix"] - sum(w[name].sum(2, keepdim=True) / 2 for name in scales if name in w)
    return w | {"b_out": -weights["w_out"].sum(2, keepdim=True)}
