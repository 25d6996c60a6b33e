"""What each loss came to on the test tasks of a family, beside a baseline, and the sentence that this allows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.evaluation.statistics import (
    Draws,
    Paired,
    RankTest,
    direction,
    holm,
    paired,
    rank_test,
    verdict,
)
from metaloss.experiments.comparison.contest import Setting
from metaloss.inner.metrics import Measures


@dataclass(frozen=True)
class Reached:
    """A loss with one setting on T meta-test tasks.

    Attributes:
        accuracy: the mean, where a training that diverged counts as 0.
        std: of the tasks' accuracies.
        worst_decile: the mean of the worst tenth of the tasks.
        f1: macro-F1; a training that diverged counts as 0.
        nll, calibration: over the trainings that did not diverge; None where all did.
        diverged: the share of trainings that did.
    """

    accuracy: float
    std: float
    worst_decile: float
    f1: float
    nll: float | None
    calibration: float | None
    diverged: float


def reached(found: Measures) -> Reached:
    """The measures of all tasks in one row."""
    score = found.accuracy.double().nan_to_num(nan=0.0)
    worst = score.sort().values[: max(1, len(score) // 10)]
    f1 = found.f1.nan_to_num(nan=0.0)
    calm = found.accuracy.isfinite()
    nll, calibration = (
        float(x[calm].mean()) if calm.any() else None for x in (found.nll, found.calibration)
    )
    rest = float(f1.mean()), nll, calibration, float(1 - calm.double().mean())
    return Reached(float(score.mean()), float(score.std()), float(worst.mean()), *rest)


@dataclass(frozen=True)
class Against:
    """A loss beside the baseline on the same tasks, both at the family's number of steps and their
    best rates.

    Attributes:
        gain: the difference of accuracies, its interval over tasks.
        low, high: the interval over tasks and images.
        test: of ranks.
        p: its p-value after Holm's correction for all losses and families of the comparison.
        plain: the gain where both have the family's own rate.
    """

    gain: Paired
    low: float
    high: float
    test: RankTest
    p: float
    plain: Paired

    @property
    def direction(self) -> int:
        """1 for better, -1 for worse, 0 where the two intervals and the test do not agree on either."""
        return direction(self.p, *self._intervals)

    @property
    def verdict(self) -> str:
        """The same in words: "better", "worse", "no difference" or "too few images to tell"."""
        return verdict(self.p, *self._intervals)

    @property
    def _intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (self.gain.low, self.gain.high), (self.low, self.high)


@dataclass(frozen=True)
class Standing:
    """One loss on one family.

    Attributes:
        loss: its label.
        setting: its best rate, at the family's number of steps; `at` is what it reached so.
        plain: what it reached at the family's own rate.
        best: its best rate and number of steps where those were sought; `at_best` is what it
            reached so.
        against: beside the baseline; None for that itself.
        late: beside cross-entropy at its best rate and number of steps, with the wider of both
            intervals.
        latest: the same of both at their best.
    """

    loss: str
    setting: Setting
    at: Reached
    plain: Reached
    best: Setting | None = None
    at_best: Reached | None = None
    against: Against | None = None
    late: Paired | None = None
    latest: Paired | None = None


@dataclass(frozen=True)
class Played:
    """All of one loss's trainings on a family's test tasks."""

    loss: str
    setting: Setting
    tuned: Measures
    plain: Measures
    best: Setting | None = None
    longest: Measures | None = None


def ranked(
    played: Sequence[Played], baseline: str, reference: str, draws: Draws, key: Stream
) -> list[Standing]:
    """Every loss of a family beside the baseline and, as that may have more steps, the reference at
    its best.

    Holm's correction is still to come: `corrected` makes it over all families.
    """
    named = {x.loss: x for x in played}
    base = named[baseline]
    strongest = named[reference].longest

    def gain(a: Measures, b: Measures) -> Paired:
        return paired(a.accuracy, b.accuracy, key.at("tasks"))

    def widest(a: Measures, b: Measures) -> Paired:
        found, (low, high) = gain(a, b), draws.interval(a.right, b.right)
        return replace(found, low=min(low, found.low), high=max(high, found.high))

    found = []
    for x in played:
        row = Standing(x.loss, x.setting, reached(x.tuned), reached(x.plain), x.best)
        if x.longest is not None:
            row = replace(row, at_best=reached(x.longest))
        if strongest is not None and x.loss != reference:
            latest = widest(x.longest, strongest) if x.longest is not None else None
            row = replace(row, late=widest(x.tuned, strongest), latest=latest)
        if x.loss != baseline:
            low, high = draws.interval(x.tuned.right, base.tuned.right)
            test = rank_test(x.tuned.accuracy, base.tuned.accuracy)
            pair = gain(x.tuned, base.tuned), low, high, test, test.p, gain(x.plain, base.plain)
            row = replace(row, against=Against(*pair))
        found.append(row)
    return found


def corrected(rows: Sequence[Sequence[Standing]]) -> list[list[Standing]]:
    """The standings of all families, with Holm's correction for all their tests."""
    tests = [x.against.test.p for family in rows for x in family if x.against]
    left = iter(holm(tests))
    return [
        [replace(x, against=replace(x.against, p=next(left))) if x.against else x for x in family]
        for family in rows
    ]


