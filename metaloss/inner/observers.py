"""What trained classifiers predict on every validation image, and measures of the predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.data.episodes import TaskImages, Tasks
from metaloss.inner.classifiers import Bound, Classifier, Inputs, Params

# What is seen of trained classifiers: one number or more for each, from the tasks, in blocks of so
# many images.
Observer = Callable[[Classifier, Params, Bound, Tasks, int], Float[Tensor, "P T ..."]]
BINS = 15  # of the calibration error, of equal width


@torch.no_grad()
def predictions(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Float[Tensor, "P T V 3"]:
    """The observer of a test: predicted class, its probability, the true class's log-probability.

    NaN for an image whose logits are not finite.
    """
    blocks = []
    for first in range(0, len(bound.val), block):
        images = slice(first, first + block)
        logits = model(params, bound.val.block(images))
        blocks.append(predicted_by(logits, tasks.val.label[:, images]))
    return torch.cat(blocks, 2)


def predicted_by(
    logits: Float[Tensor, "P T V C"], label: Int[Tensor, "T V"]
) -> Float[Tensor, "P T V 3"]:
    """What `predictions` sees, from the logits."""
    logp = logits.mT.log_softmax(-2)  # [P T C V]
    confidence, predicted = logp.max(-2)
    truth = logp.gather(2, label.expand(len(logp), -1, -1)[:, :, None])[:, :, 0]
    seen = torch.stack([predicted.to(logp), confidence.exp(), truth], -1)
    return seen.where(logits.isfinite().all(-1, keepdim=True), torch.nan)


@torch.no_grad()
def progress(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Float[Tensor, "P T 2"]:
    """The observer of a learning curve: accuracies on training and on validation images."""
    train = validate(model, params, bound.train, _own_labels(tasks.train), block)
    if tasks.train.count is not None:
        train = train * (len(bound.train) / tasks.train.count)
    return torch.stack([train, validate(model, params, bound.val, tasks.val.label, block)], -1)


def _own_labels(images: TaskImages) -> Int[Tensor, "T N"]:
    """The labels, and no class for what pads a task, so that no answer is right there."""
    return images.label if images.weight is None else images.label.where(images.weight > 0, -1)


@dataclass(frozen=True)
class Measures:
    """What T trained classifiers are worth, NaN for those that diverged.

    Attributes:
        accuracy: the share of right answers.
        f1: the mean over the classes of the F1 score, 0 for a class that is never found.
        nll: the mean of -log p of the true class.
        calibration: the expected calibration error (Guo 2017): how far probability and accuracy lie
            apart.
        right: which images were answered right.
        by_metric: the scores by the family's metric, where it names one.
        logits: of every image, then.
        predicted: the label that every image was given, -1 by a classifier that diverged.
    """

    accuracy: Float[Tensor, " T"]
    f1: Float[Tensor, " T"]
    nll: Float[Tensor, " T"]
    calibration: Float[Tensor, " T"]
    right: Bool[Tensor, "T V"]
    by_metric: Float[Tensor, " T"] | None = None
    logits: Float[Tensor, "T V C"] | None = None
    predicted: Int[Tensor, "T V"] | None = None

    @property
    def score(self) -> Float[Tensor, " T"]:
        """What losses are compared by: the accuracy, unless the family names a metric."""
        return self.accuracy if self.by_metric is None else self.by_metric

    @property
    def answers(self) -> Tensor:
        """What resamples of tasks and images recompute the score from."""
        return self.right if self.logits is None else self.logits

    @property
    def diverged(self) -> Bool[Tensor, " T"]:
        """Which classifiers did."""
        return self.accuracy.isnan()


def measure(seen: Float[Tensor, "T V 3"], label: Int[Tensor, "T V"], classes: int) -> Measures:
    """The measures of some classifiers' predictions.

    Args:
        seen: what the observer `predictions` saw of one loss.
        label: the true classes.
        classes: how many there are.
    """
    sound = seen.isfinite().all(-1).all(-1)  # [T]
    # NaN of diverged classifiers counts as 0 here; their measures become NaN below.
    predicted, confidence, truth = seen.double().nan_to_num().unbind(-1)
    right = (predicted.long() == label) & sound[:, None]
    measured = (right.double().mean(1), macro_f1(predicted.long(), label, classes), -truth.mean(1))
    accuracy, f1, nll, calibration = (
        x.where(sound, torch.nan) for x in (*measured, calibration_error(confidence, right))
    )
    answered = predicted.where(sound[:, None], -1).short()  # labels are few, images many
    return Measures(accuracy, f1, nll, calibration, right, predicted=answered)


def macro_f1(
    predicted: Int[Tensor, "T V"], label: Int[Tensor, "T V"], classes: int
) -> Float[Tensor, " T"]:
    """The F1 score, averaged over the classes that occur as a label or an answer."""
    pairs = (label * classes + predicted).long()
    count = torch.zeros(len(pairs), classes**2, dtype=torch.float64)
    count.scatter_add_(1, pairs, torch.ones_like(pairs, dtype=torch.float64))
    confusion = count.unflatten(1, (classes, classes))  # [T true answered]
    hits = confusion.diagonal(dim1=1, dim2=2)
    # 2 hits / (labels + answers): neither precision nor recall can be 0/0.
    sizes = confusion.sum(1) + confusion.sum(2)
    occurs = sizes > 0
    result: Tensor = (2 * hits / sizes.clamp(min=1)).where(occurs, 0).sum(1) / occurs.sum(1)
    return result


def calibration_error(
    confidence: Float[Tensor, "T V"], right: Bool[Tensor, "T V"], bins: int = BINS
) -> Float[Tensor, " T"]:
    """The expected calibration error of some classifiers (Guo 2017).

    The mean over the images of |accuracy - mean probability| within their bin of probabilities
    (low, high].
    """
    # Bins leave out their lower end, and a probability of 0 is put into the first.
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gap = torch.zeros(len(confidence), bins, dtype=torch.float64)
    # A bin's sum of differences is its gap times its images: the weight of its mean.
    gap.scatter_add_(1, place, right.double() - confidence.double())
    return gap.abs().sum(1) / confidence.shape[1]


def accuracy(logits: Float[Tensor, "P T V C"], label: Int[Tensor, "T V"]) -> Float[Tensor, "P T"]:
    """Share of right answers; NaN where a classifier diverged (argmax alone would hide it)."""
    by_class = logits.mT
    if kernels.available() and (by_class.device.type, by_class.dtype) == ("cpu", torch.float32):
        return _counted(by_class.contiguous(), label)
    right = (by_class.max(-2).indices == label).float().mean(-1)
    # A sum is finite only where all its parts are, and nothing else times 0 is 0.
    return right + 0 * by_class.sum((-2, -1))


def _counted(by_class: Float[Tensor, "P T C V"], label: Int[Tensor, "T V"]) -> Float[Tensor, "P T"]:
    """The same in one pass."""
    from metaloss.kernels.validation.accuracy import count_right

    right = by_class.new_empty(by_class.shape[:2])
    count_right(by_class.flatten(0, 1).numpy(), label.numpy(), right.flatten().numpy())
    return right / by_class.shape[3]


def scores(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Float[Tensor, "P T"]:
    """What searches observe: the validation accuracy."""
    return validate(model, params, bound.val, tasks.val.label, block)


@torch.no_grad()
def right_answers(
    model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
) -> Float[Tensor, "P T V"]:
    """The observer of a search's test: 1 for a validation image that is classified right, else 0.

    NaN where the logits are not finite.
    """
    blocks = []
    for first in range(0, len(bound.val), block):
        images = slice(first, first + block)
        logits = model(params, bound.val.block(images))
        right = (logits.argmax(-1) == tasks.val.label[:, images]).to(logits)
        blocks.append(right.where(logits.isfinite().all(-1), torch.nan))
    return torch.cat(blocks, 2)


@torch.no_grad()
def validate(
    model: Classifier, params: Params, inputs: Inputs, label: Int[Tensor, "T V"], block: int
) -> Float[Tensor, "P T"]:
    """The accuracy on all validation images, a block of them at a time."""
    right: Tensor | float = 0.0
    for first in range(0, len(inputs), block):
        images = slice(first, first + block)
        some = label[:, images]
        # The last block may be smaller, so a block counts as often as it has images.
        right = right + accuracy(model(params, inputs.block(images)), some) * some.shape[1]
    return torch.as_tensor(right / len(inputs))
