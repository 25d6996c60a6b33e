"""What trained classifiers are worth on validation images: metrics, one file each.

A metric is written as one of three kinds. `CountingMetric` needs to know how often each class was
the answer to each, `RankingMetric` how images rank for their class, `LogitMetric` all logits.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, Self

from jaxtyping import Float, Int
from torch import Tensor

from metaloss.inner.metrics._counting import CountingMetric
from metaloss.inner.metrics._ranking import RankingMetric, Ranks
from metaloss.inner.metrics._shared import Block, LogitMetric, ratio, weighted_mean
from metaloss.inner.observers import (
    BINS,
    Measures,
    Observer,
    accuracy,
    calibration_error,
    macro_f1,
    measure,
    predictions,
    progress,
    right_answers,
    scores,
    validate,
)

__all__ = [
    "BINS",
    "Block",
    "CountingMetric",
    "LogitMetric",
    "Measures",
    "Metric",
    "RankingMetric",
    "Ranks",
    "TaskMetric",
    "accuracy",
    "calibration_error",
    "macro_f1",
    "measure",
    "predictions",
    "progress",
    "ratio",
    "right_answers",
    "scores",
    "validate",
    "weighted_mean",
]

# What is seen of trained classifiers is called so by those who give it to an engine.
Metric = Observer


class TaskMetric(Protocol):
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
    def needs_every_class(self) -> bool:
        """Whether it is undefined where a class of a task has no validation image."""

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric for tasks of some classes of a data set.

        Args:
            names: of the data set's classes; classes are numbers in this order from here on.
            ways: how many of them a task has.

        Raises:
            SettingsError: it names a class that is not there, or that not every task has.
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
