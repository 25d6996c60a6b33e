"""What metrics share: their declarations, and how logits become numbers that are finite or NaN."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

# Logits [P T v C] and labels [T v] of some images of every task.
Block = tuple[Tensor, Tensor]


class DeclaredMetric:
    """What a metric declares of itself; its own values are what differs from these.

    Attributes:
        title: what it is called in tables and sentences.
        maximise: whether more is better.
        percent: whether it is shown in percent; else as a plain number.
    """

    title: ClassVar[str]
    maximise: ClassVar[bool] = True
    percent: ClassVar[bool] = True

    @property
    def names_classes(self) -> bool:
        """Whether its value depends on which classes of the data set a task has."""
        return False

    def failed(self) -> float:
        """The value that a failed training counts as: 0, unless there are worse ones."""
        return 0.0

    def guess(self, ways: int) -> float:
        """The value of guesses: that of a failure, unless it is known."""
        return self.failed()

    def negligible(self, ways: int) -> float:
        """The difference of two values that is none in practice.

        A fiftieth of what lies between 0 and 1; where less is better, of what lies between no
        mistake, which is taken to be 0, and guesses.
        """
        return 1 / 50 if self.maximise else self.guess(ways) / 50

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric for tasks of some of these classes: itself, unless it names or counts them."""
        return self

    def mistake_costs(self, classes: Int[Tensor, "T C"]) -> Float[Tensor, "T C C"] | None:
        """What each answer (column) costs for each class (row) of each task: all mistakes alike."""
        return None


class LogitMetric(DeclaredMetric, ABC):
    """A metric of all logits of a classifier at once."""

    @abstractmethod
    def values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        """The values of classifiers whose logits are all finite, which themselves are finite."""

    def measure(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None = None,
    ) -> Float[Tensor, "*R P T"]:
        """The values of P·T classifiers, NaN for those that diverged.

        Args:
            logits: what they gave on every validation image.
            label: the true classes, as numbers within the task.
            classes: which class of the data set each of these numbers stands for in each task.
            weight: how often each image counts; once where None.
        """
        sound = logits.isfinite().all(-1).all(-1)
        if not bool(sound.all()):
            logits = logits.where(sound[..., None, None], 0)
        values = self.values(logits, label, classes, weight)
        return values.to(logits.dtype).where(sound, torch.nan)

    def measure_blocks(
        self, blocks: Iterable[Block], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "P T"]:
        """What `measure` gives for images that are looked at a block at a time."""
        logits, labels = zip(*blocks, strict=True)
        # One block is taken as it is: its memory is not needed twice.
        whole = logits[0] if len(logits) == 1 else torch.cat(logits, 2)
        return self.measure(whole, torch.cat(labels, 1), classes)


def log_probabilities(logits: Float[Tensor, "P T V C"]) -> Float[Tensor, "P T C V"]:
    """The logarithms of the softmax, class by class in memory, as classifiers give their logits."""
    return logits.mT.log_softmax(-2)


def of_label(
    values: Shaped[Tensor, "P T C V"], label: Int[Tensor, "T V"]
) -> Shaped[Tensor, "P T V"]:
    """Each image's value for its true class."""
    return values.gather(2, label.expand(len(values), -1, -1)[:, :, None])[:, :, 0]


def ratio(part: Float[Tensor, "*A"], whole: Float[Tensor, "*A"]) -> Float[Tensor, "*A"]:
    """part / whole, and 0 where the whole is 0."""
    defined = whole > 0
    return (part / whole.where(defined, 1)).where(defined, 0)


def weighted_mean(
    values: Float[Tensor, "*A P T V"], weight: Float[Tensor, "*R T V"] | None
) -> Float[Tensor, "*B P T"]:
    """The mean over the images, each counted as often as its weight says; 0 for no images."""
    # In float64: what is left of the order of summation does not reach the result's last digit.
    values = values.double().contiguous()
    if weight is None:
        return values.mean(-1)
    weight = weight.double()[..., None, :, :]
    total = (values * weight).sum(-1)
    return ratio(total, weight.sum(-1).expand(total.shape))
