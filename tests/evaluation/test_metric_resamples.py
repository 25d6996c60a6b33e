"""The interval of any metric recomputes it for resamples of tasks and images."""

import pytest
import torch

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, TaskImages, Tasks
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.evaluation.statistics import Draws
from metaloss.inner.metrics import scale_of

T, V, C, POOL = 5, 24, 3, 60
KEY = Stream(0)
CLASSES = torch.stack([KEY.at("classes", t).permutation(C) for t in range(T)])


def drawn_tasks():
    """Tasks whose images come from one small pool, so that they share some."""
    rows = torch.stack([KEY.at("rows", t).permutation(POOL)[:V] for t in range(T)])
    images = Images(torch.zeros(POOL, 1, 1, 1, dtype=torch.uint8), 0.0, 1.0)
    half = TaskImages(images, rows, torch.arange(V).remainder(C).expand(T, V), C)
    return Tasks(half, half, CLASSES)


def answers():
    label = drawn_tasks().val.label
    hot = torch.nn.functional.one_hot(label, C)
    ours = KEY.at("ours").normal(T, V, C) + 1.5 * hot
    return ours, KEY.at("theirs").normal(T, V, C) + hot


def resamples(kind):
    metric = registry.build("metrics", {"kind": kind})
    return MetricResamples.of(metric, scale_of(metric, C), drawn_tasks(), KEY.at("bootstrap"))


@pytest.mark.parametrize("kind", ["macro_f1", "auroc", "kappa", "nll"])
def test_each_resample_is_the_metric_of_images_that_are_there_so_many_times(kind, monkeypatch):
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.COUNTED", 6)
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.RANKED", 6)
    drawn = resamples(kind)
    ours, _ = answers()
    expected = torch.zeros(T, 6, dtype=torch.float64)
    for r in range(6):
        for t in range(T):
            times = drawn.draws.images[drawn.draws.place[t], r].long()
            rows = torch.arange(V).repeat_interleave(times)
            value = drawn.metric.measure(
                ours[None, t : t + 1, rows], drawn.label[t : t + 1, rows], CLASSES[t : t + 1]
            )
            expected[t, r] = drawn.scale.score(float(value[0, 0]))
    found = drawn._resampled_scores(ours)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_interval_of_accuracy_is_the_one_that_counts_right_answers(monkeypatch):
    monkeypatch.setattr("metaloss.evaluation.metric_resamples.COUNTED", 2000)
    ours, theirs = answers()
    by_metric = resamples("accuracy").gain_interval(ours, theirs)
    tasks = drawn_tasks()
    right = [(x.argmax(-1) == tasks.val.label).float() for x in (ours, theirs)]
    draws = Draws.of(tasks.val.rows, tasks.val_classes, KEY.at("bootstrap"))
    by_count = draws.gain_interval(*right)
    assert by_metric == pytest.approx(by_count, abs=1e-6)


def test_a_comparison_by_a_metric_knows_the_accuracy_too_and_counts_failures_as_the_worst():
    ours, theirs = answers()
    theirs[2, 3, 1] = torch.nan
    drawn = resamples("nll")
    compared = PairedComparison.of(ours, theirs, KEY, drawn)
    right = (theirs.argmax(-1) == drawn.label).double().mean(1)
    right[2] = 0
    assert compared.baseline_accuracy == pytest.approx(float(right.mean()))
    scores = drawn.scores(theirs)
    assert scores.isnan().tolist() == [False, False, True, False, False]
    assert compared.baseline_score == pytest.approx(float(scores.nan_to_num(nan=0.0).mean()))
    assert drawn.scale.value(0.0) == drawn.scale.failed > 10
    assert compared.low <= compared.gain.mean <= compared.high
