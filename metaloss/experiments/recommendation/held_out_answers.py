"""What trainings answered to every held-out image, whose answers count as one image together.

Several tasks, or seeds of a training, look at the same image. Their answers are no independent
images: recalls are shares of answers, as the scores of tasks are, but images are what their
intervals count.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.proportions import effective_size, wilson
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.thumbnails import image_name

MOST_WRONG = 12  # images that are listed
MATRIX = 100  # classes of a confusion matrix, at most: a larger one nobody reads


@dataclass(frozen=True, eq=False)
class HeldOutAnswers:
    """The answers to N images, by trainings that have not seen them.

    Attributes:
        classes: how many there are, C.
        rows: of the images in the data set.
        label: the true class of each.
        answers: how many answers each got.
        place: of every different answer to an image, which image.
        answer: which class; C where the training diverged.
        times: how often that image got it.
    """

    classes: int
    rows: Int[Tensor, " N"]
    label: Int[Tensor, " N"]
    answers: Int[Tensor, " N"]
    place: Int[Tensor, " A"]
    answer: Int[Tensor, " A"]
    times: Int[Tensor, " A"]

    @classmethod
    def of(
        cls,
        rows: Int[Tensor, " n"],
        label: Int[Tensor, " n"],
        answers: Int[Tensor, " n"],
        classes: int,
    ) -> Self:
        """All answers by image.

        Args:
            rows: which image each answer is to.
            label: its true class.
            answers: the class that was answered; -1 by a training that diverged.
            classes: how many there are.
        """
        known, place = rows.unique(return_inverse=True)
        of_image = torch.empty_like(known)
        of_image[place] = label.long()
        # Only answers that were given take memory: not one number for every image and class.
        answered = answers.long().where(answers >= 0, classes)
        pairs, counts = (place * (classes + 1) + answered).unique(return_counts=True)
        of_pair = pairs // (classes + 1)
        total = place.bincount(minlength=len(known))
        return cls(classes, known, of_image, total, of_pair, pairs % (classes + 1), counts)

    @cached_property
    def confusion(self) -> Float[Tensor, "C D"]:
        """Images of every class (row) by their answer (column); the last column: diverged.

        A row adds up to its images: they are spread as the answers to them are.
        """
        columns = self.classes + 1
        table = torch.zeros(self.classes * columns, dtype=torch.float64)
        cells = self.label[self.place] * columns + self.answer
        table.index_add_(0, cells, self.times.double())
        answers = table.reshape(self.classes, columns)
        return answers * (self.images / answers.sum(1).clamp(min=1))[:, None]

    @property
    def images(self) -> Int[Tensor, " C"]:
        """How many images of every class were looked at."""
        return self.label.bincount(minlength=self.classes)

    @property
    def recall(self) -> Float[Tensor, " C"]:
        """The share of right answers to every class's images; NaN where there is none."""
        return self.confusion.diagonal() / self.images

    @property
    def wrong(self) -> Float[Tensor, " N"]:
        """The share of wrong answers to every image."""
        right = torch.zeros(len(self.rows), dtype=torch.float64)
        hits = self.answer == self.label[self.place]
        right[self.place[hits]] = self.times[hits].double()
        return 1 - right / self.answers

    def usual(self) -> Int[Tensor, " N"]:
        """The most frequent answer to every image, the lowest class of equals; C: diverged."""
        order = self.times.sort(descending=True, stable=True).indices
        order = order[self.place[order].sort(stable=True).indices]
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = self.place[order][1:] != self.place[order][:-1]
        return self.answer[order][first]

    def most_wrong(self, by_all: Float[Tensor, " N"] | None = None) -> list[int]:
        """Places of the images with the most wrong answers, the worst first.

        Args:
            by_all: how often everything that was tried gets each of them wrong, which orders those
                that are wrong equally often.
        """
        wrong = self.wrong
        ties = torch.zeros_like(wrong) if by_all is None else by_all
        order = ties.sort(descending=True, stable=True).indices
        order = order[wrong[order].sort(descending=True, stable=True).indices]
        return [place for place in order[:MOST_WRONG].tolist() if wrong[place] > 0]


def independent_images(answers: HeldOutAnswers, groups: Int[Tensor, " K"] | None) -> list[float]:
    """As how many independent images those of every class count for its recall.

    All answers to an image count as one image; a share of answers rests most on images that got
    many. Images of one group, such as a patient, count the less the more alike the answers to them
    are (as in `effective_size`).

    Args:
        answers: to the images.
        groups: of every image of the data set; None: each stands for itself.
    """
    of_images = None if groups is None else groups[answers.rows]
    right = 1 - answers.wrong
    weights = answers.answers.double()
    sizes = []
    for label in range(answers.classes):
        own = answers.label == label
        together = None if of_images is None else of_images[own]
        sizes.append(effective_size(right[own], weights[own], together))
    return sizes


def answer_record(
    name: str,
    answers: HeldOutAnswers,
    dataset: Dataset | Files,
    by_all: Float[Tensor, " N"] | None = None,
) -> dict[str, Any]:
    """Recalls with their intervals, the confusion matrix and the most wrong images, as plain
    values.

    Args:
        name: of what was trained with, or done.
        answers: that came of it.
        dataset: names classes and images.
        by_all: as for `HeldOutAnswers.most_wrong`.
    """
    classes = dataset.classes
    sizes = independent_images(answers, dataset.groups)
    recalls = answers.recall.tolist()
    diverged = answers.confusion[:, -1]
    record: dict[str, Any] = {
        "loss": name,
        "images": dict(zip(classes, answers.images.tolist(), strict=True)),
        "recall": dict(zip(classes, recalls, strict=True)),
        "recall_interval": {
            c: list(wilson(*pair)) for c, *pair in zip(classes, recalls, sizes, strict=True)
        },
    }
    if len(classes) <= MATRIX:
        record["confusion"] = answers.confusion[:, :-1].tolist()
    if diverged.any():
        record["diverged"] = diverged.tolist()
    return {**record, "wrong": _wrong_images(answers, dataset, by_all)}


def _wrong_images(
    answers: HeldOutAnswers, dataset: Dataset | Files, by_all: Float[Tensor, " N"] | None
) -> list[dict[str, Any]]:
    """The images with the most wrong answers."""
    wrong = answers.wrong
    usual = answers.usual()
    names = [*dataset.classes, "none: diverged"]
    return [
        {
            "image": image_name(dataset, int(answers.rows[place])),
            "row": int(answers.rows[place]),
            "class": names[int(answers.label[place])],
            "answer": names[int(usual[place])],
            "wrong": float(wrong[place]),
            "answers": int(answers.answers[place]),
        }
        for place in answers.most_wrong(by_all)
    ]
