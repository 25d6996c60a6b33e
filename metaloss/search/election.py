"""The choice of a run's winner on fresh meta-validation tasks, by successive halving."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.evaluation.guard import Guard
from metaloss.evaluation.halving import settings_left
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.tuning import Tuned
from metaloss.evolution import Objective
from metaloss.losses.base import Losses
from metaloss.search.objectives import mean
from metaloss.tasks.protocols import ElectionRound

ALL_MEET = 200  # tasks that all finalists meet, before the better half goes on


class Election(NamedTuple):
    """The outcome of an election.

    Attributes:
        row: of the winner.
        score: of the winner, on all tasks that it met.
        outside: whether the winner lies outside the guard.
        reached: the score of each finalist, on the tasks that all met.
        all_outside: which of them lie outside the guard there; None: there is none.
        rounds: how many finalists met how many tasks.
    """

    row: int
    score: float
    outside: bool
    reached: Float[Tensor, " F"]
    all_outside: Bool[Tensor, " F"] | None
    rounds: tuple[ElectionRound, ...]


def election_rounds(finalists: int, tasks: int) -> tuple[ElectionRound, ...]:
    """Who meets which tasks: half as many finalists as before meet as many as they have met.

    >>> [(x.losses, x.first, x.end) for x in election_rounds(12, 1000)]
    [(12, 0, 200), (6, 200, 400), (3, 400, 800), (2, 800, 1000)]
    """
    rounds = [ElectionRound(finalists, 0, min(tasks, ALL_MEET))]
    while rounds[-1].end < tasks:
        left = settings_left(finalists, 2 ** len(rounds))
        rounds.append(ElectionRound(left, rounds[-1].end, min(tasks, 2 * rounds[-1].end)))
    return tuple(rounds)


def choose_winner(
    losses: Losses,
    evaluation: LossEvaluation,
    tasks: int,
    baselines: Sequence[Tuned] = (),
    objective: Objective | None = None,
) -> Election:
    """The best finalist; with a guard, the best of those within it or else the nearest to it.

    Those that go on have met the same tasks, and are compared on all of them.

    Args:
        losses: the finalists.
        evaluation: trains them.
        tasks: meta-validation tasks of every family, for those that are left in the end.
        baselines: cross-entropy at its best rate, per family, which a guard and an objective
            compare with.
        objective: from scores to what finalists are ranked by; None: the mean over kinds of tasks.

    Raises:
        MetalossError: none trains without failing.
    """
    rounds = election_rounds(len(losses), tasks)
    rows = torch.arange(len(losses))
    beside = evaluation.guard is not None or objective is not None
    votes = _scores(evaluation, losses, baselines if beside else None, rounds[0])
    if votes.failed.all():
        raise MetalossError(
            f"none of the {len(losses)} finalists trains without failing: there is no winner"
        )
    first = votes
    for part in rounds[1:]:
        kept = votes.best(objective, part.losses)
        rows = rows[kept]
        more = _scores(evaluation, losses[rows], baselines if beside else None, part)
        votes = votes.of(kept).joined(more)
    best = votes.best(objective, 1)
    outside = votes.of(best).outside
    return Election(
        row=int(rows[best]),
        score=float(votes.of(best).reached),
        outside=outside is not None and bool(outside),
        reached=first.reached,
        all_outside=first.outside,
        rounds=rounds,
    )


@dataclass(frozen=True)
class _Scores:
    """What finalists were measured to be on the tasks that they met.

    Attributes:
        measured: their scores; with a guard, its columns.
        baseline: those of cross-entropy, where they are compared with it.
        kind: of each task.
        guard: the search's.
    """

    measured: Float[Tensor, "F T *K"]
    baseline: Float[Tensor, "T *K"] | None
    kind: Int[Tensor, " T"]
    guard: Guard | None

    @property
    def score(self) -> Float[Tensor, "F T"]:
        """The scores alone."""
        return self.measured if self.guard is None else self.measured[..., 0]

    @property
    def failed(self) -> Bool[Tensor, " F"]:
        """Which of them failed on every task."""
        return self.score.isnan().all(1)

    @property
    def reached(self) -> Float[Tensor, " F"]:
        """The mean score.

        One failure among so many tasks costs what it costs in use, a wrong answer everywhere, and
        no more.
        """
        return mean(self.score.nan_to_num(nan=0.0), self.kind)

    @property
    def outside(self) -> Bool[Tensor, " F"] | None:
        """Which of them lie outside the guard; None: there is none."""
        return None if self.guard is None else self._excess(self.guard) > 0

    def best(self, objective: Objective | None, count: int) -> Int[Tensor, " N"]:
        """The places of the best ones, in their order; of equals the first one wins."""
        ranked = self.reached
        if objective is not None:
            of_ce = self.baseline
            if self.guard is not None and of_ce is not None:
                of_ce = of_ce[:, 0]
            ranked = objective(self.score.nan_to_num(nan=0.0), self.kind, of_ce)
        ranked = ranked.masked_fill(self.failed, -torch.inf)
        if self.guard is not None:
            ranked = self.guard.ranked(ranked, self._excess(self.guard))
        return ranked.argsort(descending=True, stable=True)[:count].sort().values

    def of(self, rows: Int[Tensor, " N"]) -> Self:
        """Those of some of the finalists."""
        return replace(self, measured=self.measured[rows])

    def joined(self, more: Self) -> Self:
        """Those on these tasks and on further ones."""
        baseline = None
        if self.baseline is not None and more.baseline is not None:
            baseline = torch.cat([self.baseline, more.baseline])
        return replace(
            self,
            measured=torch.cat([self.measured, more.measured], 1),
            baseline=baseline,
            kind=torch.cat([self.kind, more.kind]),
        )

    def _excess(self, guard: Guard) -> Float[Tensor, " F"]:
        assert self.baseline is not None
        return guard.excess(self.measured, self.baseline, self.kind)


def _scores(
    evaluation: LossEvaluation,
    losses: Losses,
    baselines: Sequence[Tuned] | None,
    part: ElectionRound,
) -> _Scores:
    """What finalists are measured to be on the tasks of a round.

    Args:
        evaluation: trains them.
        losses: the finalists.
        baselines: cross-entropy, where they are compared with it.
        part: the round.
    """
    # Fresh tasks: each finalist was the best of many on its own, which flatters it.
    role = "winner"
    kind = evaluation.kind_index(part.end, evaluation.key.at(role), part.first)
    if baselines is None:
        score = evaluation.validation_scores(losses, role, part.end, first=part.first)
        return _Scores(score, None, kind, None)
    measured, of_ce = evaluation.beside_baselines(
        losses, baselines, "validation", role, part.end, part.first
    )
    return _Scores(measured, of_ce, kind, evaluation.guard)
