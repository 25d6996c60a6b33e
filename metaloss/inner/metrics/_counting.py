"""Metrics of how often each class was the answer to each: they need the confusion matrix alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.inner.metrics._shared import Block, DeclaredMetric


class CountingMetric(DeclaredMetric, ABC):
    """A metric of the confusion matrix, which is summed over blocks of images."""

    @abstractmethod
    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """The values of classifiers, all of them finite.

        Args:
            counts: how often each class (row) got each class as its answer (column), in float64.
            classes: which class of the data set each of them is in each task.
        """

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
        return self._of_counts(confusion(logits, label, weight), classes)

    def measure_blocks(
        self, blocks: Iterable[Block], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "P T"]:
        """What `measure` gives for images that are looked at a block at a time."""
        first, *others = (confusion(logits, label) for logits, label in blocks)
        return self._of_counts(sum(others, first), classes)

    def _of_counts(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        sound = ~counts[..., 0, 0].isnan()
        values = self.of_confusion(counts.double().nan_to_num(nan=0.0), classes)
        return values.to(counts.dtype).where(sound, torch.nan)


def confusion(
    logits: Float[Tensor, "P T V C"],
    label: Int[Tensor, "T V"],
    weight: Float[Tensor, "*R T V"] | None = None,
) -> Float[Tensor, "*R P T C C"]:
    """How often each class (row) got each class as its answer (column).

    NaN of classifiers that diverged.

    Args:
        logits: what the classifiers gave.
        label: the true classes.
        weight: how often each image counts; once where None.
    """
    by_class = logits.mT
    classes = logits.shape[-1]
    on_cpu = (logits.device.type, logits.dtype) == ("cpu", torch.float32)
    if weight is None and on_cpu and kernels.available():
        return _counted(by_class.contiguous(), label)
    answer = by_class.max(-2).indices  # [P T V]
    if weight is None:
        weight = logits.new_ones(label.shape)
    if on_cpu and kernels.available():
        counts = _weighted(answer, label, weight, classes)
    else:
        pairs = label * classes + answer
        size = (*weight.shape[:-2], *pairs.shape)
        # Sums of whole numbers are exact, in whatever order they are added.
        flat = weight.new_zeros(*size[:-1], classes**2)
        flat.scatter_add_(-1, pairs.expand(size), weight[..., None, :, :].expand(size))
        counts = flat.unflatten(-1, (classes, classes))
    diverged = ~logits.isfinite().all(-1).all(-1)
    return counts.masked_fill_(diverged[..., None, None], torch.nan)


def _counted(
    by_class: Float[Tensor, "P T C V"], label: Int[Tensor, "T V"]
) -> Float[Tensor, "P T C C"]:
    """The same in one pass."""
    from metaloss.kernels.validation.metrics import count_answers

    classes = by_class.shape[2]
    counts = by_class.new_empty(*by_class.shape[:2], classes, classes)
    count_answers(by_class.flatten(0, 1).numpy(), label.numpy(), counts.flatten(0, 1).numpy())
    return counts


def _weighted(
    answer: Int[Tensor, "P T V"],
    label: Int[Tensor, "T V"],
    weight: Float[Tensor, "*R T V"],
    classes: int,
) -> Float[Tensor, "*R P T C C"]:
    """Counted answers of weighted images, all resamples of an image at a time."""
    from metaloss.kernels.validation.metrics import count_weighted

    resamples = weight.shape[:-2]
    by_image = weight.flatten(0, -3) if resamples else weight[None]
    by_image = by_image.movedim(0, -1).contiguous()  # [T V R]
    P, T, _ = answer.shape
    counts = weight.new_empty(P * T, classes, classes, by_image.shape[-1])
    count_weighted(answer.flatten(0, 1).numpy(), label.numpy(), by_image.numpy(), counts.numpy())
    return counts.movedim(-1, 0).reshape(*resamples, P, T, classes, classes)


def hits(counts: Float[Tensor, "*A C C"]) -> Float[Tensor, "*A C"]:
    """How many images of each class were found."""
    return counts.diagonal(dim1=-2, dim2=-1)


def recall(counts: Float[Tensor, "*A C C"]) -> tuple[Float[Tensor, "*A C"], Tensor]:
    """The share of each class that was found, and which classes have any image."""
    size = counts.sum(-1)
    return hits(counts) / size.where(size > 0, 1), size > 0
