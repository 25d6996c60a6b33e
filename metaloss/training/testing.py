"""What a trained network is worth on the test images, with corrected logits where asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.datasets.voc import Scenes
from metaloss.inner.metrics import Metric
from metaloss.inner.thresholds import search_thresholds
from metaloss.training.measurement import Predictions, predict
from metaloss.training.models import ImageClassifier
from metaloss.training.sources import Rows
from metaloss.training.targets import Classification, Target

WRONG = 24  # images with the most wrong answers, which a result keeps

Batches = Iterable[tuple[Tensor, Tensor]]


def measured_scores(
    target: Target,
    classifier: ImageClassifier,
    loss: nn.Module,
    test: Batches,
    rows: Rows,
    dataset: Dataset | Files | Scenes,
    validation: Batches | None = None,
    prior: Tensor | None = None,
) -> dict[str, Any]:
    """A result on the test images as plain values.

    Args:
        target: what the network learned to tell.
        classifier: the trained one.
        loss: as it was trained with.
        test: the test images.
        rows: their rows of the data set.
        dataset: the data set.
        validation: the validation images, on which thresholds are chosen; None: there are none.
        prior: a prior correction, a number for every class; None: there is none.
    """
    classes = dataset.classes
    if isinstance(dataset, Scenes) or not isinstance(target, Classification):
        return target.scores(target.measure(classifier, loss, test), classes)
    groups = None if dataset.groups is None else dataset.groups[rows]
    seen = replace(predict(classifier, loss, test), groups=groups)
    scores = target.scores(seen.measured(target.by), classes)
    if not seen.sound:
        return scores
    scores["wrong"] = most_wrong(seen, rows, classes)
    if validation is not None:
        thresholds = chosen_thresholds(predict(classifier, loss, validation), target)
        scores |= _corrected_scores("thresholds", seen, thresholds, target, classes)
    if prior is not None:
        scores |= _corrected_scores("prior_correction", seen, prior, target, classes)
    return scores


def _corrected_scores(
    name: str,
    seen: Predictions,
    offsets: Tensor,
    target: Classification,
    classes: Sequence[str],
) -> dict[str, Any]:
    """What is added to the logits, and a result on the test images with it.

    Args:
        name: of the correction.
        seen: predictions for the test images.
        offsets: what is added to every class's logit.
        target: what the network learned to tell.
        classes: their names.
    """
    moved = seen.shifted(offsets).measured(target.by)
    return {
        name: dict(zip(classes, offsets.tolist(), strict=True)),
        f"with_{name}": target.scores(moved, classes),
    }


def chosen_thresholds(seen: Predictions, target: Classification) -> Tensor:
    """A number for every class that makes the metric best on these images, 0 where none does."""

    def score(offsets: Tensor) -> float:
        moved = seen.shifted(offsets)
        return target.metric.score(_value(moved, target.by))

    return search_thresholds(score, seen.logits.shape[1])


def _value(seen: Predictions, metric: Metric | None) -> float:
    """The value by the metric; the accuracy where there is none."""
    if metric is not None:
        return seen.value(metric)
    return float((seen.logits.argmax(1) == seen.labels).double().mean())


def most_wrong(seen: Predictions, rows: Rows, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The wrong answers whose true class has the lowest probability, the worst first."""
    logp = seen.logits.double().log_softmax(1)
    answer = logp.argmax(1)
    truth = logp.gather(1, seen.labels[:, None])[:, 0]
    wrong = (answer != seen.labels).nonzero()[:, 0]
    worst = wrong[truth[wrong].argsort(stable=True)][:WRONG]
    return [
        {
            "row": int(rows[place]),
            "class": classes[int(seen.labels[place])],
            "answer": classes[int(answer[place])],
            "probability": float(torch.exp(logp[place, answer[place]])),
        }
        for place in worst.tolist()
    ]
