"""Tasks of one kind count together: their gains are alike."""

import pytest
import torch
from scipy import stats

from metaloss.core.streams import Stream
from metaloss.evaluation.kind_resamples import KindResamples


def test_kinds_of_equal_size_have_students_interval_of_their_means():
    gains = Stream(0).at("gains").normal(12)
    kind = torch.arange(12) % 4
    low, high = KindResamples(kind).gain_interval(gains, torch.zeros(12))
    means = torch.stack([gains[kind == k].double().mean() for k in range(4)]).numpy()
    expected = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert (low, high) == pytest.approx(expected, rel=1e-6)


def test_tasks_each_of_its_own_kind_have_the_usual_interval():
    gains = Stream(1).at("gains").normal(20)
    low, high = KindResamples(torch.arange(20)).gain_interval(gains, torch.zeros(20))
    usual = stats.t.interval(0.95, 19, float(gains.double().mean()), stats.sem(gains.double()))
    assert (low, high) == pytest.approx(usual, rel=1e-6)


def test_repeated_tasks_of_a_kind_do_not_make_an_interval_narrower():
    gains = Stream(2).at("gains").normal(6)
    kind = torch.arange(6)
    once = KindResamples(kind).gain_interval(gains, torch.zeros(6))
    often = KindResamples(kind.repeat(5)).gain_interval(gains.repeat(5), torch.zeros(30))
    assert often == pytest.approx(once, rel=1e-6)


def test_a_training_that_diverged_counts_as_0():
    ours = torch.tensor([torch.nan, 0.5])
    resamples = KindResamples(torch.tensor([0, 1]))
    assert resamples.gain_interval(ours, torch.tensor([0.5, torch.nan])) == pytest.approx(
        resamples.gain_interval(torch.tensor([0.0, 0.5]), torch.tensor([0.5, 0.0]))
    )
