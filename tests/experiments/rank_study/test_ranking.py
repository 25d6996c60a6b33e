"""Rank correlation, its interval, the best losses and the clusters, against counts by hand."""

import itertools
import math

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.experiments.rank_study.ranking import (
    best_count,
    best_places,
    cluster_tables,
    clusters,
    kendall_tau,
    pair,
)

KEY = Stream(0).at("test")


def by_hand(a, b):
    """Kendall's τ-b, pair by pair."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    sign = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i, j in pairs]
    untied = [sum(bool(s[k]) for s in sign) for k in (0, 1)]
    return sum(x * y for x, y in sign) / math.sqrt(untied[0] * untied[1])


def test_tau_is_what_counting_pairs_gives_ties_and_all():
    a = [0.1, 0.4, 0.4, 0.9, 0.0, 0.0, 0.6]
    b = [0.2, 0.1, 0.5, 0.8, 0.0, 0.3, 0.8]
    found = kendall_tau(a, b, KEY)
    assert found.tau == pytest.approx(by_hand(a, b))
    assert found.n == 7
    assert found.low < found.tau < found.high
    assert 0 < found.p < 1


def test_an_interval_is_that_of_resampled_losses():
    """One resample after the other, each with its losses written out."""
    draw = torch.Generator().manual_seed(1)
    a = torch.rand(12, generator=draw).double()
    b = a + 0.4 * torch.rand(12, generator=draw).double()
    rows = KEY.integers(12, 200, 12)
    values = torch.tensor(
        [by_hand(a[row].tolist(), b[row].tolist()) for row in rows], dtype=torch.float64
    )
    found = kendall_tau(a.tolist(), b.tolist(), KEY, 200)
    assert [found.low, found.high] == pytest.approx(
        [float(values.quantile(q)) for q in (0.025, 0.975)]
    )


def test_an_interval_holds_the_true_tau_most_of_the_time():
    """Of two normal scores with correlation r the true τ is 2 arcsin(r) / π."""
    r = 0.6
    held = 0
    for seed in range(100):
        x, y = Stream(seed).at("scores").normal(2, 40).double()
        found = kendall_tau(
            x.tolist(), (r * x + math.sqrt(1 - r * r) * y).tolist(), Stream(seed), 300
        )
        held += found.low <= 2 * math.asin(r) / math.pi <= found.high
    assert held >= 88


@pytest.mark.parametrize(("a", "b"), [([0.1], [0.2]), ([0.1, 0.1, 0.1], [0.1, 0.2, 0.3])])
def test_without_an_order_there_is_no_tau(a, b):
    found = kendall_tau(a, b, KEY)
    assert (found.tau, found.p, found.low, found.high) == (None, None, None, None)


def test_very_few_losses_have_a_tau_and_no_interval():
    found = kendall_tau([0.1, 0.2, 0.3], [0.1, 0.3, 0.2], KEY)
    assert found.tau == pytest.approx(1 / 3)
    assert found.low is None


def test_the_best_are_fifty_or_the_better_half_or_as_many_as_asked_for():
    assert [best_count(None, n) for n in (3, 50, 51, 1000)] == [2, 25, 26, 50]
    assert best_count(5, 1000) == 5
    assert best_count(50, 12) == 12
    assert best_places([0.1, 0.9, 0.5, 0.9, 0.5], 3) == [1, 2, 3]


def test_clusters_are_those_that_lie_apart_lowest_first():
    a = [0.9, 0.1, 0.92, 0.12, 0.9, 0.1]
    b = [0.8, 0.1, 0.82, 0.12, 0.2, 0.7]
    found = clusters(a, b, 4)
    assert found[0] == found[2] == 3
    assert found[1] == found[3] == 0
    assert {found[4], found[5]} == {1, 2}
    assert clusters(a, b, 1) == [0] * 6


def test_a_pair_tells_all_losses_from_the_best_ones():
    """Two settings that agree over all losses and disagree among the best."""
    n = 40
    k = 10
    a = [i / n for i in range(n)]
    b = [i / n if i < n - k else (2 * n - k - i) / n for i in range(n)]
    labels = [str(i) for i in range(n)]
    found = pair(("cheap", "dear"), a, b, labels, k, 2, KEY, 100)
    assert found.all.tau > 0.85
    assert found.best.tau == found.both.tau == pytest.approx(-1)
    assert (found.all.n, found.best.n, found.both.n, found.pick) == (n, k, k, "39")
    assert found.loses == pytest.approx(max(b) - b[39])
    groups = cluster_tables(found, a, b, labels)
    assert sum(x["n"] for x in groups) == n
    assert groups[0]["cheap"] < groups[1]["cheap"]
