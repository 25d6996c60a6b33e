"""What each loss reached on a family's test tasks, and how it differs from a baseline there."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.evaluation.rivals import RivalMeasures
from metaloss.evaluation.statistics import (
    Paired,
    RankTest,
    Resamples,
    direction,
    holm,
    paired,
    rank_test,
    verdict,
)
from metaloss.evaluation.tuning import Setting
from metaloss.inner.observers import Measures


@dataclass(frozen=True)
class Performance:
    """A loss with one setting on T meta-test tasks.

    Attributes:
        accuracy: the mean, where a training that diverged counts as 0.
        std: of the tasks' scores.
        worst_decile: the mean score of the worst tenth of the tasks.
        f1: macro-F1; a training that diverged counts as 0.
        nll, calibration: over the trainings that did not diverge; None where all did, and for what
            gives no probabilities.
        diverged: the share of trainings that did.
        score: the mean; that of accuracy is the accuracy.
    """

    accuracy: float
    std: float
    worst_decile: float
    f1: float
    nll: float | None
    calibration: float | None
    diverged: float
    score: float


def performance(measures: Measures) -> Performance:
    """The measures of all tasks in one row."""
    # A failure has no right answer: left out, it would make a loss look better.
    score = measures.score.double().nan_to_num(nan=0.0)
    f1 = measures.f1.nan_to_num(nan=0.0)
    # At least one, so that fewer than ten tasks have a worst one, too.
    worst = score.sort().values[: max(1, len(score) // 10)]
    # NLL and calibration have no worst value to count a failure as: they leave it out.
    finite = ~measures.diverged

    def mean_of_finite(values: Float[Tensor, " T"]) -> float | None:
        mean = float(values[finite].mean())
        return None if math.isnan(mean) else mean

    return Performance(
        accuracy=float(measures.accuracy.double().nan_to_num(nan=0.0).mean()),
        std=float(score.std()),
        worst_decile=float(worst.mean()),
        f1=float(f1.mean()),
        nll=mean_of_finite(measures.nll),
        calibration=mean_of_finite(measures.calibration),
        diverged=float(1 - finite.double().mean()),
        score=float(score.mean()),
    )


@dataclass(frozen=True)
class BaselineDifference:
    """A loss beside the baseline on the same tasks, both at the family's number of steps.

    Attributes:
        gain: the difference of scores where both have their best rates, with its interval
            over tasks.
        low, high: the interval over tasks and images, which decides.
        test: of ranks.
        p: its p-value after Holm's correction for all losses and families of the comparison.
        gain_at_family_rate: the gain where both have the family's own rate; None for what has no
            rate.
    """

    gain: Paired
    low: float
    high: float
    test: RankTest
    p: float
    gain_at_family_rate: Paired | None

    @property
    def direction(self) -> int:
        """1 for better, -1 for worse, 0 where the interval and the test do not agree."""
        return direction(self.p, (self.low, self.high))

    def verdict(self, scale: MetricScale) -> str:
        """In words: "better", "worse", "no difference" or "too few images to tell"."""
        return verdict(self.p, (self.low, self.high), scale.negligible)


@dataclass(frozen=True)
class LossResult:
    """One loss on one family.

    Attributes:
        loss: its label.
        setting: its best rate, at the family's number of steps.
        tuned: what it reached with `setting`.
        at_family_rate: what it reached at the family's own rate.
        best_setting: its best rate and number of steps; None where those were not searched for.
        at_best_steps: what it reached with `best_setting`.
        vs_baseline: its difference from the baseline; None for the baseline itself.
        vs_ce_best_steps: the gain of `setting` over cross-entropy at its best rate and number of
            steps, with the interval over tasks and images.
        both_best_steps: the gain where both have their best rate and number of steps.
    """

    loss: str
    setting: Setting
    tuned: Performance
    at_family_rate: Performance
    best_setting: Setting | None = None
    at_best_steps: Performance | None = None
    vs_baseline: BaselineDifference | None = None
    vs_ce_best_steps: Paired | None = None
    both_best_steps: Paired | None = None

    @property
    def name(self) -> str:
        """What sentences call it: with its own parameters, where they were chosen."""
        return self.setting.spec or self.loss

    @property
    def name_with_best_steps(self) -> str:
        """The same of `best_setting`."""
        return (self.best_setting.spec if self.best_setting else "") or self.loss


@dataclass(frozen=True)
class LossMeasures:
    """All of one loss's trainings on a family's test tasks (fields: as those of `LossResult`)."""

    loss: str
    setting: Setting
    tuned: Measures
    at_family_rate: Measures
    best_setting: Setting | None = None
    at_best_steps: Measures | None = None


def compared_with_baseline(
    measured: Sequence[LossMeasures], baseline: str, reference: str, draws: Resamples, key: Stream
) -> list[LossResult]:
    """Every loss of a family beside the baseline, and beside the reference at its best steps.

    Holm's correction is still to come: `holm_corrected` makes it over all families.

    Args:
        measured: the trainings of all losses, the baseline and the reference among them.
        baseline: the label of the loss that all are compared with.
        reference: the label of the loss that may have more steps than the others.
        draws: resamples of tasks and images.
        key: of the resamples of tasks alone.
    """
    by_label = {x.loss: x for x in measured}
    base = by_label[baseline]
    strongest = by_label[reference].at_best_steps

    def gain(ours: Measures, theirs: Measures) -> Paired:
        return paired(ours.score, theirs.score, key.at("tasks"))

    def deciding_gain(ours: Measures | None, theirs: Measures | None) -> Paired | None:
        if ours is None or theirs is None:
            return None
        low, high = draws.gain_interval(ours.answers, theirs.answers)
        return replace(gain(ours, theirs), low=low, high=high)

    def difference(x: LossMeasures) -> BaselineDifference:
        low, high = draws.gain_interval(x.tuned.answers, base.tuned.answers)
        test = rank_test(x.tuned.score, base.tuned.score)
        at_family_rate = gain(x.at_family_rate, base.at_family_rate)
        return BaselineDifference(
            gain(x.tuned, base.tuned), low, high, test, test.p, at_family_rate
        )

    results = []
    for x in measured:
        longest = x.at_best_steps
        # The reference has no gain over itself.
        longest_ce = strongest if x.loss != reference else None
        results.append(
            LossResult(
                loss=x.loss,
                setting=x.setting,
                tuned=performance(x.tuned),
                at_family_rate=performance(x.at_family_rate),
                best_setting=x.best_setting,
                at_best_steps=performance(longest) if longest is not None else None,
                vs_baseline=difference(x) if x.loss != baseline else None,
                vs_ce_best_steps=deciding_gain(x.tuned, longest_ce),
                both_best_steps=deciding_gain(longest, longest_ce),
            )
        )
    return results


@dataclass(frozen=True)
class RivalResult:
    """What is no loss, on one family.

    Attributes:
        rival: what it is, and all of its measures.
        reached: in one row.
        vs_baseline: its difference from the baseline.
    """

    rival: RivalMeasures
    reached: Performance
    vs_baseline: BaselineDifference | None


Row = TypeVar("Row", LossResult, RivalResult)


def holm_corrected(families: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """The results of all families, with Holm's correction for all their tests."""
    # Over all families and losses: among many tests some p-values are small by chance.
    tests = [x.vs_baseline.test.p for family in families for x in family if x.vs_baseline]
    # `with_p` takes them in the order in which they were gathered.
    corrected = iter(holm(tests))

    def with_p(x: Row) -> Row:
        if x.vs_baseline is None:
            return x
        return replace(x, vs_baseline=replace(x.vs_baseline, p=next(corrected)))

    return [[with_p(x) for x in family] for family in families]


