"""The most that is found of a class while so much of what is called it is right."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core import registry
from metaloss.errors import SettingsError
from metaloss.inner.metrics._ranking import RankingMetric, Ranks
from metaloss.inner.metrics._shared import ratio

__all__ = ["RecallAtPrecision"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class RecallAtPrecision(RankingMetric):
    """The highest recall at any threshold whose precision is high enough; 0 where there is none.

    Attributes:
        at: the precision.
        of: the class, by its name or its number in the data set; the mean over all where None.
    """

    at: Annotated[float, Field(gt=0, le=1)] = 0.9
    of: str | Annotated[int, Field(ge=0)] | None = None

    title: ClassVar[str] = "recall at precision"

    @property
    def names_classes(self) -> bool:
        """Whether it is of one class."""
        return self.of is not None

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric with its class as a number.

        Raises:
            SettingsError: there is no such class, or not every task has it.
        """
        if self.of is None:
            return self
        known = {**{str(number): number for number in range(len(names))}, **_numbers(names)}
        if str(self.of) not in known:
            raise SettingsError(
                "metric: of: " + registry.unknown_message("class", str(self.of), names)
            )
        if ways < len(names):
            raise SettingsError(
                f"metric: of = {self.of!r} needs tasks of all {len(names)} classes, as others lack "
                f"it; got ways = {ways}"
            )
        return replace(self, of=known[str(self.of)])

    def of_images(self, ranks: Ranks) -> Float[Tensor, "*R P T V"]:
        """The recall down to each image, where the precision is high enough."""
        found = ratio(ranks.found, ranks.of_class)
        return found.where(ranks.precision >= self.at, 0)

    def by_class(
        self,
        values: Float[Tensor, "*R P T V"],
        label: Int[Tensor, "T V"],
        weight: Float[Tensor, "*#R T V"],
        ways: int,
    ) -> Float[Tensor, "*R P T C"]:
        """The highest recall of each class.

        Args:
            values: what each image adds.
            label: the true classes.
            weight: how often each image counts.
            ways: how many classes there are.
        """
        counted = values.where(weight[..., None, :, :] > 0, 0)
        highest = values.new_zeros(*values.shape[:-1], ways)
        return highest.scatter_reduce_(-1, label.expand(values.shape), counted, "amax")

    def of_classes(
        self,
        values: Float[Tensor, "*R P T C"],
        defined: Bool[Tensor, "*R T C"],
        classes: Int[Tensor, "T C"],
    ) -> Float[Tensor, "*R P T"]:
        """The value of the class that `of` names; else the mean over all.

        Raises:
            ValueError: the class is a name still, or a task lacks it.
        """
        if self.of is None:
            return super().of_classes(values, defined, classes)
        named = classes == int(self.of) if isinstance(self.of, int) else classes < 0
        if not bool(named.any(-1).all()):
            raise ValueError(f"of = {self.of!r} is no class of every task")
        return (values * named).sum(-1)


def _numbers(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
