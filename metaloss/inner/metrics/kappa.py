"""Cohen's kappa with quadratic weights, for classes in an order (Cohen 1968)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core import registry
from metaloss.errors import SettingsError
from metaloss.inner.metrics._counting import CountingMetric
from metaloss.inner.metrics._shared import ratio

__all__ = ["Kappa"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Kappa(CountingMetric):
    """Agreement beyond chance, where a mistake weighs the square of its distance in classes.

    The ranks of a task are those of its classes in the order. 0 where chance alone would make no
    mistake.

    Attributes:
        order: all classes of the data set from the first to the last, by name or number; where
            empty, the data set's own order.
    """

    order: tuple[str | Annotated[int, Field(ge=0)], ...] = ()

    title: ClassVar[str] = "quadratic kappa"
    percent: ClassVar[bool] = False

    @property
    def names_classes(self) -> bool:
        """Their order counts."""
        return True

    def failed(self) -> float:
        """Every answer wrong, in the worst way."""
        return -1.0

    def guess(self, ways: int) -> float:
        """What chance agrees on."""
        return 0.0

    def for_classes(self, names: Sequence[str], ways: int) -> Self:
        """The metric with its order as numbers of these classes.

        Raises:
            SettingsError: the order is not one of all these classes.
        """
        if not self.order:
            return self
        known = {str(number): number for number in range(len(names))}
        known |= {name: number for number, name in enumerate(names)}
        for name in map(str, self.order):
            if name not in known:
                raise SettingsError(
                    "metric: order: " + registry.unknown_message("class", name, names)
                )
        order = tuple(known[str(name)] for name in self.order)
        if missing := [name for number, name in enumerate(names) if order.count(number) != 1]:
            raise SettingsError(
                f"metric: order: expected each of the {len(names)} classes once, got "
                f"'{missing[0]}' {order.count(known[missing[0]])} times"
            )
        return replace(self, order=order)

    def of_confusion(
        self, counts: Float[Tensor, "*R P T C C"], classes: Int[Tensor, "T C"]
    ) -> Float[Tensor, "*R P T"]:
        """1 - Σ distance² counts / Σ distance² expected counts."""
        distance = self.mistake_costs(classes)
        expected = counts.sum(-1, keepdim=True) * counts.sum(-2, keepdim=True)
        mistakes = (distance * counts).sum((-2, -1)) * counts.sum((-2, -1))
        by_chance = (distance * expected).sum((-2, -1))
        return ratio(by_chance - mistakes, by_chance)

    def mistake_costs(self, classes: Int[Tensor, "T C"]) -> Float[Tensor, "T C C"]:
        """The squared distance of each pair of classes among the ranks of their task."""
        rank = self._places(classes).argsort(-1).argsort(-1).double()
        distance: Tensor = (rank[:, :, None] - rank[:, None]) ** 2
        return distance

    def _places(self, classes: Int[Tensor, "T C"]) -> Int[Tensor, "T C"]:
        """Where each class stands in the order."""
        if not self.order:
            return classes
        return torch.tensor(self.order, device=classes.device).argsort()[classes]
