"""What a trained classifier is worth on a share of the images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

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
    """

    loss: float
    accuracy: float
    f1: float
    iou: float | None = None
    ious: tuple[float, ...] = ()
    balanced_accuracy: float = math.nan
    recall: tuple[float, ...] = ()
    answered: tuple[int, ...] = ()

    @property
    def only_answer(self) -> int | None:
        """The class that is the answer to everything; None where there are several."""
        classes = [label for label, count in enumerate(self.answered) if count]
        return classes[0] if len(classes) == 1 else None


@torch.no_grad()
def measure(
    classifier: ImageClassifier, loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> Measurement:
    """Measurements over all batches, without augmentation and in full precision.

    The classifier is left as it was.
    """
    training = classifier.training
    classifier.eval()
    values = []
    choices = []
    labels = []
    sound = True
    for images, label in batches:
        logits, _ = outputs(classifier(images))
        values.append(loss(logits, label).double() * len(label))
        sound = sound and bool(logits.isfinite().all())
        choices.append(logits.argmax(1))
        labels.append(label)
    classifier.train(training)
    choice = torch.cat(choices).cpu()
    label = torch.cat(labels).cpu()
    value = float(torch.stack(values).sum()) / len(label)
    classes = classifier.shape.classes
    if not sound:
        return Measurement(value, math.nan, math.nan, recall=(math.nan,) * classes)
    table = confusion(choice, label, classes)
    recall = table.diagonal().double() / table.sum(1)  # 0 / 0 is NaN: a class without an image
    return Measurement(
        value,
        float((choice == label).double().mean()),
        float(macro_f1(choice[None], label[None], classes)[0]),
        balanced_accuracy=mean_of_occurring(recall),
        recall=tuple(recall.tolist()),
        answered=tuple(table.sum(0).tolist()),
    )


def confusion(
    choice: Int64[Tensor, " M"], label: Int64[Tensor, " M"], classes: int
) -> Int64[Tensor, "C C"]:
    """How many images or pixels of every class (row) got every answer (column)."""
    return (label * classes + choice).bincount(minlength=classes**2).reshape(classes, classes)


def mean_of_occurring(values: Float64[Tensor, " C"]) -> float:
    """The mean over the classes that occur, whose value is not NaN."""
    return float(values[~values.isnan()].mean())
