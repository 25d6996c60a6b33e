"""What came of each fold's choice on its images: gains over all folds, with their intervals."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.streams import Stream
from metaloss.data.episodes import TaskImages, Tasks
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.statistics import Draws, Resamples
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.rivals import names_of
from metaloss.experiments.recommendation.selection import ChoiceEvaluation, LossChoice
from metaloss.experiments.recommendation.verdict import SEARCH_CERTAINTY, ScoreGain
from metaloss.inner.observers import Measures

CELLS = 40_000_000  # images times resamples, at most


@dataclass(frozen=True)
class FoldResults:
    """K choices, and what came of each on the images that it had not seen.

    Attributes:
        choices: one per fold.
        judged: likewise.
        draws: resamples of all folds' images, or of their groups.
        certainty: of the intervals.
        scale: how scores are shown.
        fixed: what is judged in the place of what each fold chose; "": nothing is.
    """

    choices: Sequence[LossChoice]
    judged: Sequence[ChoiceEvaluation]
    draws: Resamples
    certainty: float
    scale: MetricScale = ACCURACY
    fixed: str = ""

    @classmethod
    def of(
        cls,
        choices: Sequence[LossChoice],
        judged: Sequence[ChoiceEvaluation],
        certainty: float,
        key: Stream,
        groups: Int[Tensor, " N"] | None = None,
    ) -> Self:
        """The folds with new resamples: 2,000, or fewer where these would take much memory.

        Args:
            choices: one per fold.
            judged: one per fold.
            certainty: of the intervals.
            key: of the resamples.
            groups: of the data set's images, which are drawn whole; None: there are none.
        """
        # Folds share no validation images, so their tasks go into one set of resamples.
        tasks = _joined([x.tasks for x in judged])
        rows = tasks.val.rows.cpu()
        # A count for each image and resample is held in memory.
        resamples = min(2_000, CELLS // len(rows.unique()))
        metric = judged[0].metric
        scale = judged[0].scale
        if metric is None:
            draws = Draws.of(rows, tasks.val_classes.cpu(), key, resamples, groups)
            return cls(choices, judged, draws, certainty, scale)
        by_metric = MetricResamples.of(metric, scale, tasks, key, resamples, groups)
        return cls(choices, judged, by_metric, certainty, scale)

    def fixed_to(self, name: str) -> Self:
        """The same folds, with this in the place of what each of them chose."""
        return replace(self, fixed=name)

    @cached_property
    def choice_counts(self) -> Counter[str]:
        """How many folds chose each loss."""
        return Counter(x.winner for x in self.choices)

    def of_loss(self, name: str) -> list[Measures]:
        """One loss in all folds."""
        return [x.measures[name] for x in self.judged]

    @cached_property
    def rivals(self) -> list[str]:
        """What is no loss, in every fold."""
        return names_of([x.rivals for x in self.choices])

    def gain(self, name: str, other: str = CE) -> ScoreGain:
        """A loss beside cross-entropy, or beside another one, whatever was chosen."""
        return self._gain(self.of_loss(name), self.of_loss(other))

    def best(self, names: Sequence[str]) -> str:
        """Which of these reaches most on the held-out images; of equals the first."""
        return max(names, key=lambda name: self.score(self.of_loss(name)))

    def whole(self) -> ScoreGain:
        """The gain of every fold's chosen loss over cross-entropy: what this choice is worth."""
        return self._gain(self.of_chosen(), self.of_loss(CE))

    def late(self) -> ScoreGain | None:
        """The gain of the chosen losses over cross-entropy with its best number of steps."""
        late = self.of_late()
        return self._gain(self.of_chosen(), late) if late else None

    def late_over_own(self) -> ScoreGain | None:
        """The gain of cross-entropy's best number of steps over the family's."""
        late = self.of_late()
        return self._gain(late, self.of_loss(CE)) if late else None

    def of_late(self) -> list[Measures]:
        """Cross-entropy with its best number of steps in all folds.

        Empty where every loss has its best number of steps.
        """
        return [x.late for x in self.judged if x.late is not None]

    def of_losses_alone(self) -> ScoreGain:
        """The gain of choosing among losses alone, whatever else there is: what a loss can do here.

        Of losses those count that tell whether a search is worth it (`LossChoice.best_loss`).
        Its interval has a certainty of its own, of which one end lies wrong once in ten times.
        """
        ours = [x.measures[c.best_loss] for c, x in zip(self.choices, self.judged, strict=True)]
        return self._gain(ours, self.of_late() or self.of_loss(CE), SEARCH_CERTAINTY)

    def of_chosen(self) -> list[Measures]:
        """What each fold's choice, or what is fixed, reached on the fold's images."""
        pairs = zip(self.choices, self.judged, strict=True)
        return [x.measures[self.fixed or choice.winner] for choice, x in pairs]

    def _gain(
        self, ours: Sequence[Measures], theirs: Sequence[Measures], certainty: float | None = None
    ) -> ScoreGain:
        low, high = self.draws.gain_interval(
            _answers(ours), _answers(theirs), certainty or self.certainty
        )
        if self.scale.is_accuracy:
            # Of all images at once, as the share of right answers is.
            difference = _right(ours).double() - _right(theirs).double()
        else:
            difference = _scores(ours) - _scores(theirs)
        return ScoreGain(float(difference.mean()), low, high)

    def score(self, folds: Sequence[Measures]) -> float:
        """The mean score that losses are compared by."""
        return accuracy(folds) if self.scale.is_accuracy else float(_scores(folds).mean())

    def value(self, folds: Sequence[Measures]) -> float:
        """The mean value of the metric that losses are compared by."""
        return self.scale.value(self.score(folds))


def _joined(parts: Sequence[Tasks]) -> Tasks:
    """Tasks of several folds, which validate equally many images."""
    first = parts[0].val
    rows = torch.cat([x.val.rows for x in parts])
    label = torch.cat([x.val.label for x in parts])
    known = [x.classes for x in parts if x.classes is not None]
    val = TaskImages(first.images, rows, label, first.classes)
    # Nothing is trained on them any more.
    return Tasks(val, val, torch.cat(known) if len(known) == len(parts) else None)


def _answers(folds: Sequence[Measures]) -> Tensor:
    return torch.cat([x.answers for x in folds])


def _scores(folds: Sequence[Measures]) -> Float[Tensor, " T"]:
    """A failed training counts as 0."""
    return torch.cat([x.score for x in folds]).double().nan_to_num(nan=0.0)


def _right(folds: Sequence[Measures]) -> Bool[Tensor, "T V"]:
    return torch.cat([x.right for x in folds])


def accuracy(folds: Sequence[Measures]) -> float:
    """The mean, where a training that diverged counts as 0."""
    return float(_right(folds).double().mean())
