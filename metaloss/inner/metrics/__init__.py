"""What trained classifiers are worth on validation images: metrics, one file each.

A metric is written as one of three kinds. `CountingMetric` needs to know how often each class was
the answer to each, `RankingMetric` how images rank for their class, `LogitMetric` all logits.
"""

from metaloss.inner.metrics._counting import CountingMetric
from metaloss.inner.metrics._observing import (
    classes_of,
    columns_by,
    costs_of,
    logits,
    progress_by,
    scale_of,
    scores_by,
    scores_of,
)
from metaloss.inner.metrics._protocol import Metric
from metaloss.inner.metrics._ranking import RankingMetric, Ranks
from metaloss.inner.metrics._setting import MetricTable
from metaloss.inner.metrics._shared import Block, LogitMetric, ratio, weighted_mean

__all__ = [
    "Block",
    "CountingMetric",
    "LogitMetric",
    "Metric",
    "MetricTable",
    "RankingMetric",
    "Ranks",
    "classes_of",
    "columns_by",
    "costs_of",
    "logits",
    "progress_by",
    "ratio",
    "scale_of",
    "scores_by",
    "scores_of",
    "weighted_mean",
]
