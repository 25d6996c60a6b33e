"""The interval over tasks and images for any metric: its values recomputed for every resample."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.evaluation.statistics import Draws, interval_over_tasks_and_images
from metaloss.inner.metrics import CountingMetric, Metric, classes_of, scores_of
from metaloss.inner.metrics.accuracy import Accuracy

COUNTED = 2000  # resamples of a metric that counts
RANKED = 500  # of all others, which take ten times as long
LIMIT = 1 << 23  # weights and probabilities of one task's resamples that are held at once


@dataclass(frozen=True)
class MetricResamples:
    """Resamples of images, and the metric that is computed anew for each of them.

    Attributes:
        draws: how often each image was drawn.
        metric: from logits to values.
        scale: from values to scores.
        label: the true classes.
        classes: which class of the data set each label of a task stands for.
    """

    draws: Draws
    metric: Metric
    scale: MetricScale
    label: Int[Tensor, "T V"]
    classes: Int[Tensor, "T C"]

    @classmethod
    def of(
        cls,
        metric: Metric,
        scale: MetricScale,
        tasks: Tasks,
        key: Stream,
        most: int = COUNTED,
        groups: Int[Tensor, " N"] | None = None,
    ) -> Self:
        """Resamples for some tasks.

        Args:
            metric: from logits to values.
            scale: from values to scores.
            tasks: whose validation images are drawn.
            key: of the resamples.
            most: resamples.
            groups: of the data set's images, which are drawn whole; None: there are none.
        """
        resamples = min(most, COUNTED if isinstance(metric, CountingMetric) else RANKED)
        draws = Draws.of(tasks.val.rows.cpu(), tasks.val_classes.cpu(), key, resamples, groups)
        return cls(draws, metric, scale, tasks.val.label.cpu(), classes_of(tasks, metric).cpu())

    def scores(self, answers: Float[Tensor, "T V C"]) -> Float[Tensor, " T"]:
        """The score on every task; NaN for a training that diverged."""
        values = self.metric.measure(answers[None], self.label, self.classes)[0]
        return scores_of(self.scale, values).double()

    def accuracy(self, answers: Float[Tensor, "T V C"]) -> float:
        """The mean accuracy, a failed training counting as 0."""
        right = Accuracy().measure(answers[None], self.label, self.classes)[0]
        return float(right.double().nan_to_num(nan=0.0).mean())

    def gain_interval(
        self,
        ours: Float[Tensor, "T V C"],
        theirs: Float[Tensor, "T V C"],
        certainty: float = 0.95,
    ) -> tuple[float, float]:
        """The interval of how much higher the first loss scores."""
        gain = self._scores_with_failures(ours) - self._scores_with_failures(theirs)
        resampled = self._resampled_scores(ours) - self._resampled_scores(theirs)
        return interval_over_tasks_and_images(gain, resampled, self.draws.freedom, certainty)

    def _scores_with_failures(self, answers: Float[Tensor, "T V C"]) -> Float[Tensor, " T"]:
        """The score on every task, a failed training counting as 0."""
        return self.scores(answers).nan_to_num(nan=0.0)

    def _resampled_scores(self, answers: Float[Tensor, "T V C"]) -> Float[Tensor, "T R"]:
        """The score on every task in each resample, a failed training counting as 0."""
        # Task by task: all weights at once would be resamples x tasks x images.
        return torch.stack([self._resampled(answers, slice(t, t + 1)) for t in range(len(answers))])

    def _resampled(self, answers: Float[Tensor, "T V C"], task: slice) -> Float[Tensor, " R"]:
        """One task's score in each resample."""
        images = self.draws.images[self.draws.place[task]]  # [1 V R]
        at_once = max(1, LIMIT // answers[0].numel())
        values = torch.cat(
            [
                self.metric.measure(
                    answers[None, task], self.label[task], self.classes[task], weight
                )[:, 0, 0]
                for weight in images.movedim(-1, 0).split(at_once)
            ]
        )
        return scores_of(self.scale, values).double().nan_to_num(nan=0.0)
