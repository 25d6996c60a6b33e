"""A loss at the setting that is best on meta-validation tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.inner.loop import Inner
from metaloss.losses.base import Losses
from metaloss.tasks.step_counts import step_grid

# The smallest unit of gains, in units of what is negligible.
LEAST_SPREAD = 0.25


@dataclass(frozen=True)
class Setting:
    """How a loss is used.

    Attributes:
        lr: the learning rate.
        steps: how many of them.
        score: reached on the meta-validation tasks where the setting was chosen; None where it was
            not chosen.
        spec: how the loss is written, with its own parameters, where those were chosen; "" where
            they were not.
    """

    lr: float
    steps: int
    score: float | None = None
    spec: str = ""

    def plain(self, scale: MetricScale = ACCURACY) -> dict[str, Any]:
        """As values for JSON; the score as the value that it stands for."""
        value = None if self.score is None else scale.value(self.score)
        table = {"lr": self.lr, "steps": self.steps, scale.kind: value}
        return table | ({"spec": self.spec} if self.spec else {})


@dataclass(frozen=True)
class Tuned:
    """A loss at the best of the settings tried on meta-validation tasks of one family.

    Attributes:
        losses: a single one.
        lr: its best learning rate.
        steps: its best number of steps.
        scores: on those tasks.
        spread: the unit of differences of scores there (`spread_of`).
        relative: whether tasks are of several kinds, and rate and steps are multiples of those of
            each kind.
    """

    losses: Losses
    lr: float
    steps: int
    scores: Float[Tensor, " T"]
    spread: float = 1.0
    relative: bool = False

    @classmethod
    def best(
        cls,
        loss: Losses,
        scores: Float[Tensor, "M R T"],
        rates: Sequence[float],
        steps: Sequence[int],
        negligible: float = ACCURACY.negligible,
    ) -> Self:
        """The loss at the best setting of a grid.

        Args:
            loss: a single one.
            scores: with each of M numbers of steps and R rates.
            rates: the rates.
            steps: the numbers of steps.
            negligible: the difference of scores that is none in practice.
        """
        mark, rate = best_setting(scores)
        spread = spread_of(scores[mark], rates, rate, negligible)
        return cls(loss, rates[rate], steps[mark], scores[mark, rate], spread)

    @property
    def score(self) -> float:
        """The mean over the tasks."""
        return float(self.scores.double().mean())

    @property
    def rank_score(self) -> float:
        """The same; the lowest there is where a training failed, so that it cannot win."""
        return float(self.scores.double().mean().nan_to_num(nan=-torch.inf))

    @property
    def setting(self) -> Setting:
        """Rate and steps, and the score that they reached, a failed training counting as 0."""
        return Setting(self.lr, self.steps, float(self.scores.double().nan_to_num().mean()))


def best_setting(scores: Float[Tensor, "M R T"]) -> tuple[int, int]:
    """Which number of steps and which rate has the highest mean.

    A setting with a failed training cannot win against one without.
    """
    mean = scores.double().mean(2).nan_to_num(nan=-torch.inf)
    return divmod(int(mean.argmax()), scores.shape[1])


def spread_of(
    scores: Float[Tensor, "R T"], rates: Sequence[float], best: int, negligible: float
) -> float:
    """What a small change of a training is worth on one task: the unit of gains of a kind of tasks.

    The standard deviation over tasks of what the next lower or the next higher rate changes of a
    task's score, the smaller of the two. It is paired, as gains are: the deviation of the scores
    themselves says how unlike tasks are, which no loss changes, and is as large where hundreds of
    steps leave nothing to gain as where ten do. In this unit the gains of all kinds have about the
    same noise. A rate at which a training failed does not count; where both are such, or there is
    no other rate, it is the deviation of the scores. At least a quarter of what is negligible, so
    that a kind where all rates come to the same does not decide alone.

    Args:
        scores: with each of R rates.
        rates: the rates.
        best: which of them is the best.
        negligible: the difference of scores that is none in practice.
    """
    order = sorted(range(len(rates)), key=lambda i: rates[i])
    place = order.index(best)
    beside = [order[i] for i in (place - 1, place + 1) if 0 <= i < len(order)]
    changes = [(scores[i] - scores[best]).double() for i in beside]
    spreads = [float(x.std()) for x in changes if x.isfinite().all()]
    spread = min(spreads) if spreads else float(scores[best].double().nan_to_num().std())
    return max(spread, LEAST_SPREAD * negligible)


def repeated(loss: Losses, times: int) -> Losses:
    """A loss repeated: one row for each learning rate, so that all rates train side by side."""
    return loss[torch.zeros(times, dtype=torch.int64)]


def steps_of_tuning(inner: Inner, clock: bool = False) -> int:
    """How many steps a loss trains at one rate and on one task to find its number of steps.

    Args:
        inner: the settings of a training.
        clock: whether the loss sees how far the training is.
    """
    # Where the rate or the loss depends on its end, each number of steps is a training of its own.
    return sum(step_grid(inner)) if clock or not inner.anytime else step_grid(inner)[-1]


def typical_steps(inner: Inner) -> int:
    """What stands for the best number of steps in an estimate, while that is not known yet."""
    numbers = step_grid(inner)
    return numbers[len(numbers) // 2]
