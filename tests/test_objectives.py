"""Scores become fitness: families weigh alike, and a failed training can never win."""

import pytest
import torch

from metaloss.objectives import mean

NAN, INF = float("nan"), float("inf")


def test_one_family_counts_by_its_mean():
    score = torch.tensor([[0.5, 0.7], [0.2, 0.4]])
    assert mean(score, torch.tensor([0, 0])).tolist() == pytest.approx([0.6, 0.3])


def test_a_family_of_many_tasks_weighs_no_more_than_one_of_few():
    score = torch.tensor([[1.0, 0.0, 0.2, 0.4]])
    assert mean(score, torch.tensor([0, 1, 1, 1])).tolist() == pytest.approx([(1.0 + 0.2) / 2])


def test_the_order_of_tasks_and_the_numbers_of_families_do_not_matter():
    score, family = torch.tensor([[1.0, 0.0, 0.2, 0.4]]), torch.tensor([0, 1, 1, 1])
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
