"""What the folds say: the gain of choosing, with its interval over images and training seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.evaluation.metric_resamples import COUNTED, RANKED, MetricResamples
from metaloss.evaluation.rivals import TAU, ChangeChoice
from metaloss.evaluation.statistics import Draws
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.fold_results import CELLS
from metaloss.experiments.recommendation.rivals import RivalChoice
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import ScoreGain
from metaloss.experiments.recommendation_by_training.halving import Candidate, Survivors
from metaloss.inner.metrics import CountingMetric, Metric

WRONG = 30.0  # by which the true class lies behind in the logits of a training that diverged


@dataclass(frozen=True)
class JudgedFold:
    """A fold's choice, and what came of it on the fold's images.

    Attributes:
        survivors: of its halving.
        rows: the images.
        label: their classes.
        ours: the logits of the chosen candidate, for every seed; NaN where it diverged.
        ce: those of cross-entropy.
        beside: those of losses that are judged as they are and never chosen, by their names.
    """

    survivors: Survivors
    rows: Int[Tensor, " V"]
    label: Int[Tensor, " V"]
    ours: Float[Tensor, "S V C"]
    ce: Float[Tensor, "S V C"]
    beside: Mapping[str, Float[Tensor, "S V C"]] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedFolds:
    """Folds together: every image is looked at once, by trainings that have not seen it.

    A seed stands where a comparison has a task: its trainings, one in every fold, look at all
    images.

    Attributes:
        folds: those that are judged.
        metric: from logits to values.
        scale: from values to scores.
        certainty: of the interval.
        key: of the resamples.
        groups: of the data set's images, which are drawn whole; None: there are none.
        fixed: what is judged in the place of what each fold chose; "": nothing is.
    """

    folds: Sequence[JudgedFold]
    metric: Metric
    scale: MetricScale
    certainty: float
    key: Stream
    groups: Int[Tensor, " _"] | None = None
    fixed: str = ""

    def fixed_to(self, name: str) -> Self:
        """The same folds, with a loss that was judged beside the choice in the place of that."""
        return replace(self, fixed=name)

    @cached_property
    def ours(self) -> Float[Tensor, "S N C"]:
        """The logits of what the folds chose, or of what is fixed."""
        return self._joined([x.beside[self.fixed] if self.fixed else x.ours for x in self.folds])

    @cached_property
    def ce(self) -> Float[Tensor, "S N C"]:
        """Those of cross-entropy."""
        return self._joined([x.ce for x in self.folds])

    def _joined(self, logits: Sequence[Float[Tensor, "S V C"]]) -> Float[Tensor, "S N C"]:
        folds = zip(logits, self.folds, strict=True)
        return torch.cat([wrong_where_failed(x, fold.label) for x, fold in folds], 1)

    @property
    def beside(self) -> list[str]:
        """The losses that are judged beside the choice."""
        return list(self.folds[0].beside)

    @cached_property
    def label(self) -> Int[Tensor, " N"]:
        """The classes of the images."""
        return torch.cat([x.label for x in self.folds])

    @property
    def choice_counts(self) -> Counter[str]:
        """How many folds chose each loss."""
        return Counter(x.survivors.best.label for x in self.folds)

    @cached_property
    def resamples(self) -> MetricResamples:
        """Of the images and seeds."""
        seeds, _, classes = self.ours.shape
        rows = torch.cat([x.rows for x in self.folds]).expand(seeds, -1)
        label = self.label.expand(seeds, -1)
        most = COUNTED if isinstance(self.metric, CountingMetric) else RANKED
        number = min(most, CELLS // rows.shape[1])
        draws = Draws.of(rows, label, self.key, number, self.groups)
        of_data = torch.arange(classes).expand(seeds, -1)
        return MetricResamples(draws, self.metric, self.scale, label, of_data)

    def scores(self, logits: Float[Tensor, "S N C"]) -> Float[Tensor, " S"]:
        """Of each seed, on all images."""
        return self.resamples.scores(logits)

    def late(self) -> None:
        """Nothing: cross-entropy has no other number of steps here."""

    def whole(self) -> ScoreGain:
        """The gain over cross-entropy of what the folds chose, or of what is fixed."""
        low, high = self.resamples.gain_interval(self.ours, self.ce, self.certainty)
        difference = self.scores(self.ours) - self.scores(self.ce)
        return ScoreGain(float(difference.mean()), low, high)

    def values(self, logits: Float[Tensor, "S N C"]) -> tuple[float, float]:
        """The metric's value and the accuracy, means over the seeds."""
        score = float(self.scores(logits).mean())
        return self.scale.value(score), self.resamples.accuracy(logits)

    def confusion(self, logits: Float[Tensor, "S N C"]) -> Float[Tensor, "C C"]:
        """Images of every class (row) that got every answer (column), the mean over the seeds."""
        classes = logits.shape[-1]
        place = self.label * classes + logits.argmax(2)
        counts = torch.stack([x.bincount(minlength=classes**2) for x in place])
        return counts.double().mean(0).reshape(classes, classes).float()


def wrong_where_failed(
    logits: Float[Tensor, "S V C"], label: Int[Tensor, " V"]
) -> Float[Tensor, "S V C"]:
    """The logits, those of a training that diverged replaced by wrong answers."""
    sound = logits.isfinite().all(2).all(1)
    right = torch.nn.functional.one_hot(label, logits.shape[-1]).float()
    return logits.where(sound[:, None, None], -WRONG * right)


def choice_of(survivors: Survivors, steps: int, beside: Sequence[Candidate] = ()) -> LossChoice:
    """A halving's survivors as a choice, each loss at its best candidate's setting.

    Args:
        survivors: of the halving.
        steps: of a training.
        beside: what is judged as it is and never chosen.
    """
    settings: dict[str, Setting] = {}
    rivals: dict[str, RivalChoice] = {}
    for x, score in sorted(survivors.scores.items(), key=lambda pair: -pair[1]):
        if x.label not in settings and x.tau:
            rivals[x.label] = _correction(x, score)
        settings.setdefault(x.label, setting_of(x, steps, score))
    ordered = {CE: settings[CE]} | settings
    ordered |= {x.label: setting_of(x, steps) for x in beside}
    shown = frozenset(x.label for x in beside)
    return LossChoice(ordered, None, rivals=rivals, shown=shown)


def _correction(candidate: Candidate, score: float) -> ChangeChoice:
    # Its trainings' logits are corrected where they are scored; here it is only named.
    return ChangeChoice(candidate.label, TAU, candidate.tau, score, lambda networks: networks)


def setting_of(candidate: Candidate, steps: int, score: float | None = None) -> Setting:
    """How a candidate trains."""
    # A correction is no loss: its strength stands beside the setting.
    spec = "" if candidate.tau else candidate.spec
    return Setting(candidate.lr, steps, score, spec)
