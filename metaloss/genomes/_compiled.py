"""An equivariant Meta-Loss Network whose gradient is one compiled loop, for a CPU."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import ACTIVATIONS
from metaloss.genomes._compiled_gradient import filled_adjoint, image_shares
from metaloss.genomes._equivariant import Equivariant
from metaloss.kernels import UNITS
from metaloss.losses.base import Clock, chosen_weights, images, weigh_images
from metaloss.losses.written_adjoint import LogitAdjoint


class CompiledEquivariant(Equivariant):
    """The networks of `Equivariant`, with a compiled gradient.

    Compiled are float32, labels of ones and zeros, tanh and ReLU; torch computes everything else.
    """

    @cached_property
    def kernel_args(self) -> tuple[Any, ...]:
        """The weights of the bound networks and their channels as the compiled loop reads them.

        Nothing where the loop cannot compute them.
        """
        from metaloss.kernels.losses.network import Places

        y = self._y
        known = (
            y.device.type == "cpu"
            and y.dtype == torch.float32
            and self.activation in ("tanh", "relu")
            and not self._trained_through
        )
        if not known or not bool(((y == 0) | (y == 1)).all()):
            return ()
        w_pred, _, *others, w_out, absent, present = self.numbers[:8]
        # Units whose weights are 0 fill the layers up to whole tiles.
        w_pred = _padded(w_pred, rows=True)
        mix, mean, true = (_padded(x, rows=True, columns=True) for x in others)
        # Transposed ones too: the loop's products read numbers that lie side by side in memory.
        places = Places(
            pred=_tiled(w_pred),
            mix=_tiled(mix),
            mean=_tiled(mean),
            true=_tiled(true),
            out=_padded(w_out, rows=True),
            absent=_padded(absent, rows=True),
            present=_padded(present, rows=True),
            pred_transposed=w_pred.mT,
            mix_transposed=_tiled(mix.mT),
            mean_transposed=_tiled(mean.mT),
            true_transposed=_tiled(true.mT),
        )
        channels = torch.tensor(
            [channel.parts(y.shape[1], self.reference_classes) for channel in self.channels]
        )
        return (
            torch.cat([x.flatten(1) for x in places], 1).numpy(),
            self._kernel_bias(),
            channels.numpy(),
            (mix.shape[2], mix.shape[1]),
        )

    @cached_property
    def adjoint_weights(self) -> Any:
        """The weights as the compiled adjoint reads them."""
        from metaloss.kernels.losses.network_layers import Weights

        w_pred, _, w_mix, w_mean, w_true, w_out, absent, present, *_ = self.numbers
        weights = Weights(
            w_pred=w_pred,
            w_mix=w_mix,
            w_mean=w_mean,
            w_true=w_true,
            w_out=w_out.mT,
            label_absent=absent,
            label_present=present,
            w_pred_transposed=w_pred.mT,
            w_mix_transposed=w_mix.mT,
            w_mean_transposed=w_mean.mT,
            w_true_transposed=w_true.mT,
        )
        return Weights(*(x.contiguous().numpy() for x in weights))

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """What the compiled loops read, in the order of their derivatives, and the clock's weights.

        The label's two values, which are given for all of its class's images, stand at the end.
        """
        w = self.weights
        activation = ACTIVATIONS[self.activation].value
        absent, present = (
            torch.baddbmm(
                w["b_mix"], w["w_mix_label"], activation(w["w_label"] * label + w["b_label"])
            )
            for label in (0, 1)
        )
        # Weights of 0 stand for a context that the networks do not have: one loop serves all.
        none = torch.zeros_like(w["w_mix_pred"])
        return (
            w["w_pred"][..., : len(self.channels)],
            w["b_pred"],
            w["w_mix_pred"],
            # The loop sums over the classes; the mean's divisor is put into the weights once.
            w.get("w_mean", none) / self._y.shape[1],
            w.get("w_true", none),
            w["w_out"].mT,
            absent,
            present - absent,
            *([w["w_clock"]] if self.reads_clock else []),
        )

    @property
    def writes_adjoint(self) -> bool:
        """Whether a compiled loop computes the adjoint of these networks' gradient."""
        return bool(self.kernel_args) and self.log_prior is None

    def logit_gradient_adjoint(
        self, logits: Float[Tensor, "P T B C"], change: Float[Tensor, "P T B C"]
    ) -> LogitAdjoint:
        """The gradient at logits, and the derivatives of its product with a change of these."""
        from metaloss.kernels.losses.network_adjoint import logit_gradient_adjoint, zeros_for

        weights = self.adjoint_weights
        numbers = zeros_for(weights)
        _, bias, channels, _ = self.kernel_args
        args = (
            self._y.numpy(),
            weights,
            # Without the features that fill up the layer.
            bias[:, : numbers.bias.shape[1]].copy(),
            channels,
            self.activation == "tanh",
            image_shares(self._y, self.weight).numpy(),
        )
        adjoint = filled_adjoint(logit_gradient_adjoint, args, logits, change, numbers)
        by_numbers = list(map(torch.from_numpy, numbers))
        if self.reads_clock:
            # The clock moves the bias of the features.
            by_numbers.append(by_numbers[1] * torch.tensor(self.clock.centred))
        return LogitAdjoint(*adjoint, tuple(by_numbers))

    def _kernel_bias(self) -> Any:
        """The bias of the features, with what they read that is the same for all images."""
        y = self._y
        bias = self._first_bias[:, None].expand(-1, len(y), -1, y.shape[1])  # [P T F C]
        if self.log_prior is not None:
            bias = bias + self.weights["w_pred"][:, None, :, -1:] * self.log_prior.mT
        return _padded(bias.flatten(0, 1), rows=True).contiguous().numpy()

    def at(self, clock: Clock) -> Self:
        """The networks at another point of the training."""
        if self.target is None or not self.kernel_args:
            return super().at(clock)
        moved = replace(self, told=clock)
        weights, _, *others = self.kernel_args
        # The bias alone depends on it.
        moved.__dict__["kernel_args"] = (weights, moved._kernel_bias(), *others)
        moved.__dict__["adjoint_weights"] = self.adjoint_weights
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

    @property
    def perceptron_step(self) -> Callable[[tuple[Any, ...], Any], None] | None:
        """A whole step of perceptrons, where the compiled loop computes these networks."""
        if self.weight is not None or not self.kernel_args:
            return None
        from metaloss.kernels.losses import network_training

        args = (self._y.numpy(), *self.kernel_args, self.activation == "tanh")
        return lambda perceptrons, rates: network_training.train_step(perceptrons, rates, *args)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if torch.compiler.is_compiling() or not self.kernel_args:
            return super().logit_gradient(logits)
        from metaloss.kernels.losses import network

        z = logits.mT.contiguous()
        gradient = torch.empty_like(z)
        before, after = (x.flatten(0, 1).numpy() for x in (z, gradient))
        network.logit_gradient(
            before,
            self._y.numpy(),
            *self.kernel_args,
            self.activation == "tanh",
            after,
        )
        return weigh_images(gradient.mT, self.weight)


def _padded(
    x: Float[Tensor, "N R K"], rows: bool = False, columns: bool = False
) -> Float[Tensor, "N _ _"]:
    """Matrices with 0 in further rows or columns, up to a multiple of UNITS."""
    sizes = (columns and -x.shape[2] % UNITS, rows and -x.shape[1] % UNITS)
    return torch.nn.functional.pad(x, (0, int(sizes[0]), 0, int(sizes[1])))


def _tiled(x: Float[Tensor, "N R K"]) -> Float[Tensor, "N _ _"]:
    """UNITS rows after UNITS rows, each of these column by column."""
    tiles: Tensor = x.unflatten(1, (-1, UNITS)).mT.flatten(1, 2)
    return tiles
