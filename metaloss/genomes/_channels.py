"""What the networks of Meta-Loss Networks read of a prediction, and their activations."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """A function between an equivariant network's layers, in the forms that the loop needs."""

    value: Callable[[Tensor], Tensor]
    # As `value`, but in its argument's memory: the inner loop needs no graph.
    overwrite: Callable[[Tensor], Tensor]
    # From the gradient at the output, and the output: the gradient at the input, in that memory.
    back: Callable[[Tensor, Tensor], Tensor]


def logistic_back(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient at the input of σ: σ (1 - σ) times that at its output."""
    result: Tensor = torch.ops.aten.sigmoid_backward.grad_input(grad, out, grad_input=out)
    return result


def relu_back(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient at the input of max(x, 0): that at its output, where this is positive."""
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=out)
    return result


def softplus_back(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient at the input of softplus: times σ(x) = 1 - exp(-softplus x)."""
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
