"""How far a generation's best led, and how much of that was its tasks."""

import pytest
import torch

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.evolution import Scored
from metaloss.search.noise import lead_of_best
from metaloss.search.objectives import mean, regret

NAN = float("nan")


def scored(measured, objective, family=None, baseline=None):
    measured = torch.as_tensor(measured)
    tasks = measured.shape[1]
    family = torch.zeros(tasks).long() if family is None else family
    fitness = objective(measured, family, baseline)
    population = Vectors(torch.zeros(len(measured), 1))
    return Scored(
        population, measured, fitness, family, torch.zeros(len(population)).long(), baseline
    )


def test_the_error_of_a_mean_is_that_of_the_paired_differences():
    score = Stream(0).at("score").normal(5, 12)
    found = lead_of_best(scored(score, mean), mean)
    best = int(score.mean(1).argmax())
    difference = (score[best] - score.mean(0)).double()
    assert found["mean"] == pytest.approx(float(difference.mean()), rel=1e-4)
    assert found["error"] == pytest.approx(float(difference.std() / 12**0.5), rel=1e-4)


def test_hard_tasks_are_no_noise():
    score = Stream(1).at("score").normal(4, 8)
    hard = score + 10 * Stream(1).at("task").normal(8)
    one, other = (lead_of_best(scored(x, mean), mean) for x in (score, hard))
    assert other["error"] == pytest.approx(one["error"], rel=1e-3)


def test_more_tasks_than_groups_are_left_out_in_groups():
    score = Stream(2).at("score").normal(3, 160)
    found = lead_of_best(scored(score, mean), mean)
    best = int(score.mean(1).argmax())
    difference = (score[best] - score.mean(0)).double()
    assert found["error"] == pytest.approx(float(difference.std() / 160**0.5), rel=0.5)


def test_any_objective_is_reckoned_again():
    score = Stream(3).at("score").uniform(3, 6)
    kinds = torch.tensor([0, 0, 1, 1, 2, 2])
    baseline = torch.full((6,), 0.5)
    objective = regret([0.1, 0.2, 0.3], 0.25)
    found = lead_of_best(scored(score, objective, kinds, baseline), objective)
    fitness = objective(score, kinds, baseline)
    assert found["mean"] == pytest.approx(float(fitness.max() - fitness.mean()), rel=1e-4)
    assert found["error"] > 0


def test_what_failed_does_not_count_and_one_alone_has_no_lead():
    score = torch.tensor([[0.5, 0.7, 0.6], [0.4, 0.5, 0.3], [0.9, NAN, 0.9]])
    with_failure, without = (lead_of_best(scored(x, mean), mean) for x in (score, score[:2]))
    assert with_failure == without
    assert lead_of_best(scored(score[1:], mean), mean) is None
    assert lead_of_best(scored(score[:, :1], mean), mean) is None
