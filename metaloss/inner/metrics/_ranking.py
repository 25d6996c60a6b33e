"""Metrics of how images rank for their class: one class against the rest, by its probability."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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

    @abstractmethod
    def of_images(self, ranks: Ranks) -> Float[Tensor, "*R P T V"]:
        """What each image adds to its class's value."""

    def by_class(
        self,
        values: Float[Tensor, "*R P T V"],
        label: Int[Tensor, "T V"],
        weight: Float[Tensor, "*#R T V"],
        ways: int,
    ) -> Float[Tensor, "*R P T C"]:
        """The value of each class: the mean over its images, 0 for a class without any.

        Args:
            values: what each image adds.
            label: the true classes.
            weight: how often each image counts.
            ways: how many classes there are.
        """
        weight = weight[..., None, :, :].expand_as(values)
        return ratio(*(class_sums(x, label, ways) for x in (values * weight, weight)))

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
        ways = logits.shape[-1]
        count = (torch.ones_like(label) if weight is None else weight).double()
        sizes = class_sums(count, label, ways)  # [*R T C]
        others = sizes.sum(-1, keepdim=True) - sizes
        place = label.expand(count.shape)
        found, above, level = (x.double() for x in rank(log_probabilities(logits), label, weight))
        of_class, of_others = (
            x.gather(-1, place)[..., None, :, :].expand_as(found) for x in (sizes, others)
        )
        images = self.of_images(Ranks(found, above, level, of_class, of_others))
        values = self.by_class(images, label, count, ways)
        return self.of_classes(values, (sizes > 0) & (others > 0), classes)


def class_sums(
    values: Float[Tensor, "*A T V"], label: Int[Tensor, "T V"], ways: int
) -> Float[Tensor, "*A T C"]:
    """The sum over the images of each class."""
    if values.device.type == "cpu":
        sums = values.new_zeros(*values.shape[:-1], ways)
        return sums.scatter_add_(-1, label.expand(values.shape), values)
    # On a GPU the order of additions would differ from run to run.
    return torch.stack([values.where(label == c, 0).sum(-1) for c in range(ways)], -1)


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
    if on_cpu and kernels.available():
        if weight is None:
            return _ranked(score.contiguous(), label)
        if weight.ndim == 3:
            return _ranked_weighted(score.contiguous(), label, weight)
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
    from metaloss.kernels.validation.metrics import rank_images

    found, above, level = (score.new_empty(*score.shape[:2], score.shape[3]) for _ in range(3))
    filled = (x.flatten(0, 1).numpy() for x in (found, above, level))
    rank_images(score.flatten(0, 1).numpy(), label.numpy(), *filled)
    return found, above, level


def _ranked_weighted(
    score: Float[Tensor, "P T C V"], label: Int[Tensor, "T V"], weight: Float[Tensor, "R T V"]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for images that count as often as each of R weights says."""
    from metaloss.kernels.validation.metrics import rank_weighted

    by_image = weight.to(score.dtype).movedim(0, -1).contiguous()  # [T V R]
    candidates, tasks, _, images = score.shape
    found, above, level = (
        score.new_empty(candidates * tasks, images, len(weight)) for _ in range(3)
    )
    filled = (x.numpy() for x in (found, above, level))
    rank_weighted(score.flatten(0, 1).numpy(), label.numpy(), by_image.numpy(), *filled)
    return (
        found.unflatten(0, (candidates, tasks)).movedim(-1, 0),
        above.unflatten(0, (candidates, tasks)).movedim(-1, 0),
        level.unflatten(0, (candidates, tasks)).movedim(-1, 0),
    )
