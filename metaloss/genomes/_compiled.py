"""An equivariant Meta-Loss Network whose gradient is one compiled loop, for a CPU."""

import math
from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._networks import ACTIVATIONS, CHANNELS, Equivariant, stretch
from metaloss.losses import images


class CompiledEquivariant(Equivariant):
    """The same networks. Compiled are float32, labels of ones and zeros, tanh and ReLU; everything else is torch's."""

    @cached_property
    def laid(self) -> tuple[Tensor, ...]:
        """The bound networks' weights [P ...] as the compiled loop reads them; none where it does not know how."""
        w, y = self.weights, self._y
        known = y.device.type == "cpu" and y.dtype == torch.float32 and self.activation in ("tanh", "relu")
        if not known or not bool(((y == 0) | (y == 1)).all()):
            return ()
        between = ACTIVATIONS[self.activation].value
        absent, present = (
            torch.baddbmm(w["b_mix"], w["w_mix_label"], between(w["w_label"] * label + w["b_label"]))
            for label in (0, 1)
        )
        none = torch.zeros_like(w["w_mix_pred"])
        mean, true = w.get("w_mean", none) / y.shape[1], w.get("w_true", none)
        parts = w["w_pred"], w["b_pred"], w["w_mix_pred"], mean, true, w["w_out"], absent, present - absent
        turned = (x.mT for x in (w["w_pred"], w["w_mix_pred"], mean, true))
        return tuple(x.contiguous() for x in (*parts, *turned))

    def pick(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        if not self.laid:
            return super().pick(index)
        some = replace(self, target=images(self._y.mT, index).mT.contiguous(), label=None)
        some.__dict__["laid"] = self.laid  # the same for any images
        return some

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        return Equivariant.terms(Equivariant.bind(self, self._y.mT) if self.label is None else self, logits)

    def slope(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        if not self.laid:
            return super().slope(logits)
        from metaloss.compiled import kernels

        z = logits.mT.contiguous()
        found, classes = torch.empty_like(z), z.shape[2]
        channels = torch.tensor([READS[channel](classes, self.home) for channel in self.channels])
        laid, label, logistic = tuple(x.numpy() for x in self.laid), self._y.numpy(), self.activation == "tanh"
        before, after = (x.flatten(0, 1).numpy() for x in (z, found))
        kernels.pull(before, label, laid, channels.numpy(), logistic, kernels.LANES, after)
        return found.mT


def _p(classes: int, home: int) -> tuple[float, ...]:
    k = stretch(classes, home)
    return k, 0.0, 0.0, 1 - k


# What p, log p and the logit's distance from the mean count in each channel's input, and what is added.
READS = {
    CHANNELS["p"]: _p,
    CHANNELS["logp"]: lambda classes, home: (0.0, 1.0, 0.0, math.log(classes / home)),
    CHANNELS["logit"]: lambda classes, home: (0.0, 0.0, 1.0, 0.0),
}
