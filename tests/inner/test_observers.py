"""Measures of predictions agree with scikit-learn's and with hand counts.

All metrics see the same predictions as the accuracy does.
"""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from metaloss.core.metric_scale import ACCURACY
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.inner.metrics import progress_by
from metaloss.inner.metrics.accuracy import Accuracy
from metaloss.inner.observers import (
    calibration_error,
    macro_f1,
    measure,
    predictions,
    progress,
    scores,
)
from metaloss.losses.base import CrossEntropies


def answered(tasks=3, images=40, classes=4, seed=0):
    """Random probabilities, and what the metric would have seen of them."""
    key = Stream(seed)
    logp = (2 * key.normal(tasks, images, classes)).log_softmax(-1)
    label = key.at("label").integers(classes, tasks, images)
    trust, choice = logp.max(-1)
    return (
        logp,
        label,
        torch.stack([choice.float(), trust.exp(), logp.gather(-1, label[..., None])[..., 0]], -1),
    )


def test_measures_agree_with_scikit_learn():
    logp, label, found = answered()
    ours = measure(found, label, 4)
    for t in range(3):
        choice = logp[t].argmax(-1)
        assert float(ours.accuracy[t]) == pytest.approx(accuracy_score(label[t], choice))
        assert float(ours.f1[t]) == pytest.approx(f1_score(label[t], choice, average="macro"))
        probabilities = logp[t].double().exp()
        theirs = log_loss(
            label[t], probabilities / probabilities.sum(-1, keepdim=True), labels=range(4)
        )
        assert float(ours.nll[t]) == pytest.approx(theirs, rel=1e-5)
        assert ours.right[t].tolist() == (choice == label[t]).tolist()


def test_a_class_that_is_neither_there_nor_answered_counts_for_nothing_in_f1():
    label = torch.tensor([[0, 0, 1, 1]])
    choice = torch.tensor([[0, 1, 1, 1]])
    assert float(macro_f1(choice, label, 5)) == pytest.approx(
        f1_score(label[0], choice[0], average="macro")
    )


def test_the_calibration_error_is_a_sum_over_bins_counted_one_by_one():
    key = Stream(4)
    trust = key.uniform(1, 200)
    right = key.at("right").uniform(1, 200) < 0.6
    t = trust[0].numpy()
    r = right[0].numpy()
    expected = 0.0
    for low, high in zip(np.linspace(0, 1, 11)[:-1], np.linspace(0, 1, 11)[1:], strict=True):
        inside = (t > low) & (t <= high)
        if inside.any():
            expected += inside.mean() * abs(r[inside].mean() - t[inside].mean())
    assert float(calibration_error(trust, right, 10)) == pytest.approx(expected, rel=1e-5)


def test_a_classifier_whose_probabilities_are_true_is_calibrated_and_a_falsely_sure_one_is_not():
    sure = torch.ones(1, 10)
    assert float(calibration_error(sure, torch.ones(1, 10, dtype=torch.bool))) == 0
    assert float(calibration_error(sure, torch.zeros(1, 10, dtype=torch.bool))) == 1


def test_a_training_that_diverged_is_nan_in_every_measure_and_right_nowhere():
    _, label, found = answered()
    found[1, 7] = torch.nan
    ours = measure(found, label, 4)
    for values in (ours.accuracy, ours.f1, ours.nll, ours.calibration):
        assert values.isnan().tolist() == [False, True, False]
    assert not ours.right[1].any()
    assert ours.right[0].any()


@pytest.mark.parametrize("lr", [0.3, 1e30], ids=["sound", "diverged"])
def test_the_gauges_see_the_accuracy_that_a_search_sees(episodes, lr):
    keys = [Stream(0).at(t) for t in range(3)]
    tasks = episodes.sample(keys)
    losses = CrossEntropies.of(2)
    with Local(workers=1) as engine:
        shown, curve, by_metric, score = (
            engine.observe([losses], episodes, tasks, keys, metric, rates=[lr])[0]
            for metric in (predictions, progress, progress_by(Accuracy(), ACCURACY), scores)
        )
    found = measure(shown[0, 1], tasks.val.label, tasks.ways)
    torch.testing.assert_close(found.accuracy.float(), score[0, 1], equal_nan=True)
    torch.testing.assert_close(curve[..., 1], score, equal_nan=True)
    torch.testing.assert_close(by_metric, curve, equal_nan=True)
    assert shown.shape == (1, 2, 3, 12, 3)
    assert score.isnan().all() if lr > 1 else (curve[..., 0] >= 0).all()


def test_populations_that_share_their_tasks_do_not_change_each_other(episodes):
    keys = [Stream(0).at(t) for t in range(5)]
    tasks = episodes.sample(keys)
    some = CrossEntropies.of(3)
    others = CrossEntropies.of(3, 0.4)
    rates = torch.tensor([0.1, 0.3, 1.0])
    with Local(workers=2) as engine:
        alone = engine.observe([some], episodes, tasks, keys, predictions, rates=[rates])[0]
        _, beside = engine.observe(
            [others, some], episodes, tasks, keys, predictions, rates=[0.2, rates]
        )
    assert torch.equal(alone, beside)


def test_the_engine_tells_of_every_step_of_every_training(episodes):
    keys = [Stream(0).at(t) for t in range(5)]
    steps = []
    with Local(workers=2, on_progress=steps.append) as engine:
        engine.observe([CrossEntropies.of(3)] * 2, episodes, episodes.sample(keys), keys, scores)
    assert sum(steps) == 2 * 3 * 5 * episodes.family.inner.steps
    assert len(steps) > 2
