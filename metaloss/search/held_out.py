"""What a search's mean candidate reaches on held-out tasks, as a line of its history has it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.evaluation.family_evaluation import BASELINE
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.statistics import paired
from metaloss.evaluation.tuning import Tuned
from metaloss.evolution import Objective
from metaloss.losses.base import Losses


def held_out_record(
    evaluation: LossEvaluation,
    baselines: Sequence[Tuned],
    losses: Losses,
    tasks: int,
    objective: Objective | None = None,
) -> dict[str, float]:
    """What a loss reaches on the tasks that cross-entropy was tuned on.

    The gain is in the metric's own sign, and accuracy stands beside another metric.

    Args:
        evaluation: trains it.
        baselines: cross-entropy at its best rate, per family.
        losses: a single one.
        tasks: of every family.
        objective: what it is worth by this stands beside the gain, as `regret`, a failure counting
            as 0.
    """
    scale = evaluation.families[0].scale
    measured = evaluation.validation_scores(losses, BASELINE, tasks, scale.beside)[0]
    score = measured[:, 0] if scale.beside else measured
    of_ce = torch.cat([baseline.scores for baseline in baselines])
    # Mean and standard error need no bootstrap, so the fewest resamples do.
    gain = paired(score, of_ce, Stream(0).at("bootstrap"), resamples=2)
    record = {scale.kind: scale.value(_mean(score))}
    if scale.beside:
        record["accuracy"] = _mean(measured[:, 1])
    record |= {"gain": gain.mean if scale.maximise else -gain.mean, "error": gain.error}
    if objective is not None:
        kinds = evaluation.kind_index(tasks, evaluation.key.at(BASELINE))
        record["regret"] = float(objective(score.nan_to_num(nan=0.0)[None], kinds, of_ce)[0])
    return record


def _mean(score: Float[Tensor, " T"]) -> float:
    """The mean over tasks, a failed training counting as 0."""
    return float(score.double().nan_to_num(nan=0.0).mean())
