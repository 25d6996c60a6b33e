"""Stacked classifiers: the parameters of P candidates × T tasks in one tensor each."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

from jaxtyping import Float
from torch import Tensor

from metaloss.streams import Stream

Params = dict[str, Tensor]


class Inputs(Protocol):
    """What a classifier is fed: N images of each of T tasks, in the form it likes best."""

    def block(self, images: slice) -> Self:
        """Some of the images of every task."""

    def __len__(self) -> int:
        """N."""


@dataclass(frozen=True)
class Bound:
    """T tasks made ready for one classifier; shared by all candidates."""

    train: Any
    val: Any
    start: Params  # [T, ...]: one draw per task

    def init(self, candidates: int) -> Params:
        """The start of every candidate's classifiers, [P, T, ...], in memory of its own."""
        # repeat, not expand: the inner loop steps parameters in place, for one candidate too.
        return {name: x.repeat(candidates, *[1] * x.ndim) for name, x in self.start.items()}


class Classifier(Protocol):
    """Stacked classifiers; every parameter leads with axes [P, T]."""

    def bind(self, tasks: Any, keys: list[Stream]) -> Bound:
        """Inputs for training and validation, and initial parameters from each task's key."""

    def floats(self, image: tuple[int, ...], classes: int) -> int:
        """How many numbers one image [K, H, W] leaves in the layers: what the memory of a chunk is planned from."""

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits."""
