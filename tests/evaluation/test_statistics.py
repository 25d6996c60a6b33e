"""Paired differences: the mean, its standard error and its bootstrap interval.

The interval holds the true difference as often as it should.
"""

import numpy as np
import pytest
import scipy.stats
import torch

from metaloss.core.streams import Stream
from metaloss.evaluation.statistics import (
    Draws,
    RankTest,
    critical_difference,
    holm,
    interval_over_tasks_and_images,
    mean_ranks,
    paired,
    rank_test,
    verdict,
)

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
        ((a - b).double().numpy(),),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=found.error / 10)
    assert found.high == pytest.approx(expected.high, abs=found.error / 10)


def test_swapping_the_two_turns_the_interval_around():
    a, b = scores()
    one = paired(a, b, KEY, 500)
    other = paired(b, a, KEY, 500)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


def test_the_result_depends_on_the_key_alone():
    a, b = scores()
    assert paired(a, b, KEY, 200) == paired(a, b, KEY, 200)
    assert paired(a, b, KEY, 200) != paired(a, b, KEY.at("other"), 200)


def test_a_failed_training_counts_as_no_right_answer():
    a = torch.tensor([float("nan"), 0.5, 0.7])
    b = torch.tensor([0.4, float("nan"), 0.6])
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
    # 95 % asked for; the percentile bootstrap of 30 falls a little short, and 200 repeats spread by
    # 1.5 points.
    assert 0.88 <= sum(covered) / len(covered) <= 0.99


# --- ranks ---


def test_the_rank_test_is_scipys_wilcoxon_and_counts_tasks():
    a, b = scores(60)
    b[:5] = a[:5]
    found = rank_test(a, b)
    difference = (a.double() - b.double()).numpy()
    assert found.p == pytest.approx(scipy.stats.wilcoxon(difference).pvalue)
    assert (found.wins, found.ties, found.losses) == (
        (difference > 0).sum(),
        5,
        (difference < 0).sum(),
    )


def test_the_effect_size_by_hand():
    a = torch.tensor([0.5, 0.5, 0.5, 0.5])
    b = torch.tensor([0.4, 0.3, 0.8, 0.5])
    # Differences 0.1, 0.2, -0.3 and 0: ranks 1 and 2 in favour, 3 against.
    found = rank_test(a, b)
    assert found.effect == pytest.approx((3 - 3) / 6)
    assert rank_test(a, b[[0, 1, 3, 3]]).effect == 1
    assert rank_test(b[[0, 1, 3, 3]], a).effect == -1


def test_losses_with_equal_scores_are_not_told_apart():
    a, _ = scores()
    assert rank_test(a, a) == RankTest(1.0, 0.0, 0, 40, 0)


def test_holms_correction_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_critical_difference_is_that_of_demsars_table():
    # Demšar 2006, table 5: q at 5 % is 1.960 for two and 2.569 for four classifiers; his example
    # has 14 data sets.
    assert critical_difference(4, 14) == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, rel=1e-3)
    assert critical_difference(2, 6) == pytest.approx(1.960 * (2 * 3 / 36) ** 0.5, rel=1e-3)


def test_mean_ranks_share_ties():
    assert mean_ranks(torch.tensor([[0.9, 0.5], [0.8, 0.5], [0.1, 0.7]])) == [1.75, 2.25, 2.0]


# --- tasks cut from one pool ---


def crossed(seed, tasks=40, pool=60, images=30, gain=0.1):
    """Right answers of two losses on tasks that share a pool's images.

    Some images, and some tasks, suit the first loss more than the second.
    """
    draw = np.random.default_rng(seed)
    rows = np.stack([draw.permutation(pool)[:images] for _ in range(tasks)])
    lead = gain + draw.normal(0, 0.3, pool)[rows] + draw.normal(0, 0.05, (tasks, 1))
    u = draw.uniform(size=rows.shape)
    return torch.from_numpy(rows), torch.from_numpy(u < lead), torch.from_numpy(u < -lead)


