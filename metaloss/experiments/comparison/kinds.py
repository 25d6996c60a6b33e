"""What losses gain at each kind of tasks of a mixture."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.evaluation.mixture_evaluation import MixtureEvaluation
from metaloss.experiments.comparison.results import LossMeasures

WORST = 10  # one of so many kinds is among the worst


def gains_by_kind(
    evaluation: MixtureEvaluation, measured: Sequence[LossMeasures], baseline: str, tasks: int
) -> list[dict[str, Any]]:
    """A row for each kind that was met: what it is, and each loss's mean gain over the baseline.

    Both have their own best rate. A training that diverged counts as 0.

    Args:
        evaluation: of the mixture.
        measured: the trainings of all losses.
        baseline: the label of the loss that all are compared with.
        tasks: of the test.
    """
    mixture = evaluation.family
    numbers = mixture.kinds_of(evaluation.key.at("test"), range(tasks))
    scores = {x.loss: x.tuned.score.double().nan_to_num(nan=0.0) for x in measured}
    rows = []
    for number in numbers.unique().tolist():
        of_kind = numbers == number
        kind = mixture.kinds[number].family
        gains = {
            loss: float((score - scores[baseline])[of_kind].mean())
            for loss, score in scores.items()
            if loss != baseline
        }
        references = mixture.references
        assert references is not None
        rows.append(
            {
                "kind": number,
                "description": kind.describe(),
                "classifier": dict(kind.classifier),
                "ce_lr": references.rates[number],
                "spread": references.spreads[number],
                "tasks": int(of_kind.sum()),
                "gains": gains,
            }
        )
    return rows


def worst_kinds(rows: Sequence[Mapping[str, Any]], loss: str) -> tuple[int, float]:
    """At how many kinds a loss is behind, and its mean gain at the worst tenth of them.

    >>> rows = [{"gains": {"a": gain}} for gain in (0.03, -0.01, 0.02)]
    >>> worst_kinds(rows, "a")
    (1, -0.01)
    """
    gains = sorted(row["gains"][loss] for row in rows)
    worst = gains[: max(1, round(len(gains) / WORST))]
    return sum(gain < 0 for gain in gains), sum(worst) / len(worst)
