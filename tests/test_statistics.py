"""Paired differences: the mean, its standard error, and a bootstrap interval that covers as often as it should."""

import numpy as np
import pytest
import scipy.stats
import torch

from metaloss.statistics import paired
from metaloss.streams import Stream

KEY = Stream(3)


def scores(n=40, gain=0.01, seed=0):
    draw = np.random.default_rng(seed)
    b = draw.uniform(0.6, 0.9, n)
    return torch.from_numpy(b + draw.normal(gain, 0.02, n)).float(), torch.from_numpy(b).float()


def test_mean_and_standard_error_are_those_of_the_differences():
    a, b = scores()
    found = paired(a, b, KEY, 100)
    difference = a.double().numpy() - b.double().numpy()
    assert found.mean == pytest.approx(difference.mean())
    assert found.error == pytest.approx(scipy.stats.sem(difference))
    assert found.tasks == 40


def test_the_interval_agrees_with_scipys_bootstrap():
    a, b = scores()
    found = paired(a, b, KEY)
    expected = scipy.stats.bootstrap(
        ((a - b).double().numpy(),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=found.error / 10)
    assert found.high == pytest.approx(expected.high, abs=found.error / 10)


def test_swapping_the_two_turns_the_interval_around():
    a, b = scores()
    one, other = paired(a, b, KEY, 500), paired(b, a, KEY, 500)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


def test_the_result_depends_on_the_key_alone():
    a, b = scores()
    assert paired(a, b, KEY, 200) == paired(a, b, KEY, 200)
    assert paired(a, b, KEY, 200) != paired(a, b, KEY.at("other"), 200)


def test_a_failed_training_counts_as_no_right_answer():
    a, b = torch.tensor([float("nan"), 0.5, 0.7]), torch.tensor([0.4, float("nan"), 0.6])
    expected = paired(torch.tensor([0.0, 0.5, 0.7]), torch.tensor([0.4, 0.0, 0.6]), KEY, 100)
    assert paired(a, b, KEY, 100) == expected


def test_equal_scores_differ_by_nothing():
    a, _ = scores()
    found = paired(a, a, KEY, 100)
    assert (found.mean, found.low, found.high, found.error) == (0, 0, 0, 0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = [
        found.low <= 0.01 <= found.high
        for seed in range(200)
        for found in [paired(*scores(30, seed=seed), KEY.at(seed), 500)]
    ]
    # 95 % asked for; the percentile bootstrap of 30 falls a little short, and 200 repeats spread by 1.5 points.
    assert 0.88 <= sum(covered) / len(covered) <= 0.99