def drawn_images(rows, key, resamples):
    """Resamples of images that are all of one class."""
    return Draws.of(rows, torch.zeros_like(rows), key, resamples)


def test_the_interval_over_tasks_and_images_covers_where_that_over_tasks_does_not():
    wide = 0
    narrow = 0
    n = 200
    for seed in range(n):
        rows, a, b = crossed(seed)
        low, high = drawn_images(rows, KEY.at(seed), 200).interval(a, b)
        wide += low <= 0.1 <= high
        found = paired(a.double().mean(1), b.double().mean(1), KEY.at(seed), 200)
        narrow += found.low <= 0.1 <= found.high
    # 95 % asked for (94.1 % of 1,500 repeats); 200 of them spread by 1.6 points.
    assert 0.90 <= wide / n <= 0.985
    assert narrow / n < 0.85


def test_without_shared_images_the_interval_is_that_of_students_t_over_tasks():
    rows = torch.arange(40 * 200).reshape(40, 200)
    draw = np.random.default_rng(1)
    share = draw.uniform(0.4, 0.8, (40, 1))
    lead = draw.normal(0.1, 0.1, (40, 1))
    a, b = (torch.from_numpy(draw.uniform(size=rows.shape) < x) for x in (share + lead, share))
    difference = (a.double() - b.double()).mean(1).numpy()
    expected = scipy.stats.ttest_1samp(difference, 0).confidence_interval()
    found = drawn_images(rows, KEY, 2000).interval(a, b)
    assert found == pytest.approx(tuple(expected), abs=scipy.stats.sem(difference) / 20)


def test_what_tasks_share_is_the_covariance_over_the_images_that_are_in_both():
    rows, a, b = crossed(1, tasks=6, pool=40, images=20)
    rows = rows.numpy()
    lead = a.double().numpy() - b.double().numpy()
    residual = lead - lead.mean(1, keepdims=True)
    shared = [
        sum(
            residual[t, i] * residual[u, j]
            for i in range(20)
            for j in range(20)
            if rows[t, i] == rows[u, j]
        )
        / 20**2
        for t in range(6)
        for u in range(6)
        if t != u
    ]
    # The covariance of two shares of drawn images is, to first order, a sum over both tasks' ones.
    variance = lead.mean(1).var(ddof=1) / 6 + max(0.0, float(np.mean(shared)))
    low, high = drawn_images(torch.from_numpy(rows), KEY, 20_000).interval(a, b)
    assert np.mean(shared) > 0
    assert high + low == pytest.approx(2 * lead.mean())
    assert 1.96 < (high - low) / 2 / variance**0.5 < scipy.stats.t.ppf(0.975, 5) * 1.02


def test_an_image_that_is_drawn_twice_counts_twice_in_every_task_that_holds_it():
    rows = torch.tensor([[0, 1, 2], [1, 2, 3]])
    a = torch.tensor([[True, False, True], [True, True, False]])
    b = torch.tensor([[False, False, True], [True, False, False]])
    draws = drawn_images(rows, KEY, 300)
    assert (draws.images.sum(0) == 3).all()  # one fewer than there are
    resampled = np.zeros((2, 300))
    for r, times in enumerate(draws.images.T.tolist()):
        for t, row in enumerate(rows.tolist()):
            whole = sum(times[i] for i in row)
            lead = sum(
                times[i] * (int(x) - int(y)) for i, x, y in zip(row, a[t], b[t], strict=True)
            )
            resampled[t, r] = lead / max(1, whole)
    expected = interval_over_tasks_and_images(
        (a.double() - b.double()).mean(1), torch.from_numpy(resampled), 3
    )
    assert draws.interval(a, b) == pytest.approx(expected)


def test_images_are_drawn_within_their_class():
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]])
    classes = torch.tensor([0, 0, 0, 1, 1, 1, 2])[rows]
    draws = Draws.of(rows, classes, KEY, 50)
    assert (draws.images[:3].sum(0) == 2).all()
    assert (draws.images[3:6].sum(0) == 2).all()
    assert (draws.images[6] == 1).all()
    assert draws.freedom == 4


