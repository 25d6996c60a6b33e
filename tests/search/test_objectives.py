"""Scores become fitness: families weigh alike, and a failed training can never win."""

import math

import pytest
import torch

from metaloss.errors import SettingsError
from metaloss.search import objectives
from metaloss.search.objectives import mean, regret, robust, wins

NAN = float("nan")
INF = float("inf")
NAMES = ("mean", "robust", "wins", "regret")
THREE = torch.tensor([0, 1, 2])
CE = torch.tensor([0.5, 0.5, 0.25])
every = pytest.mark.parametrize("name", NAMES)


def read(name):
    """The objective; what `regret` measures gains by is the same for all families."""
    return objectives.read(name, spreads=[0.5] * 8, worst=0.25)


def test_one_family_counts_by_its_mean():
    score = torch.tensor([[0.5, 0.7], [0.2, 0.4]])
    assert mean(score, torch.tensor([0, 0])).tolist() == pytest.approx([0.6, 0.3])


def test_a_family_of_many_tasks_weighs_no_more_than_one_of_few():
    score = torch.tensor([[1.0, 0.0, 0.2, 0.4]])
    assert mean(score, torch.tensor([0, 1, 1, 1])).tolist() == pytest.approx([(1.0 + 0.2) / 2])


def test_the_order_of_tasks_and_the_numbers_of_families_do_not_matter():
    score = torch.tensor([[1.0, 0.0, 0.2, 0.4]])
    family = torch.tensor([0, 1, 1, 1])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(mean(score[:, order], 7 - family[order]), mean(score, family))


def test_one_failed_training_is_worse_than_every_accuracy():
    score = torch.tensor([[1.0, NAN, 1.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN]])
    assert mean(score, torch.tensor([0, 0, 1])).tolist() == [-INF, 0, -INF]


def test_neighbours_of_a_failure_keep_their_fitness():
    score = torch.tensor([[0.5, 0.25], [0.75, 0.5]])
    failed = torch.cat([score, torch.tensor([[NAN, 1.0]])])
    family = torch.tensor([0, 0])
    assert torch.equal(mean(failed, family)[:2], mean(score, family))


# --- every objective ---


@every
def test_an_objective_is_read_by_name_and_ranks_by_accuracy_where_that_is_all(name):
    score = torch.tensor([[0.5, 0.5, 0.5], [0.75, 0.75, 0.75], [0.25, 0.25, 0.25]])
    fitness = read(name)(score, THREE, CE)
    assert fitness.argsort(descending=True).tolist() == [1, 0, 2]


@every
def test_any_failed_training_is_worse_than_every_accuracy(name):
    score = torch.tensor([[1.0, NAN, 1.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN], [1.0, 1.0, NAN]])
    fitness = read(name)(score, THREE, CE)
    assert fitness[[0, 2, 3]].tolist() == [-INF] * 3
    assert fitness[1].isfinite()


@every
def test_a_family_s_number_and_the_order_of_tasks_do_not_matter(name):
    score = torch.tensor([[1.0, 0.0, 0.25, 0.5], [0.5, 0.75, 0.0, 0.0]])
    family = torch.tensor([0, 1, 1, 1])
    baseline = torch.tensor([0.5, 0.25, 0.25, 0.25])
    order = torch.tensor([2, 0, 3, 1])
    objective = read(name)
    expected = objective(score, family, baseline)
    torch.testing.assert_close(
        objective(score[:, order], 7 - family[order], baseline[order]), expected
    )


def test_an_unknown_objective_is_refused_with_the_nearest_known():
    with pytest.raises(SettingsError, match=r"unknown objective 'robst'. Did you mean 'robust'\?"):
        objectives.read("robst")


def test_those_that_need_a_baseline_say_so():
    assert [name for name in NAMES if name in objectives.NEEDS_BASELINE] == [
        "wins",
        "regret",
    ]
    with pytest.raises(ValueError, match="wins compares with cross-entropy and got no baseline"):
        wins(torch.zeros(1, 3), THREE, None)


# --- robust ---


def test_robust_takes_the_spread_over_a_family_s_tasks_off_its_mean():
    score = torch.tensor([[0.2, 0.6, 0.5, 0.5], [0.4, 0.4, 0.3, 0.7]])
    family = torch.tensor([0, 0, 1, 1])
    # Means (0.4, 0.5) for both; spreads (0.2, 0) and (0, 0.2).
    assert robust(0.5)(score, family, None).tolist() == pytest.approx(
        [(0.3 + 0.5) / 2, (0.4 + 0.4) / 2]
    )
    assert objectives.read("robust", 2.0)(score, family, None).tolist() == pytest.approx(
        [(0.0 + 0.5) / 2, 0.25]
    )


def test_robust_without_weight_is_the_mean_and_one_task_has_no_spread():
    score = torch.tensor([[0.2, 0.6, 0.5], [0.1, 0.4, 0.9]])
    family = torch.tensor([0, 0, 1])
    assert torch.equal(robust(0.0)(score, family, None), mean(score, family))
    assert torch.equal(robust(3.0)(score[:, 2:], family[2:], None), score[:, 2])


def test_robust_prefers_the_more_even_of_two_equal_means():
    score = torch.tensor([[0.1, 0.9], [0.5, 0.5]])
    even = robust(1.0)(score, torch.tensor([0, 0]), None)
    assert even[1] > even[0]


