"""A choice of loss and rate on some of the images, and what it is worth on a fold's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.recommendation_by_training.candidates import beyond
from metaloss.experiments.recommendation_by_training.folds import Part
from metaloss.experiments.recommendation_by_training.halving import (
    Candidate,
    HalvingStage,
    Scores,
    Survivors,
    halve,
)
from metaloss.experiments.recommendation_by_training.trainings import FoldTraining, Trainings
from metaloss.inner.metrics import Metric, scores_of
from metaloss.training.corrections import prior_offsets


@dataclass(frozen=True)
class Choosing:
    """How candidates are halved and the survivors judged.

    Attributes:
        trainings: makes them.
        candidates: cross-entropy's first.
        stages: of a halving.
        seeds: trainings of each survivor in every fold.
        metric: from logits to values.
        scale: from values to scores.
        fixed_rates: whether the rates are the user's, and none beyond them is tried.
        expected: the loss that is known to help on such images, at any rate; None: none is.
    """

    trainings: Trainings
    candidates: Sequence[Candidate]
    stages: Sequence[HalvingStage]
    seeds: int
    metric: Metric
    scale: MetricScale
    fixed_rates: bool = False
    expected: Candidate | None = None

    def choose(self, fold: int | None) -> Survivors:
        """The candidates that are best without a fold's images; on all images where None."""
        return self.halve(partial(self._scores, fold))

    def halve(self, scores: Scores) -> Survivors:
        """What is left of the candidates, by their scores."""
        further = {} if self.fixed_rates else {"further": beyond}
        return halve(self.candidates, self.stages, scores, **further)

    def judged_beside(self, survivors: Survivors) -> list[Candidate]:
        """The loss that is known to help, at cross-entropy's rate; none where none is known.

        Nothing of it is chosen by these images, so nothing flatters it, and its trainings in the
        folds are all that it costs.
        """
        return [replace(self.expected, lr=survivors.ce.lr)] if self.expected else []

    def judge(self, fold: int, candidate: Candidate) -> Float[Tensor, "S V C"]:
        """The logits of a fold's images after real trainings on all others, one for each seed."""
        logits = torch.stack(self.trainings.results(self.judged(fold, candidate)))
        return self._corrected(logits, candidate, Part(fold))

    def judged(self, fold: int, candidate: Candidate) -> list[FoldTraining]:
        """The trainings of a candidate that a fold judges."""
        steps = self.trainings.trainer.folds.steps
        return [
            FoldTraining(candidate.number, candidate.lr, Part(fold), steps, seed)
            for seed in range(self.seeds)
        ]

    def of_stage(
        self, fold: int | None, candidate: Candidate, stage: HalvingStage
    ) -> list[FoldTraining]:
        """A candidate's trainings in a stage, one inner part after another for every repeat."""
        folds = self.trainings.trainer.folds
        steps = max(1, round(stage.length * folds.steps))
        splits = min(stage.splits or folds.splits, folds.splits)
        return [
            FoldTraining(candidate.number, candidate.lr, Part(fold, split, repeat), steps)
            for repeat in range(stage.repeats)
            for split in range(splits)
        ]

    def _scores(
        self, fold: int | None, candidates: Sequence[Candidate], stage: HalvingStage
    ) -> list[float]:
        """What each reaches in a stage: the mean over the repeats, -inf where a training failed."""
        each = [self.of_stage(fold, x, stage) for x in candidates]
        logits = self.trainings.results([training for x in each for training in x])
        n = len(each[0])
        by_repeat = n // stage.repeats
        folds = self.trainings.trainer.folds
        scores = []
        # Inner parts are scored together: one alone has few images of a rare class.
        for first in range(0, n, by_repeat):
            parts = range(first, first + by_repeat)
            rows = torch.cat([folds.cut(each[0][i].part)[1] for i in parts])
            answers = [
                torch.cat([self._corrected(logits[c * n + i], x, each[c][i].part) for i in parts])
                for c, x in enumerate(candidates)
            ]
            scores.append(self.score(torch.stack(answers), folds.dataset.labels[rows]))
        mean = torch.stack(scores).mean(0).nan_to_num(nan=-torch.inf)
        return [float(x) for x in mean]

    def _corrected(
        self, logits: Float[Tensor, "*S V C"], candidate: Candidate, part: Part
    ) -> Float[Tensor, "*S V C"]:
        """The logits after what the candidate does to them, by what its training has seen."""
        if not candidate.tau:
            return logits
        folds = self.trainings.trainer.folds
        labels = folds.dataset.labels[folds.cut(part)[0]]
        counts = labels.bincount(minlength=logits.shape[-1])
        return logits + prior_offsets(counts, candidate.tau)

    def score(
        self, logits: Float[Tensor, "P V C"], label: Int[Tensor, " V"]
    ) -> Float[Tensor, " P"]:
        """Scores of classifiers that looked at the same images; NaN for one that diverged."""
        classes = torch.arange(logits.shape[-1])[None]
        values = self.metric.measure(logits[:, None], label[None], classes)[:, 0]
        return scores_of(self.scale, values).double()
