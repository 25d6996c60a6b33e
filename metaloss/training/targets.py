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

from metaloss.data.augmentations import mixed, raw
from metaloss.training import segmentation
from metaloss.training.measurement import Measurement, measure
from metaloss.training.models import ImageClassifier
from metaloss.training.settings import Augment


@dataclass(frozen=True)
class TargetMetric:
    """A number that says how good a network's predictions are; higher is better.

    Attributes:
        key: in files; behind `val_` in an epoch's record.
        title: of its column in the table of the test.
        axis: of its figure over the epochs; empty where it has none.
        percent: whether it is shown in percent; else as a number with three digits.
    """

    key: str
    title: str
    axis: str = ""
    percent: bool = True


ACCURACY = TargetMetric("accuracy", "accuracy", "validation accuracy [%]")
PIXEL_ACCURACY = TargetMetric("accuracy", "pixels right", "validation accuracy [%]")
BALANCED_ACCURACY = TargetMetric("balanced_accuracy", "balanced")
F1 = TargetMetric("f1", "F1", "validation macro-F1", percent=False)
IOU = TargetMetric("iou", "mean IoU", "validation mean IoU [%]")


class Target(ABC):
    """What a network learns to tell.

    Attributes:
        labelled: what has a class, in the plural.
        metric: by which learning rates are chosen and losses are compared.
        metrics: of the table of the test, in its order.
        epoch_metrics: keys of what an epoch's record has beside accuracy and F1.
        progress: key and heading of the two metrics that are shown while a training runs; the first
            in percent, the second as a number.
    """

    labelled: ClassVar[str]
    metric: ClassVar[TargetMetric]
    metrics: ClassVar[tuple[TargetMetric, ...]]
    epoch_metrics: ClassVar[tuple[str, ...]]
    progress: ClassVar[tuple[tuple[str, str], tuple[str, str]]]

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
    """The class of every image."""

    labelled = "images"
    metric = ACCURACY
    metrics = (ACCURACY, BALANCED_ACCURACY, F1)
    epoch_metrics = ()
    progress = (("accuracy", "val acc"), ("f1", "val F1"))

    def prepare(
        self, classifier: ImageClassifier, images: Tensor, labels: Tensor, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """Augmented and normalised images; class indices, or distributions after mixup."""
        normalised = classifier.normalise(raw(images, augment))
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
        return measure(classifier, loss, batches)

    def measured_at_once(self, batch: int, most: int) -> int:
        """As many as memory allows."""
        return most

    def own_scores(self, measured: Measurement, classes: Sequence[str]) -> dict[str, Any]:
        """Balanced accuracy, and the recall of every class."""
        recall = measured.recall or (math.nan,) * len(classes)
        return {
            "balanced_accuracy": measured.balanced_accuracy,
            "recall": dict(zip(classes, recall, strict=True)),
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


def target_of(record: Mapping[str, Any]) -> Target:
    """The target of a training, told by the keys of its result or of an epoch's record."""
    keys = {IOU.key, f"val_{IOU.key}"}
    return CLASSIFICATION if keys.isdisjoint(record) else SEGMENTATION
