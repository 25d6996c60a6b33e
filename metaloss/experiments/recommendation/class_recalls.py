"""How many images of each class are recognised, with cross-entropy and with what folds chose."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from metaloss.core.proportions import wilson
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.fold_answers import answers_of
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.held_out_answers import independent_images


@dataclass(frozen=True)
class ClassRecall:
    """The share of a class's images that is recognised by trainings that have not seen them.

    Attributes:
        name: of the class.
        images: that were held out.
        ce: the share that cross-entropy recognises.
        chosen: the share that what the folds chose recognises.
        ce_images: as how many independent images they count for cross-entropy's share, where
            several got more answers than others or are of one group; None: as all.
        chosen_images: likewise for the other share.
    """

    name: str
    images: int
    ce: float
    chosen: float
    ce_images: float | None = None
    chosen_images: float | None = None

    @property
    def ce_interval(self) -> tuple[float, float]:
        """Where cross-entropy's share lies by so many images, with 95 % certainty."""
        return wilson(self.ce, self.ce_images or self.images)

    @property
    def chosen_interval(self) -> tuple[float, float]:
        """Likewise of what the folds chose."""
        return wilson(self.chosen, self.chosen_images or self.images)

    def plain(self) -> dict[str, Any]:
        """For a file."""
        ends = {"ce_interval": self.ce_interval, "chosen_interval": self.chosen_interval}
        return {**asdict(self), **{name: list(pair) for name, pair in ends.items()}}


def class_recalls(
    classes: Sequence[str], folds: FoldResults, groups: Int64[Tensor, " K"] | None = None
) -> list[ClassRecall]:
    """The recall of every class in all folds; classes of which none was held out are left out.

    Args:
        classes: their names.
        folds: what came of the folds.
        groups: of every image of the data set; None: each stands for itself.
    """
    ce = answers_of(folds.judged, folds.of_loss(CE), len(classes))
    chosen = answers_of(folds.judged, folds.of_chosen(), len(classes))
    recalls = zip(ce.recall.tolist(), chosen.recall.tolist(), strict=True)
    independent = zip(
        independent_images(ce, groups), independent_images(chosen, groups), strict=True
    )
    return [
        ClassRecall(name, images, *shares, *sizes)
        for name, images, shares, sizes in zip(
            classes, ce.images.tolist(), recalls, independent, strict=True
        )
        if images
    ]
