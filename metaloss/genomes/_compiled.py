"""An equivariant Meta-Loss Network whose gradient is one compiled loop, for a CPU."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._networks import ACTIVATIONS, CHANNELS, Equivariant, stretch
from metaloss.losses import images


@dataclass(frozen=True)
class CompiledEquivariant(Equivariant):
    """The same networks. Compiled are float32, labels of ones and zeros, tanh and ReLU; everything else is torch's.

    Attributes:
        laid: once bound, the weights as the compiled loop reads them; none where it does not know how.
    """

    laid: tuple[Float[Tensor, "P ..."], ...] = ()

    def __getitem__(self, rows: slice | Tensor) -> Self:
        if not self.laid:
            return super().__getitem__(rows)
        weights = {name: w[rows] for name, w in self.weights.items()}
        return replace(self, weights=weights, laid=tuple(x[rows] for x in self.laid))

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Run the label's channel for a 0 and for a 1."""
        known = target.device.type == "cpu" and target.dtype == torch.float32 and self.activation in ("tanh", "relu")
        if not known or not bool(((target == 0) | (target == 1)).all()):
            return super().bind(target)
        w, between = self._to(target).weights, ACTIVATIONS[self.activation].value
        absent, present = (
            torch.baddbmm(w["b_mix"], w["w_mix_label"], between(w["w_label"] * y + w["b_label"])) for y in (0, 1)
        )
        none = torch.zeros_like(w["w_mix_pred"])
        mean, true = w.get("w_mean", none) / target.shape[2], w.get("w_true", none)
        parts = w["w_pred"], w["b_pred"], w["w_mix_pred"], mean, true, w["w_out"], absent, present - absent
        turned = (x.mT for x in (w["w_pred"], w["w_mix_pred"], mean, true))
        laid = tuple(x.contiguous() for x in (*parts, *turned))
        return replace(self, weights=w, target=target.mT.contiguous(), laid=laid)

    def pick(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        if not self.laid:
            return super().pick(index)
        return replace(self, target=images(self._y.mT, index).mT.contiguous())

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        return Equivariant.terms(Equivariant.bind(self, self._y.mT) if self.laid else self, logits)

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
