"""Candidates, a loss at a rate each, reduced in stages from short trainings to real ones."""

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
        keep: the share of the trainings that go on to the next stage.
    """

    length: Annotated[float, Field(gt=0, le=1)] = 1.0
    splits: Few | None = None
    repeats: Few = 1
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5


# Most candidates are far from the best, which short trainings tell; the last few deserve the work.
STAGES = (
    HalvingStage(0.25, splits=1, keep=1 / 3),
    HalvingStage(0.5, splits=1, keep=1 / 4),
    HalvingStage(keep=1 / 3),
    HalvingStage(repeats=2),
)


@dataclass(frozen=True)
class Candidate:
    """A loss at a learning rate, with what is done to its networks' logits after training.

    Attributes:
        label: the loss's name.
        spec: how it is written with its own parameters; "" where it has none to choose.
        number: its place among the losses that train.
        lr: the rate.
        tau: strength of a prior correction; 0: none. It needs no training of its own.
    """

    label: str
    spec: str
    number: int
    lr: float
    tau: float = 0.0

    @property
    def training(self) -> tuple[int, float]:
        """What its networks have in common with those of other candidates."""
        return self.number, self.lr


Scores = Callable[[Sequence[Candidate], HalvingStage], Sequence[float]]
Further = Callable[[Candidate, Sequence[Candidate]], Sequence[Candidate]]


@dataclass(frozen=True)
class Survivors:
    """What is left of a halving.

    Attributes:
        scores: of the last stage's candidates, cross-entropy's first.
        stages: how many trainings each stage compared.
        tried: all candidates of all stages.
    """

    scores: dict[Candidate, float]
    stages: list[int]
    tried: Sequence[Candidate] = ()

    @property
    def ce(self) -> Candidate:
        """Cross-entropy at its best rate."""
        return max((x for x in self.scores if x.label == CE), key=self.scores.__getitem__)

    @property
    def best(self) -> Candidate:
        """The candidate that reached most; of equals cross-entropy."""
        return max(self.scores, key=self.scores.__getitem__)


def halve(
    candidates: Sequence[Candidate],
    stages: Sequence[HalvingStage],
    scores: Scores,
    further: Further | None = None,
) -> Survivors:
    """Keep a share of the candidates after every stage but the last one (successive halving,
    Karnin 2013).

    Those of cross-entropy are compared apart from all others, so that the best of them is there to
    the end: it is tuned in the same stages as what it is compared with. Candidates that share their
    trainings go on together.

    Args:
        candidates: cross-entropy's first.
        stages: their budgets.
        scores: what candidates reach under one; -inf where a training failed.
        further: candidates to try in the next stage beside the best of a group, given it and all
            that were tried of the group.
    """
    groups = [[x for x in candidates if (x.label == CE) is of_ce] for of_ce in (True, False)]
    tried = [list(group) for group in groups]
    counts = []
    for number, stage in enumerate(stages, 1):
        left = [x for group in groups for x in group]
        counts.append(len({x.training for x in left}))
        reached = dict(zip(left, scores(left, stage), strict=True))
        if number == len(stages):
            break
        for place, group in enumerate(groups):
            best = _best_share(group, reached, stage.keep)
            new = further(best[0], tried[place]) if further and best else []
            groups[place] = [*best, *new]
            tried[place] += new
    return Survivors(reached, counts, [x for group in tried for x in group])


def _best_share(
    group: Sequence[Candidate], reached: dict[Candidate, float], share: float
) -> list[Candidate]:
    """The candidates of the best trainings, the best first."""
    by_training: dict[tuple[int, float], list[Candidate]] = {}
    for x in group:
        by_training.setdefault(x.training, []).append(x)
    # The sort is stable: of equals the one that stood before stays before.
    ordered = sorted(by_training.values(), key=lambda together: -max(reached[x] for x in together))
    return [x for together in ordered[: math.ceil(share * len(ordered))] for x in together]
