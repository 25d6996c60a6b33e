"""Candidates, a loss at a rate each, halved from short trainings to real ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.experiments.comparison.losses import CE

Few = Annotated[int, Field(ge=1, le=100)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class HalvingStage:
    """A stage's budget.

    Attributes:
        length: of a training, as a share of the real one's steps.
        splits: how many of the inner parts are held out, one after another; None: all.
        repeats: how often the images are cut into parts anew.
    """

    length: Annotated[float, Field(gt=0, le=1)] = 1.0
    splits: Few | None = None
    repeats: Few = 1


# Every stage costs about as much as the one before: half the candidates, twice the work.
STAGES = (
    HalvingStage(0.25, splits=1),
    HalvingStage(0.5, splits=1),
    HalvingStage(splits=1),
    HalvingStage(),
    HalvingStage(repeats=2),
)


@dataclass(frozen=True)
class Candidate:
    """A loss at a learning rate.

    Attributes:
        label: the loss's name.
        spec: how it is written with its own parameters; "" where it has none to choose.
        number: its place among the losses that train.
        lr: the rate.
    """

    label: str
    spec: str
    number: int
    lr: float


Scores = Callable[[Sequence[Candidate], HalvingStage], Sequence[float]]


@dataclass(frozen=True)
class Survivors:
    """What is left of a halving.

    Attributes:
        scores: of the last stage's candidates, cross-entropy's first.
        stages: how many candidates each stage had.
    """

    scores: dict[Candidate, float]
    stages: list[int]

    @property
    def ce(self) -> Candidate:
        """Cross-entropy at its best rate."""
        return max((x for x in self.scores if x.label == CE), key=self.scores.__getitem__)

    @property
    def best(self) -> Candidate:
        """The candidate that reached most; of equals cross-entropy."""
        return max(self.scores, key=self.scores.__getitem__)


def halve(
    candidates: Sequence[Candidate], stages: Sequence[HalvingStage], scores: Scores
) -> Survivors:
    """Halve candidates after every stage but the last one (successive halving, Karnin 2013).

    Those of cross-entropy are halved apart from all others, so that the best of them is there to
    the end: it is tuned in the same stages as what it is compared with.

    Args:
        candidates: cross-entropy's first.
        stages: their budgets.
        scores: what candidates reach under one; -inf where a training failed.
    """
    groups = [[x for x in candidates if (x.label == CE) is of_ce] for of_ce in (True, False)]
    counts = []
    for number, stage in enumerate(stages, 1):
        left = [x for group in groups for x in group]
        counts.append(len(left))
        reached = dict(zip(left, scores(left, stage), strict=True))
        if number < len(stages):
            groups = [_better_half(group, reached) for group in groups]
    return Survivors(reached, counts)


def _better_half(group: list[Candidate], reached: dict[Candidate, float]) -> list[Candidate]:
    # The sort is stable: of equals the one that stood before stays before.
    return sorted(group, key=lambda x: -reached[x])[: math.ceil(len(group) / 2)]