# --- wins ---


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # One win, though much is lost elsewhere; none, though nothing is.
        ([0.51, 0.1, 0.1], [0.5, 0.5, 0.25]),
        # A win each: +20 % and +10 %, whatever the lost ones say.
        ([0.6, 0.1, 0.1], [0.55, 0.5, 0.25]),
        ([0.1, 0.1, 0.5], [0.9, 0.1, 0.1]),  # a win each: +100 % of little, +80 % of much
        ([0.75, 0.55, 0.1], [0.65, 0.6, 0.25]),  # two wins each: mean +30 % and +25 %
        ([0.51, 0.51, 0.1], [1.0, 0.5, 0.25]),  # two small wins, one large
        ([0.45, 0.45, 0.225], [0.5, 0.5, 0.15]),  # no win: -10 %, and -13.3 % over all three
    ],
    ids=["a win beats none", "equal wins", "relative", "mean over the won", "more wins", "none"],
)
def test_wins_ranks_as_the_paper_does(better, worse):
    fitness = wins(torch.tensor([better, worse]), THREE, CE)
    assert fitness[0] > fitness[1]


def test_wins_by_hand():
    """Two wins of +50 % and +100 %; none, at a mean of -50 %."""
    fitness = wins(torch.tensor([[0.75, 0.25, 0.5], [0.25, 0.25, 0.125]]), THREE, CE)
    assert fitness.tolist() == pytest.approx(
        [2 + 0.5 + 0.5 * 0.75 / 1.75, 0.5 - 0.5 * 0.5 / 1.5], abs=1e-12
    )


def test_wins_compares_means_of_families_not_single_tasks():
    family = torch.tensor([0, 0, 0, 1])
    baseline = torch.tensor([0.25, 0.5, 0.75, 0.5])
    one_of_three = torch.tensor([[1.0, 0.25, 0.25, 0.25], [0.375, 0.5, 0.75, 0.25]])
    # A mean of 0.5 only equals.
    assert wins(one_of_three, family, baseline).floor().tolist() == [0, 1]


def test_wins_keeps_improvements_apart_that_hardly_differ():
    """One per million of the accuracy, beside many wins."""
    family = torch.arange(40)
    baseline = torch.full((40,), 0.5, dtype=torch.float64)
    score = torch.full((3, 40), 0.9, dtype=torch.float64)
    score[1] *= 1 + 1e-6
    score[2] *= 1 + 2e-6
    fitness = wins(score, family, baseline)
    assert fitness[0] < fitness[1] < fitness[2] < 41


def test_wins_never_lets_an_improvement_outweigh_a_win():
    tiny = torch.tensor([1e-3, 1e-3, 1e-3])
    fitness = wins(torch.tensor([[1.0, 0.0, 0.0], [0.0011, 0.0011, 0.0]]), THREE, tiny)
    assert 1 < fitness[0] < 2 < fitness[1] < 3


def test_wins_takes_a_failed_or_hopeless_cross_entropy_as_beaten_by_any_accuracy():
    fitness = wins(
        torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]]), THREE, torch.tensor([NAN, 0.0, 0.5])
    )
    assert fitness.floor().tolist() == [2, 0]
    assert fitness.isfinite().all()


# --- regret ---


def test_regret_measures_each_kinds_gain_in_the_kinds_own_unit():
    score = torch.tensor([[0.6, 0.8, 0.30], [0.5, 0.5, 0.25]])
    kind = torch.tensor([0, 0, 2])
    ce = torch.tensor([0.5, 0.5, 0.25])
    # Gains of 0.2 and 0.05, in units of 0.1 and of 0.01; the kind in between is not met.
    fitness = regret([0.1, 1.0, 0.01], 0.0)(score, kind, ce)
    assert fitness.tolist() == pytest.approx([(math.asinh(2) + math.asinh(5)) / 2, 0.0])


def test_the_worst_tenth_of_kinds_has_its_share():
    kinds = torch.arange(20)
    counted = torch.arange(20.0) - 5
    gain = counted.sinh()[None]
    objective = regret([1.0] * 20, 0.5)
    (fitness,) = objective(gain, kinds, torch.zeros(20)).tolist()
    assert fitness == pytest.approx(0.5 * (9.5 - 5) + 0.5 * (-5 - 4) / 2, abs=1e-6)
    few = objective(gain[:, :3], kinds[:3], torch.zeros(3)).tolist()
    assert few == pytest.approx([0.5 * -4 + 0.5 * -5]), "one kind at least is the worst"


def test_one_kind_at_which_all_is_lost_does_not_outweigh_many():
    ahead = torch.tensor([[0.51] * 9 + [0.1], [0.5] * 10])
    fitness = regret([0.005] * 10, 0.0)(ahead, torch.arange(10), torch.full((10,), 0.5))
    assert fitness[0] > fitness[1] == 0


def test_where_cross_entropy_failed_all_is_gained():
    objective = regret([0.5], 0.0)
    score = torch.tensor([[0.25]])
    assert objective(score, torch.zeros(1).long(), torch.tensor([NAN])).tolist() == [
        pytest.approx(math.asinh(0.5))
    ]


def test_regret_without_a_baseline_says_so():
    with pytest.raises(ValueError, match="regret compares with cross-entropy and got no baseline"):
        regret([1.0], 0.0)(torch.zeros(1, 1), torch.zeros(1).long(), None)
