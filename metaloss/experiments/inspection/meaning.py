"""What uneven classes mean for a metric."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core import registry
from metaloss.core.formatting import counted, percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.proportions import wilson
from metaloss.data.inspection import Inspection
from metaloss.inner.metrics import CountingMetric, Metric, scale_of

SURE = 20.0  # of a logit: the answer is certain
SHORT = 30  # test images of a class below which its recall is hardly known
UNEVEN = 1.5  # times as many images in the largest class as in the smallest


def metric_of(found: Inspection, table: dict[str, Any] | None) -> tuple[Metric, MetricScale]:
    """The metric that a table of settings names, for these classes, and how it is shown.

    Raises:
        SettingsError: there is none, or it does not fit the classes.
    """
    classes = found.dataset.classes
    metric: Metric = registry.build("metrics", table or {"kind": "accuracy"}, "metric")
    metric = metric.for_classes(classes, len(classes))
    return metric, scale_of(metric, len(classes))


def meaning(found: Inspection, metric: Metric, scale: MetricScale) -> dict[str, Any]:
    """What the classes' shares alone reach by a metric on the test images, and what one mistake
    costs.

    Returns:
        `largest` and `smallest`, classes by their training images; `answered`, the value of
        answers that know the shares of the classes and no image; `mistake`, for metrics of answers,
        what one wrong answer to each of these classes takes off a perfect value.
    """
    labels = found.dataset.labels[found.test]
    counts = torch.tensor([all_ - test for all_, test in found.counts]).clamp(min=1)
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    shares = (counts / counts.sum()).log().expand(len(labels), -1)
    perfect = SURE * torch.nn.functional.one_hot(labels, len(counts)).float()
    value = _value(metric, perfect, labels)
    mistakes = {}
    if isinstance(metric, CountingMetric):
        for label in {largest: None, smallest: None}:
            rows = (labels == label).nonzero()[:, 0]
            if len(rows):
                wrong = perfect.clone()
                wrong[rows[0]] = SURE * torch.eye(len(counts))[(label + 1) % len(counts)]
                mistakes[found.dataset.classes[label]] = abs(value - _value(metric, wrong, labels))
    classes = found.dataset.classes
    return {
        "metric": scale.kind,
        "largest": classes[largest],
        "smallest": classes[smallest],
        "answered": _value(metric, shares, labels),
        "mistake": mistakes,
    }


def _value(metric: Metric, logits: Float[Tensor, "V C"], labels: Int64[Tensor, " V"]) -> float:
    """A metric of one classifier on the test images."""
    classes = torch.arange(logits.shape[1])[None]
    return float(metric.measure(logits[None, None].contiguous(), labels[None], classes)[0, 0])


def sentences(found: Inspection, about: dict[str, Any], scale: MetricScale) -> list[str]:
    """The same in words, and what to do.

    Args:
        found: the data set.
        about: what `meaning` gives.
        scale: of the metric.
    """
    sizes = [all_ - test for all_, test in found.counts]
    classes = found.dataset.classes
    largest, smallest = about["largest"], about["smallest"]
    shares = f"'{largest}' as every answer" if about["mistake"] else "the classes' shares alone"
    lines = [f"{shares}: {scale.title} {scale.text(about['answered'])} on the test images"]
    n = found.counts[classes.index(smallest)][1]
    if max(sizes) <= UNEVEN * min(sizes):
        lines.append("classes are nearly even: no metric prefers one of them")
    elif about["mistake"]:
        costs = " and ".join(
            f"{_amount(cost, scale)} for a '{name}'" for name, cost in about["mistake"].items()
        )
        lines.append(f"one wrong answer more takes off {costs}")
    if max(sizes) > UNEVEN * min(sizes) and scale.is_accuracy:
        share = percent(min(sizes) / sum(sizes))
        which = "images to train on" if found.official else "images"
        lines.append(
            f"accuracy lets a network give up '{smallest}': it has {share} of the {which}. Where "
            "every class matters: --metric balanced_accuracy or macro_f1"
        )
    if n == 0:
        lines.append(
            f"no test image of '{smallest}': its recall cannot be known; 3 images of it in all are "
            "the fewest"
        )
    elif n < SHORT:
        low, high = wilson(0.5, n)
        lines.append(
            f"{counted(n, 'test image')} of '{smallest}': if half of them are found, its recall is "
            f"known to lie between {100 * low:.0f} and {100 * high:.0f} %, and no better"
        )
    return lines


def _amount(difference: float, scale: MetricScale) -> str:
    """A difference of values with its unit."""
    return f"{scale.number(difference):.{scale.digits}f}{scale.unit}"