def table(row: Standing, family: str) -> dict[str, Any]:
    """A standing as plain values."""
    return {"family": family, **asdict(row)}


def sentence(row: Standing, baseline: str, steps: int, strongest: Setting) -> str:
    """What the numbers of a family allow one to say of a loss.

    Args:
        row: its standing.
        baseline: what it stands beside.
        steps: the family's own number.
        strongest: cross-entropy's best rate and number of steps.
    """
    assert row.against is not None
    way = row.against.direction
    other = spoken(baseline)
    if way > 0:
        return f"{row.loss} is better than {other} at {steps} steps on these tasks; {_late(row, steps, strongest)}."
    if way < 0:
        return (
            f"{row.loss} is worse than {other} at {steps} steps on these tasks{_plain(row, other)}."
        )
    if row.against.verdict != "no difference":
        return f"{row.loss}: too few images to tell it from {other} at {steps} steps{_plain(row, other)}."
    return f"{row.loss}: these tasks show no difference from {other} at {steps} steps{_plain(row, other)}."


def _late(row: Standing, steps: int, strongest: Setting) -> str:
    """What becomes of a gain where cross-entropy may train for longer."""
    late = row.late
    latest = row.latest
    ce = f"with {strongest.steps} steps cross-entropy"
    assert late is not None
    if strongest.steps == steps:
        ce = "at its best number of steps, the same one, cross-entropy"
    if late.high < 0:
        return f"{ce} is better still" + _catches_up(row)
    if late.low <= 0:
        return f"{ce} reaches the same" + _catches_up(row)
    if latest is not None and latest.low <= 0:
        return f"{ce} does not reach it, but the two do not differ where each has its best number of steps"
    return f"{ce}, its best number, does not reach it: it generalises better there"


def _catches_up(row: Standing) -> str:
    """What a loss does that may train for longer, too."""
    if row.latest is None or row.best is None:
        return ""
    if row.latest.low > 0:
        return f"; {row.loss} with {row.best.steps} steps is ahead of that by {100 * row.latest.mean:.1f} points"
    return f"; {row.loss} with {row.best.steps} steps is {'behind' if row.latest.high < 0 else 'level with'} that"


def _plain(row: Standing, other: str) -> str:
    """That a loss is ahead at the family's own learning rate alone, as a rescaled one may be."""
    assert row.against is not None
    if row.against.plain.low <= 0:
        return ""
    return f"; it is ahead of {other} at the family's own learning rate only, as a mere rescaling may be"


def spoken(label: str) -> str:
    """A loss's name within a sentence."""
    return "cross-entropy" if label == "ce" else label


def accuracies(rows: Sequence[Sequence[Standing]]) -> Float[Tensor, "L F"]:
    """The losses' mean accuracies on every family."""
    return torch.tensor([[x.at.accuracy for x in family] for family in rows]).T
