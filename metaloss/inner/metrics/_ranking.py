"""Metrics of how images rank for their class: one class against the rest, by its probability."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from metaloss import kernels
from metaloss.inner.metrics._shared import (
    LogitMetric,
    log_probabilities,
    of_label,
    ratio,
    weighted_mean,
)

LIMIT = 1 << 24  # probabilities that are ranked at once: a few of such tensors fit any GPU


@dataclass(frozen=True)
class Ranks:
    """How each image ranks for its own class, by the probability that it is of this class.

    Images of equal probability share a rank.

    Attributes:
        found: how many images of its class are at least as probable.
        above: how many images of other classes are more probable.
        level: how many images of other classes are at least as probable.
        of_class: how many images its class has.
        of_others: how many images all other classes have.
    """

    found: Float[Tensor, "*R P T V"]
    above: Float[Tensor, "*R P T V"]
    level: Float[Tensor, "*R P T V"]
    of_class: Float[Tensor, "*R P T V"]
    of_others: Float[Tensor, "*R P T V"]

    @property
    def precision(self) -> Float[Tensor, "*R P T V"]:
        """The share of the class among all that are at least as probable."""
        return ratio(self.found, self.found + self.level)


class RankingMetric(LogitMetric, ABC):
    """A metric of each class against the rest, averaged over the classes."""

    needs_every_class: ClassVar[bool] = True

    @abstractmethod
    def of_images(self, ranks: Ranks) -> Float[Tensor, "*R P T V"]:
        """What each image adds to its class's value."""

    def of_class(
        self, values: Float[Tensor, "*R P T V"], weight: Float[Tensor, "*R T V"]
    ) -> Float[Tensor, "*R P T"]:
        """The value of one class: the mean over its images.

        Args:
            values: what each image adds.
            weight: how often each image of the class counts, 0 for those of other classes.
        """
        return weighted_mean(values, weight)

    def of_classes(
        self,
        values: Float[Tensor, "*R P T C"],
        defined: Bool[Tensor, "*R T C"],
        classes: Int[Tensor, "T C"],
    ) -> Float[Tensor, "*R P T"]:
        """The value of all classes: the mean over them.

        Args:
            values: of every class.
            defined: which classes have an image and are not all there is.
            classes: which class of the data set each of them is in each task.
        """
        counted = defined[..., None, :, :].to(values)
        return ratio((values * counted).sum(-1), counted.sum(-1).expand(values.shape[:-1]))

    def values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        """The values of all classifiers, some rows at a time."""
        rows = max(1, LIMIT // logits[0].numel())
        parts = [self._values(part, label, classes, weight) for part in logits.split(rows)]
        return torch.cat(parts, -2)

    def _values(
        self,
        logits: Float[Tensor, "P T V C"],
        label: Int[Tensor, "T V"],
        classes: Int[Tensor, "T C"],
        weight: Float[Tensor, "*R T V"] | None,
    ) -> Float[Tensor, "*R P T"]:
        count = logits.new_ones(label.shape) if weight is None else weight
        members = [(label == c) * count.double() for c in range(logits.shape[-1])]  # [*R T V] each
        sizes = torch.stack([member.sum(-1) for member in members], -1)  # [*R T C]
        others = sizes.sum(-1, keepdim=True) - sizes
        place = label.expand(count.shape)
        found, above, level = (x.double() for x in rank(log_probabilities(logits), label, weight))
        of_class, of_others = (
            x.gather(-1, place)[..., None, :, :].expand_as(found) for x in (sizes, others)
        )
        images = self.of_images(Ranks(found, above, level, of_class, of_others))
        values = torch.stack([self.of_class(images, member) for member in members], -1)
        return self.of_classes(values, (sizes > 0) & (others > 0), classes)


def rank(
    score: Float[Tensor, "P T C V"],
    label: Int[Tensor, "T V"],
    weight: Float[Tensor, "*R T V"] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """How each image ranks by the score of its own class: `found`, `above`, `level` of `Ranks`.

    Args:
        score: of every class.
        label: the true classes.
        weight: how often each image counts; once where None.
    """
    on_cpu = (score.device.type, score.dtype) == ("cpu", torch.float32)
    if weight is None and on_cpu and kernels.available():
        return _ranked(score.contiguous(), label)
    ascending, order = score.sort(-1)
    number = torch.arange(score.shape[2], device=score.device)[:, None]
    own = label[:, None].expand(score.shape).gather(-1, order) == number  # [P T C V]
    count = torch.ones_like(score[0, :, 0]) if weight is None else weight
    resamples = count.shape[:-2]
    count = count[..., None, :, None, :].expand(*resamples, *score.shape)
    count = count.gather(-1, order.expand(count.shape)).double()
    # How much of a class's own images, and of others, lies below each place: [*R P T C V+1].
    members, others = (pad((count * x).cumsum(-1), (1, 0)) for x in (own, ~own))
    first = of_label(torch.searchsorted(ascending, score), label)  # [P T V]
    last = of_label(torch.searchsorted(ascending, score, right=True), label)
    return (
        _from_place(members, label, first),
        _from_place(others, label, last),
        _from_place(others, label, first),
    )


def _from_place(
    below: Float[Tensor, "*R P T C V1"], label: Int[Tensor, "T V"], place: Int[Tensor, "P T V"]
) -> Float[Tensor, "*R P T V"]:
    """What of each image's class lies at a place or above it.

    Args:
        below: what of every class lies below each place.
        label: the class of each image.
        place: of each image among the scores of its class.
    """
    every = below.shape[-1]
    index = torch.stack([label * every + place, (label * every + every - 1).expand_as(place)])
    index = index.expand(*below.shape[:-4], *index.shape).movedim(-4, 0)
    at_place, in_all = (below.flatten(-2).gather(-1, x) for x in index)
    return in_all - at_place


def _ranked(
    score: Float[Tensor, "P T C V"], label: Int[Tensor, "T V"]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one pass."""
    from metaloss.kernels.metrics import rank_images

    found, above, level = (score.new_empty(*score.shape[:2], score.shape[3]) for _ in range(3))
    filled = (x.flatten(0, 1).numpy() for x in (found, above, level))
    rank_images(score.flatten(0, 1).numpy(), label.numpy(), *filled)
    return found, above, level
