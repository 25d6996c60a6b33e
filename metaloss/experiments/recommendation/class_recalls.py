"""How many images of each class are recognised, with cross-entropy and with what folds chose."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.proportions import wilson
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.verdict import FoldResults
from metaloss.inner.observers import Measures


@dataclass(frozen=True)
class ClassRecall:
    """The share of a class's images that is recognised by trainings that have not seen them.

    Attributes:
        name: of the class.
        images: that were held out.
        ce: the share that cross-entropy recognises.
        chosen: the share that what the folds chose recognises.
    """

    name: str
    images: int
    ce: float
    chosen: float

    @property
    def ce_interval(self) -> tuple[float, float]:
        """Where cross-entropy's share lies by so many images, with 95 % certainty."""
        return wilson(self.ce, self.images)

    @property
    def chosen_interval(self) -> tuple[float, float]:
        """Likewise of what the folds chose."""
        return wilson(self.chosen, self.images)

    def plain(self) -> dict[str, Any]:
        """For a file."""
        ends = {"ce_interval": self.ce_interval, "chosen_interval": self.chosen_interval}
        return {**asdict(self), **{name: list(pair) for name, pair in ends.items()}}


def class_recalls(classes: Sequence[str], folds: FoldResults) -> list[ClassRecall]:
    """The recall of every class in all folds; classes of which none was held out are left out.

    Args:
        classes: their names.
        folds: what came of the folds.
    """
    rows = torch.cat([x.tasks.val.rows.flatten().cpu() for x in folds.judged])
    of_class = torch.cat([x.tasks.val_classes.flatten().cpu() for x in folds.judged])
    ce = _right(folds.of_loss(CE))
    chosen = _right(folds.of_chosen())
    found = []
    for number, name in enumerate(classes):
        own = of_class == number
        if not own.any():
            continue
        # An image that several tasks look at is one image.
        images = len(_distinct(rows[own]))
        recalls = float(ce[own].double().mean()), float(chosen[own].double().mean())
        found.append(ClassRecall(name, images, *recalls))
    return found


def _right(folds: Sequence[Measures]) -> Tensor:
    """Which validation images of all tasks and folds are recognised, in one row."""
    return torch.cat([x.right.flatten().cpu() for x in folds])


def _distinct(rows: Int64[Tensor, " N"]) -> Tensor:
    distinct: Tensor = rows.unique()
    return distinct
