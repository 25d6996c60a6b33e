"""The winner is the best on fresh tasks, which the better half of the finalists meets more of."""

from itertools import pairwise

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.errors import MetalossError
from metaloss.evaluation.guard import Guard
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search import election
from metaloss.search.election import choose_winner, election_rounds
from metaloss.search.objectives import regret

NAN = float("nan")


def finalists(count):
    return Formulas.of([Formula.parse(f"-{k + 1}.0*y*p") for k in range(count)])


def trials(score, family=None, baseline=None, guard=None):
    """An evaluation that knows the scores already, and keeps which of them it was asked for."""
    score = torch.tensor(score)
    digests = [formula.digest for formula in finalists(len(score)).formulas]
    asked = []

    class Known(LossEvaluation):
        def validation_scores(self, losses, role, tasks, beside=(), first=0):
            assert role == "winner"
            rows = [digests.index(formula.digest) for formula in losses.formulas]
            asked.append((rows, first, tasks))
            return score[rows, first:tasks]

        def beside_baselines(self, losses, baselines, pool, role, tasks, first=0):
            assert pool == "validation"
            of_ce = torch.tensor(baseline)[first:tasks]
            return self.validation_scores(losses, role, tasks, first=first), of_ce

        def kind_index(self, tasks, key, first=0):
            return torch.tensor(family or [0] * score.shape[1])[first:tasks]

    with Local() as engine:
        return Known(engine, (), Stream(0), guard), asked


def elected(score, family=None):
    evaluation, _ = trials(score, family)
    return choose_winner(finalists(len(score)), evaluation, len(score[0]))


def test_the_winner_is_the_best():
    found = elected([[0.5, 0.6], [0.9, 0.8], [0.8, 0.8]])
    assert found.row == 1
    assert found.score == pytest.approx(0.85)
    assert found.reached.tolist() == pytest.approx([0.55, 0.85, 0.8])
    assert found.all_outside is None
    assert not found.outside


def test_of_equals_the_first_wins():
    assert elected([[0.5, 0.6], [0.75, 0.75], [0.75, 0.75]]).row == 1


def test_a_failure_counts_as_a_wrong_answer_everywhere():
    found = elected([[1.0, NAN], [0.5, 0.4], [0.9, NAN]])
    assert found.row == 0
    assert found.reached.tolist() == pytest.approx([0.5, 0.45, 0.45])


def test_families_weigh_alike():
    found = elected([[1.0, 1.0, 1.0, 0.0], [0.6, 0.6, 0.6, 0.6]], [0, 0, 0, 1])
    assert found.row == 1
    assert found.reached.tolist() == pytest.approx([0.5, 0.6])


def test_where_none_trains_there_is_no_winner():
    with pytest.raises(MetalossError, match="none of the 2 finalists trains without failing"):
        elected([[NAN, NAN], [NAN, NAN]])


def test_a_loss_that_gets_everything_wrong_still_trains():
    found = elected([[NAN, NAN], [0.0, 0.0]])
    assert found.row == 1
    assert found.reached.tolist() == [0, 0]


# --- in rounds ---


@pytest.mark.parametrize("losses", [1, 2, 3, 12, 50])
@pytest.mark.parametrize("tasks", [2, 200, 201, 400, 1000])
def test_rounds_meet_every_task_once_and_the_last_two_meet_all(losses, tasks):
    rounds = election_rounds(losses, tasks)
    assert [x.first for x in rounds] == [0, *[x.end for x in rounds[:-1]]]
    assert rounds[-1].end == tasks
    assert rounds[0].losses == losses
    assert all(a.losses >= b.losses >= min(2, losses) for a, b in pairwise(rounds))
    assert len(rounds) == 1 or rounds[0].end == election.ALL_MEET


def test_the_better_half_meets_more_tasks_and_is_compared_on_all_that_it_met(monkeypatch):
    monkeypatch.setattr(election, "ALL_MEET", 2)
    # The second is best on the first two tasks, the fourth on all four; the last would have been
    # better than both on the tasks that it never met.
    score = [
        [0.1, 0.1, 1.0, 1.0],
        [0.9, 0.9, 0.1, 0.1],
        [0.2, 0.2, 1.0, 1.0],
        [0.7, 0.7, 0.6, 0.6],
    ]
    evaluation, asked = trials(score)
    found = choose_winner(finalists(4), evaluation, 4)
    assert asked == [([0, 1, 2, 3], 0, 2), ([1, 3], 2, 4)]
    assert found.row == 3
    assert found.score == pytest.approx(0.65)
    assert found.reached.tolist() == pytest.approx([0.1, 0.9, 0.2, 0.7]), "on what all met"


def test_rounds_rank_by_the_objective_and_the_guard_on_the_same_tasks(monkeypatch):
    monkeypatch.setattr(election, "ALL_MEET", 2)
    # Columns: the score, and another metric that the guard keeps within 10 points.
    score = [
        [[0.5, 0.9]] * 4,
        [[0.9, 0.9]] * 2 + [[0.9, 0.5]] * 2,
        [[0.6, 0.9]] * 4,
        [[0.1, 0.9]] * 4,
    ]
    guard = Guard({"accuracy": 10.0})
    evaluation, asked = trials(score, baseline=[[0.5, 0.9]] * 4, guard=guard)
    found = choose_winner(finalists(4), evaluation, 4, (), regret([0.1], 0.0))
    assert asked[1][0] == [1, 2]
    assert found.row == 2, "the second lies outside on the tasks of both rounds together"
    assert not found.outside
    assert found.all_outside.tolist() == [False] * 4
