"""Wrong labels of training images, an exact share of them."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.shapes import ascending, table_of


def _share(value: Any) -> Any:
    """A share, or two between which it is drawn."""
    if isinstance(value, list | tuple):
        return ascending(value, 0.0, 1.0, float)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number or [fewest, most], got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"Input should be at least 0 and at most 1, got {value}")
    return float(value)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Noise:
    """How many training labels are wrong, and which class they name instead.

    Attributes:
        kind: "symmetric": any other class; "pair": one other class for each, label c + 1 for c;
            "confusion": the class that a weak classifier takes the images for, so that alike
            classes are mixed up.
        share: of the labels that are wrong; or two numbers between which it is drawn for every
            task.
    """

    kind: Literal["symmetric", "pair", "confusion"]
    share: Annotated[float | tuple[float, float], BeforeValidator(_share)]

    def __str__(self) -> str:
        share = self.share if isinstance(self.share, tuple) else (self.share,)
        return f"{self.kind} noise of {' to '.join(f'{100 * x:g}' for x in share)} %"


def _noise(value: Any) -> Any:
    if value is None or isinstance(value, Noise):
        return value
    if isinstance(value, dict):
        return table_of(Noise, value)
    share = value if isinstance(value, int | float) and 0 < value <= 1 else 0.4
    raise ValueError(f'expected {{ kind = "symmetric", share = {share} }}, got {value!r}')


LabelNoise = Annotated[Noise | None, BeforeValidator(_noise)]


def corrupt(
    label: Int64[Tensor, " B"],
    ways: int,
    noise: Noise,
    key: Stream,
    errors: Float[Tensor, "ways ways"] | None = None,
) -> Int64[Tensor, " B"]:
    """The labels, a share of them wrong, rounded to whole images.

    Args:
        label: the true ones.
        ways: classes.
        noise: kind and share.
        key: the task's.
        errors: for "confusion", how often each class is taken for each other one.
    """
    share = noise.share
    if isinstance(share, tuple):
        share = float(key.at("share").uniform(1, low=share[0], high=share[1]))
    wrong = key.at("which").permutation(len(label))[: round(share * len(label))]
    label = label.clone()
    # Adding 1 ... ways-1 modulo the number of classes never gives the same class again.
    if noise.kind == "symmetric":
        label[wrong] = (label[wrong] + 1 + key.at("class").integers(ways - 1, len(wrong))) % ways
    elif noise.kind == "pair":
        label[wrong] = (label[wrong] + 1) % ways
    else:
        assert errors is not None, "the errors of a weak classifier"
        # The class at which the cumulated frequencies pass a uniform number; never the true one,
        # whose frequency is 0.
        ends = errors[label[wrong]].double().cumsum(1)
        place = key.at("class").uniform(len(wrong), 1).double() * ends[:, -1:]
        label[wrong] = (ends > place).int().argmax(1)
    return label


def nearest_mean_errors(
    classes: list[Float[Tensor, "_ D"]],
) -> Float[Tensor, "K K"]:
    """How many images of each class lie nearest to the mean of each other one, and 1 more.

    No other class is impossible, and none is its own error.

    Args:
        classes: the images of each class as vectors.
    """
    means = torch.stack([x.double().mean(0) for x in classes])
    errors = torch.ones(len(classes), len(classes), dtype=torch.float64)
    for c, x in enumerate(classes):
        # |x - m|² but for |x|², which is the same for every mean.
        distance = means.square().sum(1) - 2 * x.double() @ means.mT
        errors[c] += distance.argmin(1).bincount(minlength=len(classes))
    return errors.fill_diagonal_(0)
