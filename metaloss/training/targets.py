"""What a network learns to tell: the class of every image, or of every pixel.

All that depends on this is a field or a method of a `Target`: how images and labels are augmented,
how a loss is adapted, what is measured, and in which columns it is shown.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from metaloss.core import registry
from metaloss.core.metric_scale import ACCURACY as ACCURACY_SCALE
from metaloss.core.metric_scale import MetricScale
from metaloss.data.augmentations import mixed, raw
from metaloss.inner.metrics import Metric, scale_of
from metaloss.training import segmentation
from metaloss.training.measurement import Measurement, measure
from metaloss.training.models import ImageClassifier
from metaloss.training.settings import Augment


@dataclass(frozen=True)
class TargetMetric:
    """A number that says how good a network's predictions are.

    Attributes:
        key: in files; behind `val_` in an epoch's record.
        title: of its column in the table of the test.
        axis: of its figure over the epochs; empty where it has none.
        percent: whether it is shown in percent; else as a number with three digits.
        maximise: whether more is better.
        failed: the value that a failed training counts as.
    """

    key: str
    title: str
    axis: str = ""
    percent: bool = True
    maximise: bool = True
    failed: float = 0.0

    def score(self, value: float | None) -> float:
        """A value as what is to be as high as possible; below all others for no number."""
        if value is None or math.isnan(value):
            return -math.inf
        return value if self.maximise else -value

    @classmethod
    def of_scale(cls, scale: MetricScale) -> "TargetMetric":
        """That of a metric which the settings name."""
        if scale.kind in NAMED:
            return NAMED[scale.kind]
        axis = f"validation {scale.axis}"
        return cls(scale.kind, scale.title, axis, scale.in_percent, scale.maximise, scale.failed)


ACCURACY = TargetMetric("accuracy", "accuracy", "validation accuracy [%]")
PIXEL_ACCURACY = TargetMetric("accuracy", "pixels right", "validation accuracy [%]")
BALANCED_ACCURACY = TargetMetric(
    "balanced_accuracy", "balanced", "validation balanced accuracy [%]"
)
F1 = TargetMetric("f1", "F1", "validation macro-F1", percent=False)
IOU = TargetMetric("iou", "mean IoU", "validation mean IoU [%]")
# Metrics that are always measured, by their names in the settings.
NAMED = {"accuracy": ACCURACY, "balanced_accuracy": BALANCED_ACCURACY, "macro_f1": F1}


class Target(ABC):
    """What a network learns to tell.

    Attributes:
        labelled: what has a class, in the plural.
        scale: of a metric that the settings name; that of accuracy where they name none.
        metric: by which learning rates are chosen and losses are compared.
        metrics: of the table of the test, in its order.
        epoch_metrics: keys of what an epoch's record has beside accuracy and F1.
        progress: key and heading of the two metrics that are shown while a training runs; the first
            in percent, the second as a number.
    """

    labelled: ClassVar[str]
    scale: MetricScale = ACCURACY_SCALE
    metric: TargetMetric
    metrics: tuple[TargetMetric, ...]
    epoch_metrics: tuple[str, ...]
    progress: tuple[tuple[str, str], tuple[str, str]]

    def value(self, measured: Measurement, key: str) -> float:
        """A measured number by its key."""
        return float(getattr(measured, key))

    @abstractmethod
    def prepare(
        self, classifier: ImageClassifier, images: Tensor, labels: Tensor, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """Augmented and normalised images, and the target that the loss takes.

        Args:
            classifier: normalises.
            images: as they are stored [B K H W].
            labels: of the images [B], or of their pixels [B H W].
            augment: the augmentation.
        """

    @abstractmethod
    def adapt(self, loss: nn.Module) -> nn.Module:
        """The loss as it is trained with."""

    @abstractmethod
    def measure(
        self,
        classifier: ImageClassifier,
        loss: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> Measurement:
        """What a trained classifier is worth on these batches."""

    @abstractmethod
    def measured_at_once(self, batch: int, most: int) -> int:
        """How many images are measured at once.

        Args:
            batch: images of a training step.
            most: what memory allows where an image has one row of logits.
        """

    @abstractmethod
    def own_scores(self, measured: Measurement, classes: Sequence[str]) -> dict[str, Any]:
        """What a result on the test images has beside accuracy, F1 and loss."""

    def scores(self, measured: Measurement | None, classes: Sequence[str]) -> dict[str, Any]:
        """A result on the test images as plain values.

        Args:
            measured: the result; None where the training failed.
            classes: their names.
        """
        measured = measured or Measurement(math.nan, math.nan, math.nan)
        answer = measured.only_answer
        return {
            "accuracy": measured.accuracy,
            "f1": measured.f1,
            "test_loss": measured.loss,
            "only_answer": None if answer is None else classes[answer],
            **self.own_scores(measured, classes),
        }


class Classification(Target):
    """The class of every image.

    Args:
        scale: how the metric that the settings name is shown; accuracy by default.
        by: that metric; None where it is only shown.
    """

    labelled = "images"

    def __init__(self, scale: MetricScale = ACCURACY_SCALE, by: Metric | None = None) -> None:
        self.by = by
        self.scale = scale
        self.metric = TargetMetric.of_scale(scale)
        known = (ACCURACY, BALANCED_ACCURACY, F1)
        self.metrics = tuple(dict.fromkeys((self.metric, *known)))
        of_epochs = self.metric.key in ("accuracy", "f1")
        self.epoch_metrics = () if of_epochs else (self.metric.key,)
        second = ("f1", "val F1") if of_epochs else (self.metric.key, f"val {self.metric.title}")
        self.progress = (("accuracy", "val acc"), second)

    def value(self, measured: Measurement, key: str) -> float:
        """A measured number by its key."""
        own = key == self.metric.key and not hasattr(measured, key)
        return measured.by_metric if own else super().value(measured, key)

    def prepare(
        self, classifier: ImageClassifier, images: Tensor, labels: Tensor, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """Augmented and normalised images; class indices, or distributions after mixup."""
        if augment.kind != "none":
            images = raw(images, augment)
        normalised = classifier.normalise(images)
        return mixed(normalised, labels, classifier.shape.classes, augment)

    def adapt(self, loss: nn.Module) -> nn.Module:
        """The loss as it is."""
        return loss

    def measure(
        self,
        classifier: ImageClassifier,
        loss: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> Measurement:
        """Means over images."""
        return measure(classifier, loss, batches, self.by)

    def measured_at_once(self, batch: int, most: int) -> int:
        """As many as memory allows."""
        return most

    def own_scores(self, measured: Measurement, classes: Sequence[str]) -> dict[str, Any]:
        """The metric that the settings name, balanced accuracy, the recall of every class, and how
        often each class (row) got each answer (column); where images have groups, as how many
        independent images those of each class count.
        """
        recall = measured.recall or (math.nan,) * len(classes)
        independent = dict(zip(classes, measured.independent, strict=False))
        return {
            **{key: self.value(measured, key) for key in self.epoch_metrics},
            "balanced_accuracy": measured.balanced_accuracy,
            "recall": dict(zip(classes, recall, strict=True)),
            "confusion": [list(row) for row in measured.confusion],
            **({"independent_images": independent} if independent else {}),
        }


class Segmentation(Target):
    """The class of every pixel."""

    labelled = "pixels"
    metric = IOU
    metrics = (IOU, PIXEL_ACCURACY, F1)
    epoch_metrics = ("iou",)
    progress = (("iou", "val mIoU"), ("accuracy", "val right"))

    def prepare(
        self, classifier: ImageClassifier, images: Tensor, labels: Tensor, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """Images and masks augmented alike; the images normalised, masks as class indices."""
        images, masks = segmentation.varied(images, labels, augment)
        return classifier.normalise(images), masks.long()

    def adapt(self, loss: nn.Module) -> nn.Module:
        """The loss with pixels left out that count for nothing."""
        return segmentation.ignoring(loss)

    def measure(
        self,
        classifier: ImageClassifier,
        loss: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> Measurement:
        """Means over pixels, and intersection over union."""
        return segmentation.measure(classifier, loss, batches)

    def measured_at_once(self, batch: int, most: int) -> int:
        """A batch: every pixel has logits."""
        return batch

    def own_scores(self, measured: Measurement, classes: Sequence[str]) -> dict[str, Any]:
        """Intersection over union, its mean and that of every class."""
        ious = measured.ious or (math.nan,) * len(classes)
        return {
            "iou": math.nan if measured.iou is None else measured.iou,
            "iou_per_class": dict(zip(classes, ious, strict=True)),
        }


CLASSIFICATION = Classification()
SEGMENTATION = Segmentation()


def classification_by(table: Mapping[str, Any] | None, classes: Sequence[str]) -> Classification:
    """The class of every image, by the metric that a table of settings names.

    Raises:
        SettingsError: the metric does not fit the classes.
    """
    if table is None:
        return CLASSIFICATION
    metric: Metric = registry.build("metrics", table, "metric")
    metric = metric.for_classes(classes, len(classes))
    return Classification(scale_of(metric, len(classes)), metric)


def target_of(record: Mapping[str, Any]) -> Target:
    """The target of a training, told by the keys of its result or of an epoch's record.

    What is read of a finished folder tells its metric, too, as `MetricScale.entry` does.
    """
    if not {IOU.key, f"val_{IOU.key}"}.isdisjoint(record):
        return SEGMENTATION
    return Classification(MetricScale.of(record)) if "metric_scale" in record else CLASSIFICATION
