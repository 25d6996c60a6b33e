"""The two architectures of the Meta-Loss Network, P networks of one shape side by side."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Float[Tensor, "P out in"]]
Activation = Callable[[Tensor], Tensor]
Channel = Callable[[Tensor, Tensor, int], Tensor]  # of logits, log-probabilities and the number of classes at home

ACTIVATIONS: dict[str, Activation] = {"tanh": torch.tanh, "relu": F.relu, "softplus": F.softplus, "silu": F.silu}


def probability(logits: Tensor, logp: Tensor, home: int) -> Tensor:
    """p, stretched so that a uniform prediction reads 1/home and a certain one 1, whatever the number of classes."""
    classes = logits.shape[-1]
    if classes == home:
        return logp.exp()
    stretch = (1 - 1 / home) * classes / max(1, classes - 1)
    return logp.exp() * stretch + (1 - stretch)


def log_probability(logits: Tensor, logp: Tensor, home: int) -> Tensor:
    """log p, shifted so that a uniform prediction reads -log(home), whatever the number of classes."""
    classes = logits.shape[-1]
    return logp if classes == home else logp + math.log(classes / home)


def centred_logit(logits: Tensor, logp: Tensor, home: int) -> Tensor:
    """The logit's distance from the mean of its image's logits."""
    return logits - logits.mean(-1, keepdim=True)


CHANNELS: dict[str, Channel] = {"p": probability, "logp": log_probability, "logit": centred_logit}


@dataclass(frozen=True)
class Networks:
    """P networks as losses; `bound` holds what depends on the targets alone."""

    weights: Weights
    channels: tuple[Channel, ...]
    activation: Activation
    home: int
    target: Float[Tensor, "T B C"] | None = None
    label: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.weights.values())))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        label = None if self.label is None else self.label[rows]
        return replace(self, weights={k: w[rows] for k, w in self.weights.items()}, label=label)

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """What a loss is the sum of: one term per class (K = C), or one per image (K = 1)."""
        raise NotImplementedError

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum of the terms, averaged over the batch."""
        return self.terms(logits).sum(-1).mean(-1)

    def _to(self, like: Tensor) -> Self:
        return replace(self, weights={k: w.to(like) for k, w in self.weights.items()})

    def _inputs(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P channels T B C"]:
        logp = logits.log_softmax(-1)
        return torch.stack([channel(logits, logp, self.home) for channel in self.channels], 1)


class Equivariant(Networks):
    """Weights shared over the classes: 1×1 convolutions, with context pooled over them."""

    @staticmethod
    def shapes(channels: int, features: int, hidden: int, context: str) -> dict[str, tuple[int, int]]:
        """Name and shape of every weight."""
        pooled = {"none": (), "mean": ("w_mean",), "label": ("w_mean", "w_true")}[context]
        return {
            "w_pred": (features, channels), "b_pred": (features, 1),
            "w_label": (features, 1), "b_label": (features, 1),
            "w_mix_pred": (hidden, features), "w_mix_label": (hidden, features), "b_mix": (hidden, 1),
            **dict.fromkeys(pooled, (hidden, features)),
            "w_out": (1, hidden),
        }  # fmt: skip

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Run the label's channel and its half of the integration: they do not change while classifiers train."""
        w = self._to(target).weights
        h = self.activation(w["w_label"] * target.reshape(1, 1, -1) + w["b_label"])
        label = torch.baddbmm(w["b_mix"], w["w_mix_label"], h)
        return replace(self, weights=w, target=target, label=label)  # label [P H TBC]

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        assert self.target is not None and self.label is not None, "bind the targets first"
        w, C = self.weights, logits.shape[-1]
        x = self._inputs(logits).flatten(2)
        h = self.activation(torch.baddbmm(w["b_pred"], w["w_pred"], x))  # [P F TBC]
        u = torch.baddbmm(self.label, w["w_mix_pred"], h)
        if "w_mean" in w:
            per_class = h.unflatten(2, (-1, C))
            context = torch.bmm(w["w_mean"], per_class.mean(-1))
            if "w_true" in w:
                true = (per_class * self.target.flatten(0, 1)).sum(-1)
                context = torch.baddbmm(context, w["w_true"], true)
            u = (u.unflatten(2, (-1, C)) + context[..., None]).flatten(2)
        return torch.bmm(w["w_out"], self.activation(u)).reshape(logits.shape)


class Figure3(Networks):
    """Both channels fully connected over the classes, stacked as two rows, convolved into a loss (Hai 2021, fig. 3)."""

    @staticmethod
    def shapes(channels: int, features: int, hidden: int, classes: int, kernel: int) -> dict[str, tuple[int, int]]:
        """Name and shape of every weight."""
        return {
            "w_pred": (hidden, channels * classes), "b_pred": (hidden, 1), "w_pred_out": (features, hidden),
            "w_label": (hidden, classes), "b_label": (hidden, 1), "w_label_out": (features, hidden),
            "w_conv": (hidden, 2 * kernel), "b_conv": (hidden, 1), "w_out": (1, hidden),
        }  # fmt: skip

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Run the label's channel."""
        w = self._to(target).weights
        y = target.flatten(0, 1).T.expand(len(self), -1, -1)  # [P C TB]
        h = self.activation(torch.baddbmm(w["b_label"], w["w_label"], y))
        return replace(self, weights=w, target=target, label=torch.bmm(w["w_label_out"], h))

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B 1"]:
        """One term per image."""
        assert self.label is not None, "bind the targets first"
        w = self.weights
        P, T, B, _ = logits.shape
        x = self._inputs(logits).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)  # [P channels·C TB]
        h = torch.bmm(w["w_pred_out"], self.activation(torch.baddbmm(w["b_pred"], w["w_pred"], x)))
        rows = torch.stack([h, self.label], 1)  # [P 2 F TB]
        kernel = w["w_conv"].shape[2] // 2
        windows = rows.unfold(2, kernel, 1).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)  # [P 2·kernel L·TB]
        u = self.activation(torch.baddbmm(w["b_conv"], w["w_conv"], windows))
        return torch.bmm(w["w_out"], u).reshape(P, -1, T, B).mean(1)[..., None]