def as_row(result: LossResult, family: str, scale: MetricScale) -> dict[str, Any]:
    """A result as plain values, under the keys of `summary.json` and `results.csv`.

    Args:
        result: one loss's.
        family: the name of the family.
        scale: how its scores are shown.
    """

    def plain(record: Performance | None) -> dict[str, Any] | None:
        return None if record is None else values(record, scale)

    def gain(record: Paired | None) -> dict[str, Any] | None:
        return None if record is None else scale.difference(asdict(record))

    return {
        "family": family,
        "loss": result.loss,
        "kind": "loss",
        "setting": result.setting.plain(scale),
        "at": plain(result.tuned),
        "plain": plain(result.at_family_rate),
        "best": result.best_setting.plain(scale) if result.best_setting else None,
        "at_best": plain(result.at_best_steps),
        "against": difference_values(result.vs_baseline, scale),
        "late": gain(result.vs_ce_best_steps),
        "latest": gain(result.both_best_steps),
    }


def difference_values(
    difference: BaselineDifference | None, scale: MetricScale
) -> dict[str, Any] | None:
    """A difference as plain values, scores as the values that they stand for."""
    if difference is None:
        return None
    table = scale.difference(asdict(difference))
    table["gain"] = scale.difference(table["gain"])
    at_family_rate = table.pop("gain_at_family_rate")
    table["plain"] = None if at_family_rate is None else scale.difference(at_family_rate)
    return table


def values(record: Performance, scale: MetricScale) -> dict[str, Any]:
    """A performance as plain values, scores as the values that they stand for."""
    table = asdict(record)
    score = table.pop("score")
    if scale.is_accuracy:
        return table
    worst = scale.value(record.worst_decile)
    return {scale.kind: scale.value(score), **table, "worst_decile": worst}


def mean_scores(families: Sequence[Sequence[LossResult]]) -> Float[Tensor, "L F"]:
    """The losses' mean scores on every family."""
    return torch.tensor([[x.tuned.score for x in family] for family in families]).T
