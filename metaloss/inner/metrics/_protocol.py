"""What a metric must have."""

from collections.abc import Iterable, Sequence
from typing import Protocol, Self

from jaxtyping import Float, Int
from torch import Tensor

from metaloss.inner.metrics._shared import Block


class Metric(Protocol):
    """A number for each of P·T classifiers, batched over candidates and tasks: settings, no state.

    NaN means that a training diverged, its logits not being finite, and nothing else.
    """

    @property
    def title(self) -> str:
        """What it is called in tables and sentences."""

    @property
    def maximise(self) -> bool:
        """Whether more is better."""

    @property
    def percent(self) -> bool:
        """Whether it is shown in percent; else as a plain number."""

    @property
    def names_classes(self) -> bool:
        """Whether its value depends on which classes of the data set a task has."""

    def failed(self) -> float:
        """The value that a failed training counts as where a number is needed: the worst."""

    def guess(self, ways: int) -> float:
        """The value of guesses, with so many classes equally often."""

    def negligible(self, ways: int) -> float:
        """The difference of two values that is none in practice, with so many classes."""

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric for tasks of some classes of a data set.

        Args:
            names: of the data set's classes; classes are numbers in this order from here on.
            ways: how many of them a task has.

        Raises:
            SettingsError: it names a class that is not there, or that not every task has.
        """

    def mistake_costs(self, classes: Int[Tensor, "T C"]) -> Float[Tensor, "T C C"] | None:
        """What it costs by this metric to give an image of each class (row) each answer (column).

        In any unit; None: all mistakes cost alike.

        Args:
            classes: which class of the data set each class of each task is.
        """

    def measure(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None = None,
    ) -> Float[Tensor, "*R P T"]:
        """The values of P·T classifiers.

        Args:
            logits: what they gave on every validation image.
            label: the true classes, as numbers within the task.
            classes: which class of the data set each of these numbers stands for in each task.
            weight: how often each image counts; once where None.
        """

    def measure_blocks(
        self, blocks: Iterable[Block], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "P T"]:
        """What `measure` gives for images that are looked at a block at a time.

        Args:
            blocks: logits and labels of some images of every task.
            classes: as `measure` takes them.
        """
