"""An equivariant Meta-Loss Network whose gradient is one compiled loop, for a CPU."""

from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import ACTIVATIONS
from metaloss.genomes._equivariant import Equivariant
from metaloss.kernels import LANES
from metaloss.losses.base import Clock, chosen_weights, images, weigh_images


class CompiledEquivariant(Equivariant):
    """The networks of `Equivariant`, with a compiled gradient.

    Compiled are float32, labels of ones and zeros, tanh and ReLU; torch computes everything else.
    """

    @cached_property
    def kernel_args(self) -> tuple[Any, ...]:
        """The weights of the bound networks and their channels as the compiled loop reads them.

        Nothing where the loop cannot compute them.
        """
        from metaloss.kernels.network import Weights

        w = self.weights
        y = self._y
        known = (
            y.device.type == "cpu"
            and y.dtype == torch.float32
            and self.activation in ("tanh", "relu")
            and not self._trained_through
        )
        if not known or not bool(((y == 0) | (y == 1)).all()):
            return ()
        activation = ACTIVATIONS[self.activation].value
        absent, present = (
            torch.baddbmm(
                w["b_mix"], w["w_mix_label"], activation(w["w_label"] * label + w["b_label"])
            )
            for label in (0, 1)
        )
        # Weights of 0 stand for a context that the networks do not have: one loop serves all.
        none = torch.zeros_like(w["w_mix_pred"])
        # The loop sums over the classes; the mean's divisor is put into the weights once.
        mean = w.get("w_mean", none) / y.shape[1]
        true = w.get("w_true", none)
        w_pred = w["w_pred"][..., : len(self.channels)]
        # Transposed ones too: the loop's products read rows that are contiguous in memory.
        weights = Weights(
            w_pred=w_pred,
            w_mix=w["w_mix_pred"],
            w_mean=mean,
            w_true=true,
            w_out=w["w_out"],
            label_absent=absent,
            label_present=present - absent,
            w_pred_transposed=w_pred.mT,
            w_mix_transposed=w["w_mix_pred"].mT,
            w_mean_transposed=mean.mT,
            w_true_transposed=true.mT,
        )
        channels = torch.tensor(
            [channel.parts(y.shape[1], self.reference_classes) for channel in self.channels]
        )
        return (
            Weights(*(x.contiguous().numpy() for x in weights)),
            self._kernel_bias(),
            channels.numpy(),
        )

    def _kernel_bias(self) -> Any:
        """The bias of the features, with what they read that is the same for all images."""
        y = self._y
        bias = self._first_bias[:, None].expand(-1, len(y), -1, y.shape[1])  # [P T F C]
        if self.log_prior is not None:
            bias = bias + self.weights["w_pred"][:, None, :, -1:] * self.log_prior.mT
        return bias.flatten(0, 1).contiguous().numpy()

    def at(self, clock: Clock) -> Self:
        """The networks at another point of the training."""
        if self.target is None or not self.kernel_args:
            return super().at(clock)
        moved = replace(self, told=clock)
        weights, _, channels = self.kernel_args
        # The bias alone depends on it.
        moved.__dict__["kernel_args"] = (weights, moved._kernel_bias(), channels)
        return moved

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        if not self.kernel_args:
            return super().minibatch(index)
        some = replace(
            self,
            target=images(self._y.mT, index).mT.contiguous(),
            weight=chosen_weights(self.weight, index),
        )
        some.__dict__["kernel_args"] = self.kernel_args  # the same for any images
        return some

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if torch.compiler.is_compiling() or not self.kernel_args:
            return super().logit_gradient(logits)
        from metaloss.kernels import network

        z = logits.mT.contiguous()
        gradient = torch.empty_like(z)
        before, after = (x.flatten(0, 1).numpy() for x in (z, gradient))
        network.logit_gradient(
            before,
            self._y.numpy(),
            *self.kernel_args,
            self.activation == "tanh",
            LANES,
            after,
        )
        return weigh_images(gradient.mT, self.weight)
