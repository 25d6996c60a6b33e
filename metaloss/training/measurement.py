"""What a trained classifier is worth on a share of the images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from metaloss.core.proportions import effective_size
from metaloss.inner.metrics import Metric
from metaloss.inner.observers import macro_f1
from metaloss.training.models import ImageClassifier, outputs


@dataclass(frozen=True)
class Measurement:
    """Means over the images: the loss, the share of right answers, and macro-F1; NaN where logits
    are not finite.

    Where every pixel has a class they are means over pixels, and there are intersection over union
    of every class, NaN for one that is neither a label nor an answer, and its mean over the others.

    Attributes:
        loss, accuracy, f1: as said above.
        iou, ious: of pixels alone.
        balanced_accuracy: of images alone, the mean of the recalls of the classes that have an
            image.
        recall: of images alone, of every class the share that is found; NaN for a class without an
            image.
        answered: how many images or pixels got each class as their answer; empty where logits are
            not finite.
        confusion: of images alone, how many of every class (row) got every answer (column); empty
            likewise.
        by_metric: of images alone, the value by the metric that the settings name.
        independent: where images have groups, as how many independent ones those of each class
            count; else empty.
    """

    loss: float
    accuracy: float
    f1: float
    iou: float | None = None
    ious: tuple[float, ...] = ()
    balanced_accuracy: float = math.nan
    recall: tuple[float, ...] = ()
    answered: tuple[int, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    by_metric: float = math.nan
    independent: tuple[float, ...] = ()

    @property
    def only_answer(self) -> int | None:
        """The class that is the answer to everything; None where there are several."""
        classes = [label for label, count in enumerate(self.answered) if count]
        return classes[0] if len(classes) == 1 else None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier gives for images, on the CPU.

    Attributes:
        logits: of every image.
        labels: the true classes.
        loss: its mean over the images.
        groups: of the images; None: each stands for itself.
    """

    logits: Float[Tensor, "M C"]
    labels: Int64[Tensor, " M"]
    loss: float
    groups: Int64[Tensor, " M"] | None = None

    @property
    def sound(self) -> bool:
        """Whether all logits are finite."""
        return bool(self.logits.isfinite().all())

    def shifted(self, thresholds: Float[Tensor, " C"]) -> "Predictions":
        """The same with a number added to the logit of every class."""
        return replace(self, logits=self.logits + thresholds)

    def value(self, metric: Metric) -> float:
        """The value by a metric; NaN where logits are not finite."""
        classes = torch.arange(self.logits.shape[1])[None]
        logits = self.logits[None, None].float().contiguous()
        return float(metric.measure(logits, self.labels[None], classes)[0, 0])

    def measured(self, metric: Metric | None = None) -> Measurement:
        """All that is measured.

        Args:
            metric: that the settings name, if any.
        """
        classes = self.logits.shape[1]
        if not self.sound:
            return Measurement(self.loss, math.nan, math.nan, recall=(math.nan,) * classes)
        choice = self.logits.argmax(1)
        table = confusion(choice, self.labels, classes)
        recall = table.diagonal().double() / table.sum(1)  # 0 / 0: a class without an image
        return Measurement(
            self.loss,
            float((choice == self.labels).double().mean()),
            float(macro_f1(choice[None], self.labels[None], classes)[0]),
            balanced_accuracy=mean_of_occurring(recall),
            recall=tuple(recall.tolist()),
            answered=tuple(table.sum(0).tolist()),
            confusion=tuple(map(tuple, table.tolist())),
            by_metric=math.nan if metric is None else self.value(metric),
            independent=self._independent(choice),
        )

    def _independent(self, choice: Int64[Tensor, " M"]) -> tuple[float, ...]:
        """As how many independent images those of each class count; empty without groups."""
        if self.groups is None:
            return ()
        right = (choice == self.labels).double()
        of_classes = [self.labels == label for label in range(self.logits.shape[1])]
        return tuple(
            effective_size(right[own], torch.ones_like(right[own]), self.groups[own])
            for own in of_classes
        )


@torch.no_grad()
def predict(
    classifier: ImageClassifier, loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> Predictions:
    """Predictions for all batches, without augmentation and in full precision.

    The classifier and the loss are left as they were.
    """
    training = classifier.training, loss.training
    classifier.eval()
    loss.eval()
    values = []
    seen = []
    labels = []
    for images, label in batches:
        logits, _ = outputs(classifier(images))
        values.append(loss(logits, label).double() * len(label))
        seen.append(logits.cpu())
        labels.append(label.cpu())
    classifier.train(training[0])
    loss.train(training[1])
    label = torch.cat(labels)
    return Predictions(torch.cat(seen), label, float(torch.stack(values).sum()) / len(label))


def measure(
    classifier: ImageClassifier,
    loss: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    metric: Metric | None = None,
) -> Measurement:
    """Measurements over all batches, without augmentation and in full precision.

    The classifier and the loss are left as they were.
    """
    return predict(classifier, loss, batches).measured(metric)


def confusion(
    choice: Int64[Tensor, " M"], label: Int64[Tensor, " M"], classes: int
) -> Int64[Tensor, "C C"]:
    """How many images or pixels of every class (row) got every answer (column)."""
    return (label * classes + choice).bincount(minlength=classes**2).reshape(classes, classes)


def mean_of_occurring(values: Float64[Tensor, " C"]) -> float:
    """The mean over the classes that occur, whose value is not NaN."""
    return float(values[~values.isnan()].mean())
