"""How an engine sees classifiers by a metric: their scores, or all that a test needs of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.data.episodes import Tasks
from metaloss.errors import SettingsError
from metaloss.inner.classifiers import Bound, Classifier, Params
from metaloss.inner.metrics._protocol import Metric
from metaloss.inner.metrics._shared import Block
from metaloss.inner.observers import Observer
from metaloss.losses.costs import relative_costs


def scale_of(metric: Metric, ways: int) -> MetricScale:
    """How a metric's values are shown, for tasks of so many classes."""
    return MetricScale(
        kind=registry.kind(metric),
        title=metric.title,
        maximise=metric.maximise,
        in_percent=metric.percent,
        failed=metric.failed(),
        guess=metric.guess(ways),
        negligible=metric.negligible(ways),
    )


@dataclass(frozen=True)
class _Scores:
    """The scores of a metric's values."""

    metric: Metric
    scale: MetricScale

    @torch.no_grad()
    def __call__(
        self, model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
    ) -> Float[Tensor, "P T"]:
        blocks = _logit_blocks(model, params, bound, tasks, block)
        values = self.metric.measure_blocks(blocks, classes_of(tasks, self.metric))
        return scores_of(self.scale, values)


@dataclass(frozen=True)
class _Progress:
    """The scores of a metric's values on training and on validation images."""

    metric: Metric
    scale: MetricScale

    @torch.no_grad()
    def __call__(
        self, model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
    ) -> Float[Tensor, "P T 2"]:
        metric = self.metric
        classes = classes_of(tasks, metric)
        seen = [
            model(params, bound.train.block(slice(first, first + block)))
            for first in range(0, len(bound.train), block)
        ]
        # What pads a task weighs nothing.
        train = metric.measure(torch.cat(seen, 2), tasks.train.label, classes, tasks.train.weight)
        blocks = _logit_blocks(model, params, bound, tasks, block)
        val = metric.measure_blocks(blocks, classes)
        return scores_of(self.scale, torch.stack([train, val], -1))


@dataclass(frozen=True)
class _Columns:
    """The scores by several metrics, a column each."""

    metrics: Sequence[tuple[Metric, MetricScale]]

    @torch.no_grad()
    def __call__(
        self, model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
    ) -> Float[Tensor, "P T K"]:
        # Kept, so that the classifiers run once for all metrics.
        blocks = list(_logit_blocks(model, params, bound, tasks, block))
        scores = [
            scores_of(scale, metric.measure_blocks(blocks, classes_of(tasks, metric)))
            for metric, scale in self.metrics
        ]
        return torch.stack(scores, -1)


# Observers are objects that another process can read, not functions within functions.
def scores_by(metric: Metric, scale: MetricScale) -> Observer:
    """What searches observe where a family names a metric: the scores of its values."""
    return _Scores(metric, scale)


def progress_by(metric: Metric, scale: MetricScale) -> Observer:
    """The observer of a learning curve: scores on training and on validation images."""
    return _Progress(metric, scale)


def columns_by(metrics: Sequence[tuple[Metric, MetricScale]]) -> Observer:
    """What a search with a guard observes: the scores by several metrics, a column each."""
    return _Columns(tuple(metrics))


def scores_of(scale: MetricScale, values: Float[Tensor, "*A"]) -> Float[Tensor, "*A"]:
    """The scores that stand for values; NaN stays."""
    return values - scale.failed if scale.maximise else scale.failed - values


@torch.no_grad()
def logits(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Float[Tensor, "P T V C"]:
    """The observer of a test by a metric: all that any metric can be computed from."""
    blocks = _logit_blocks(model, params, bound, tasks, block)
    return torch.cat([seen for seen, _ in blocks], 2)


def classes_of(tasks: Tasks, metric: Metric) -> Int[Tensor, "T C"]:
    """Which class of the data set each label of each task stands for.

    Raises:
        SettingsError: that is not known, and the metric names or orders classes.
    """
    if tasks.classes is not None:
        return tasks.classes
    if metric.names_classes:
        raise SettingsError(
            f"metric: {metric.title} needs to know which classes of the data a task has, and these "
            "tasks do not say"
        )
    return torch.arange(tasks.ways, device=tasks.val.label.device).expand(len(tasks), -1)


def costs_of(tasks: Tasks, metric: Metric) -> Float[Tensor, "T C C"] | None:
    """What losses see of the costs of mistakes by a metric; None: all cost alike."""
    costs = metric.mistake_costs(classes_of(tasks, metric))
    return None if costs is None else relative_costs(costs).float()


def _logit_blocks(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Iterator[Block]:
    """The logits and labels of the validation images, so many at a time."""
    for first in range(0, len(bound.val), block):
        images = slice(first, first + block)
        yield model(params, bound.val.block(images)), tasks.val.label[:, images]
