"""The two architectures of the Meta-Loss Network, P networks of one shape side by side."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from metaloss.losses.base import images, log_softmax, logit_gradient_by_autograd

Weights = dict[str, Float[Tensor, "P out in"]]


@dataclass(frozen=True)
class Activation:
    """A function between an equivariant network's layers, in the forms that the loop needs."""

    value: Callable[[Tensor], Tensor]
    # As `value`, but in its argument's memory: the inner loop needs no graph.
    overwrite: Callable[[Tensor], Tensor]
    # From the gradient at the output, and the output: the gradient at the input, in that memory.
    back: Callable[[Tensor, Tensor], Tensor]


def logistic_back(grad: Tensor, out: Tensor) -> Tensor:
    """σ (1 - σ) of the gradient."""
    result: Tensor = torch.ops.aten.sigmoid_backward.grad_input(grad, out, grad_input=out)
    return result


def relu_back(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient where the output is positive."""
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=out)
    return result


def softplus_back(grad: Tensor, out: Tensor) -> Tensor:
    """σ(x) = 1 - exp(-softplus x) of the gradient."""
    return out.neg_().expm1_().neg_().mul_(grad)


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "softplus": F.softplus,
}
ACTIVATIONS = {
    # With the weights that `logistic` gives.
    "tanh": Activation(torch.sigmoid, torch.sigmoid_, logistic_back),
    "relu": Activation(F.relu, torch.relu_, relu_back),
    # torch has no softplus in place.
    "softplus": Activation(F.softplus, F.softplus, softplus_back),
}


@dataclass(frozen=True)
class Channel:
    """One number that a network reads of each prediction.

    It is a function of log p [... C B] and of the number of classes that the network evolved with.
    """

    value: Callable[[Tensor, int], Tensor]
    # From the channel's gradient, its value and `reference_classes`: the gradient of log p.
    back: Callable[[Tensor, Tensor, int], Tensor]
    # Coefficients (p, log p, centred logit, constant) of this channel's input, for C classes now
    # and `reference_classes` at evolution; used by the compiled kernel.
    parts: Callable[[int, int], tuple[float, float, float, float]]


def class_count_scale(classes: int, reference_classes: int) -> float:
    """The factor by which probabilities are spread among `classes` instead of `reference_classes`.

    With it a uniform prediction reads 1/reference_classes and a certain one 1, for any number of
    classes.
    """
    return (
        1.0
        if classes == reference_classes
        else (1 - 1 / reference_classes) * classes / max(1, classes - 1)
    )


def probability(logp: Tensor, reference_classes: int) -> Tensor:
    """p, spread by `class_count_scale`."""
    k = class_count_scale(logp.shape[-2], reference_classes)
    return logp.exp() if k == 1 else logp.exp() * k + (1 - k)


def probability_back(grad: Tensor, value: Tensor, reference_classes: int) -> Tensor:
    """The gradient of log p, from that of the spread p."""
    k = class_count_scale(value.shape[-2], reference_classes)
    return grad * value if k == 1 else grad * (value - (1 - k))


def log_probability(logp: Tensor, reference_classes: int) -> Tensor:
    """log p, shifted so that a uniform prediction reads -log(reference_classes) for any C."""
    classes = logp.shape[-2]
    return logp if classes == reference_classes else logp + math.log(classes / reference_classes)


CHANNELS = {
    "p": Channel(
        probability,
        probability_back,
        lambda c, reference_classes: (
            class_count_scale(c, reference_classes),
            0.0,
            0.0,
            1 - class_count_scale(c, reference_classes),
        ),
    ),
    "logp": Channel(
        log_probability,
        lambda grad, value, reference_classes: grad,
        lambda c, reference_classes: (0.0, 1.0, 0.0, math.log(c / reference_classes)),
    ),
    # The distance from the mean of the image's logits. It is taken of log p, which differs from the
    # logits by a constant.
    "logit": Channel(
        lambda logp, reference_classes: logp - logp.mean(-2, keepdim=True),
        lambda grad, value, reference_classes: grad - grad.mean(-2, keepdim=True),
        lambda c, reference_classes: (0.0, 0.0, 1.0, 0.0),
    ),
}


@dataclass(frozen=True)
class Networks:
    """P networks as losses; `target` and `label` hold what depends on the targets alone."""

    weights: Weights
    channels: tuple[Channel, ...]
    activation: str
    reference_classes: int
    target: Float[Tensor, "T C B"] | None = None
    label: Tensor | None = None

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

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B K"]:
        """What a loss is the sum of: one term per class (K = C), or one per image (K = 1)."""
        raise NotImplementedError

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """The sum of the terms, averaged over the batch."""
        return self.terms(logits).sum(-1).mean(-1)

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits."""
        return logit_gradient_by_autograd(self, logits)

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        raise NotImplementedError

    def _to(self, like: Tensor) -> Self:
        return replace(self, weights={k: w.to(like) for k, w in self.weights.items()})

    def _inputs(self, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P channels T C B"]:
        return torch.stack(
            [channel.value(logp, self.reference_classes) for channel in self.channels], 1
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
        channels: int, features: int, hidden: int, context: str
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
        }

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """The networks for these targets."""
        return replace(
            self, weights=self._to(target).weights, target=target.mT.contiguous(), label=None
        )

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        target, label = (images(x.mT, index).mT.contiguous() for x in (self._y, self._label))
        return replace(self, target=target, label=label)

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class."""
        logp = log_softmax(logits).mT
        _, _, u = self._layers(logp, ACTIVATIONS[self.activation].value)
        terms = torch.bmm(self.weights["w_out"], u) + self.weights.get("b_out", 0)
        return terms.reshape(logp.shape).mT

    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits, layer by layer backwards."""
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
        parts = zip(self.channels, dx.unbind(1), x.unbind(1), strict=True)
        gradients = [
            channel.back(grad, value, self.reference_classes) for channel, grad, value in parts
        ]
        result: Tensor = torch.ops.aten._log_softmax_backward_data(
            sum(gradients), logp, 2, logp.dtype
        ).mT
        return result

    def _layers(
        self, logp: Float[Tensor, "P T C B"], activation: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """The outputs of the layers: inputs, ŷ channel, integration block.

        Their shapes are [P channels T C B], [P F TCB] and [P H TCB].
        """
        w, (_, T, C, B) = self.weights, logp.shape
        x = self._inputs(logp)
        h = activation(torch.baddbmm(w["b_pred"], w["w_pred"], x.flatten(2)))
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


class Figure3(Networks):
    """The network of figure 3 (Hai 2021).

    Both channels are fully connected over the classes, stacked as two rows, and convolved into a
    loss.
    """

    @staticmethod
    def shapes(
        channels: int, features: int, hidden: int, classes: int, kernel: int
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
        }

    def bind(self, target: Float[Tensor, "T B C"]) -> Self:
        """Run the label's channel."""
        w = self._to(target).weights
        y = target.movedim(2, 0).flatten(1).expand(len(self), -1, -1)  # [P C TB]
        h = VALUES[self.activation](torch.baddbmm(w["b_label"], w["w_label"], y))
        label = torch.bmm(w["w_label_out"], h).unflatten(2, target.shape[:2])
        return replace(self, weights=w, label=label)  # [P F T B]

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The bound networks, for a minibatch."""
        assert self.label is not None, "bind the targets first"
        return replace(
            self, label=self.label.gather(-1, index.expand(*self.label.shape[:2], *index.shape))
        )

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B 1"]:
        """One term per image."""
        assert self.label is not None, "bind the targets first"
        w = self.weights
        value = VALUES[self.activation]
        P, T, B, _ = logits.shape
        # [P channels·C TB].
        x = self._inputs(log_softmax(logits).mT).movedim(3, 2).flatten(3).flatten(1, 2)
        h = torch.bmm(w["w_pred_out"], value(torch.baddbmm(w["b_pred"], w["w_pred"], x)))
        rows = torch.stack([h, self.label.flatten(2)], 1)  # [P 2 F TB]
        kernel = w["w_conv"].shape[2] // 2
        # [P 2·kernel L·TB].
        windows = rows.unfold(2, kernel, 1).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
        u = value(torch.baddbmm(w["b_conv"], w["w_conv"], windows))
        # [P 1 L·TB], averaged over the L places of the convolution.
        return torch.bmm(w["w_out"], u).reshape(P, -1, T, B).mean(1)[..., None]
