"""The Meta-Loss Network of figure 3 of its paper, for one number of classes."""

from dataclasses import replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.genomes._channels import VALUES
from metaloss.genomes._networks import Networks
from metaloss.losses.base import TrainingTargets, chosen_weights, log_softmax


class Figure3(Networks):
    """The network of figure 3 (Hai 2021).

    Both channels are fully connected over the classes, stacked as two rows, and convolved into a
    loss.
    """

    @staticmethod
    def shapes(
        channels: int, features: int, hidden: int, classes: int, kernel: int, clock: bool = False
    ) -> dict[str, tuple[int, int]]:
        """Name and shape of every weight."""
        return {
            "w_pred": (hidden, channels * classes),
            "b_pred": (hidden, 1),
            "w_pred_out": (features, hidden),
            "w_label": (hidden, classes),
            "b_label": (hidden, 1),
            "w_label_out": (features, hidden),
            "w_conv": (hidden, 2 * kernel),
            "b_conv": (hidden, 1),
            "w_out": (1, hidden),
            **({"w_clock": (hidden, 2)} if clock else {}),
        }

    def bind(self, targets: TrainingTargets) -> Self:
        """The networks for these targets, with the label's channel computed once."""
        target = targets.target
        w = self._to(target).weights
        y = target.movedim(2, 0).flatten(1).expand(len(self), -1, -1)  # [P C TB]
        h = VALUES[self.activation](torch.baddbmm(w["b_label"], w["w_label"], y))
        label = torch.bmm(w["w_label_out"], h).unflatten(2, target.shape[:2])
        return replace(
            self,
            weights=w,
            label=label,  # [P F T B]
            weight=targets.weight,
            log_prior=self._log_prior_of(targets),
        )

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        assert self.label is not None, "bind the targets first"
        label = self.label.gather(-1, index.expand(*self.label.shape[:2], *index.shape))
        return replace(self, label=label, weight=chosen_weights(self.weight, index))

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B 1"]:
        """One term per image."""
        assert self.label is not None, "bind the targets first"
        w = self.weights
        value = VALUES[self.activation]
        P, T, B, _ = logits.shape
        # [P channels·C TB].
        x = self._inputs(log_softmax(logits).mT).movedim(3, 2).flatten(3).flatten(1, 2)
        h = torch.bmm(w["w_pred_out"], value(torch.baddbmm(self._first_bias, w["w_pred"], x)))
        rows = torch.stack([h, self.label.flatten(2)], 1)  # [P 2 F TB]
        kernel = w["w_conv"].shape[2] // 2
        # [P 2·kernel L·TB].
        windows = rows.unfold(2, kernel, 1).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
        u = value(torch.baddbmm(w["b_conv"], w["w_conv"], windows))
        # [P 1 L·TB], averaged over the L places of the convolution.
        return torch.bmm(w["w_out"], u).reshape(P, -1, T, B).mean(1)[..., None]