def test_groups_are_drawn_whole_within_the_class_of_most_of_their_images():
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]])
    classes = torch.tensor([0, 0, 0, 0, 1, 1, 1])[rows]
    # Groups 7 and 4 are of class 0, and 9, which has an image of each class, and 2 of class 1.
    groups = torch.tensor([7, 7, 4, 9, 9, 9, 2, 5])
    draws = Draws.of(rows, classes, KEY, 50, groups)
    first, _, second, third, _, _, fourth = draws.images
    assert torch.equal(draws.images[1], first)
    assert torch.equal(draws.images[4], third)
    assert torch.equal(draws.images[5], third)
    assert (first + second == 1).all()  # one fewer than there are
    assert (third + fourth == 1).all()
    assert len(first.unique()) == len(third.unique()) == 2
    assert draws.freedom == 2


def test_each_image_as_its_own_group_draws_as_without_groups():
    rows = torch.tensor([[4, 1, 2, 3, 5, 7]])
    classes = torch.tensor([0, 1, 0, 1, 0, 1])[None]
    alone = Draws.of(rows, classes, KEY, 50, torch.arange(8))
    assert torch.equal(alone.images, Draws.of(rows, classes, KEY, 50).images)


def test_the_interval_over_groups_covers_where_that_over_their_images_does_not():
    n = 300
    over_groups = 0
    over_images = 0
    for seed in range(n):
        draw = np.random.default_rng(seed)
        # As of three trainings that look at all 120 images, of 24 patients.
        lead = 0.1 + draw.normal(0, 0.3, 24).repeat(5) + draw.normal(0, 0.1, 120)
        u = draw.uniform(size=(3, 120))
        a, b = torch.from_numpy(u < 0.5 + lead / 2), torch.from_numpy(u < 0.5 - lead / 2)
        rows = torch.arange(120).expand(3, -1)
        classes = torch.zeros_like(rows)
        groups = torch.arange(24).repeat_interleave(5)
        whole = Draws.of(rows, classes, KEY.at(seed), 200, groups).interval(a, b)
        single = Draws.of(rows, classes, KEY.at(seed), 200).interval(a, b)
        over_groups += whole[0] <= 0.1 <= whole[1]
        over_images += single[0] <= 0.1 <= single[1]
    assert 0.91 <= over_groups / n <= 0.985
    assert over_images / n < 0.85


def test_one_task_has_an_interval_over_its_images():
    rows = torch.arange(400)[None]
    draw = np.random.default_rng(2)
    a, b = (torch.from_numpy(draw.uniform(size=(1, 400)) < x) for x in (0.7, 0.6))
    lead = (a.double() - b.double()).numpy()[0]
    expected = scipy.stats.ttest_1samp(lead, 0).confidence_interval()
    found = drawn_images(rows, KEY, 5000).interval(a, b)
    assert found == pytest.approx(tuple(expected), abs=scipy.stats.sem(lead) / 10)


def test_the_same_answers_differ_by_nothing():
    rows, a, _ = crossed(0)
    assert drawn_images(rows, KEY, 50).interval(a, a) == (0, 0)


@pytest.mark.parametrize(
    ("p", "interval", "said"),
    [
        (0.001, (0.002, 0.04), "better"),
        (0.001, (-0.04, -0.002), "worse"),
        (0.06, (0.01, 0.03), "too few images to tell"),
        (0.001, (-0.02, 0.1), "too few images to tell"),
        (0.4, (-0.015, 0.012), "no difference"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_test(p, interval, said):
    assert verdict(p, interval, 0.02) == said


def test_no_difference_is_said_by_what_is_negligible():
    assert verdict(0.4, (-0.015, 0.012), 0.01) == "too few images to tell"
    assert verdict(0.4, (-1.5, 1.2), 2.0) == "no difference"
