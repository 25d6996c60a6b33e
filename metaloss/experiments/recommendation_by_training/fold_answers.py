"""What real trainings answered to the images of every fold."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.experiments.recommendation.held_out_answers import HeldOutAnswers
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFolds


def answers_of(judged: JudgedFolds, logits: Sequence[Float[Tensor, "S V C"]]) -> HeldOutAnswers:
    """All folds' answers.

    Args:
        judged: the folds.
        logits: of each fold, for every seed.
    """
    answers = []
    for of_fold in logits:
        # A training that diverged answers nothing, to any image.
        sound = of_fold.isfinite().all(2).all(1)
        answers.append(of_fold.argmax(2).where(sound[:, None], -1))
    seeds, _, classes = logits[0].shape
    rows = torch.cat([x.rows for x in judged.folds]).expand(seeds, -1)
    label = judged.label.expand(seeds, -1)
    given = torch.cat(answers, 1)
    return HeldOutAnswers.of(rows.flatten(), label.flatten(), given.flatten(), classes)
