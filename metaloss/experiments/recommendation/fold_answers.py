"""What small tasks answered to the images of every fold, as classes of the data set."""

from collections.abc import Sequence

import torch

from metaloss.experiments.recommendation.held_out_answers import HeldOutAnswers
from metaloss.experiments.recommendation.selection import ChoiceEvaluation
from metaloss.inner.observers import Measures


def answers_of(
    judged: Sequence[ChoiceEvaluation], measures: Sequence[Measures], classes: int
) -> HeldOutAnswers:
    """All folds' answers, as classes of the data set.

    Args:
        judged: the folds.
        measures: of what answers, one per fold.
        classes: of the data set.
    """
    rows, labels, answers = [], [], []
    for fold, seen in zip(judged, measures, strict=True):
        assert seen.predicted is not None  # classifiers were asked for their answers
        label = seen.predicted.long()
        answer = label
        if fold.tasks.classes is not None:
            answer = fold.tasks.classes.cpu().gather(1, label.clamp(min=0)).where(label >= 0, -1)
        rows.append(fold.tasks.val.rows.cpu().flatten())
        labels.append(fold.tasks.val_classes.cpu().flatten())
        answers.append(answer.flatten())
    return HeldOutAnswers.of(torch.cat(rows), torch.cat(labels), torch.cat(answers), classes)
