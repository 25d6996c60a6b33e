"""What a trained classifier is worth on a share of the images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaloss.measures import macro_f1
from metaloss.training.models import Classifier, outputs


@dataclass(frozen=True)
class Measured:
    """Means over the images: the loss, the share of right answers, and macro-F1; NaN where logits are not finite.

    Where every pixel has a class they are means over pixels, and there are intersection over union of every class, NaN
    for one that is neither a label nor an answer, and its mean over the others.
    """

    loss: float
    accuracy: float
    f1: float
    iou: float | None = None
    ious: tuple[float, ...] = ()


@torch.no_grad()
def measure(classifier: Classifier, loss: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Measured:
    """Look at all batches, without augmentation and in full precision; the classifier is left as it was."""
    training = classifier.training
    classifier.eval()
    values, choices, labels = [], [], []
    sound = True
    for images, label in batches:
        logits, _ = outputs(classifier(images))
        values.append(loss(logits, label).double() * len(label))
        sound = sound and bool(logits.isfinite().all())
        choices.append(logits.argmax(1))
        labels.append(label)
    classifier.train(training)
    choice, label = torch.cat(choices).cpu(), torch.cat(labels).cpu()
    value = float(torch.stack(values).sum()) / len(label)
    if not sound:
        return Measured(value, math.nan, math.nan)
    f1 = float(macro_f1(choice[None], label[None], classifier.shape.classes)[0])
    return Measured(value, float((choice == label).double().mean()), f1)
