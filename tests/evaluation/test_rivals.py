"""Rivals that are no losses equal scikit-learn's own, and see what losses see and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.rivals import adjust_logits, fit_methods, fitting, logits
from metaloss.evaluation.rivals.methods import ABSENT, METHODS, TaskArrays
from metaloss.evaluation.tuning import Setting
from metaloss.inner import thresholds
from metaloss.inner.metrics import logits as observe_logits
from metaloss.losses import zoo
from metaloss.losses.formulas import Formulas

CE = Formulas((zoo.read("ce"),))
BY_NAME = {method.name: method for method in METHODS}
every = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def task(classes=3, shots=4, features=30, seed=0):
    """Classes around means of their own, in more dimensions than there are images."""
    key = Stream(seed).at("task")
    means = key.at("means").normal(classes, features).numpy()
    y = np.arange(classes).repeat(shots)
    y_val = np.arange(classes).repeat(20)
    x = means[y] + 1.5 * key.at("x").normal(len(y), features).numpy()
    x_val = means[y_val] + 1.5 * key.at("val").normal(len(y_val), features).numpy()
    return TaskArrays(x.astype(np.float64), y, x_val.astype(np.float64), classes, seed), y_val


def test_class_weights_find_more_of_a_rare_class():
    arrays, y_val = task(shots=30)
    few = np.flatnonzero((arrays.y > 0) | (np.arange(len(arrays.y)) < 3))
    uneven = replace(arrays, x=arrays.x[few], y=arrays.y[few])
    weighted = [method for method in METHODS if method.weighted]
    assert len(weighted) == 3
    for method in weighted:
        plain = BY_NAME[method.name.removesuffix(", class weights")]
        found, before = (
            int((x.logits(uneven, 1.0).argmax(1) == 0)[y_val == 0].sum()) for x in (method, plain)
        )
        assert found > before


@every
def test_every_method_finds_most_classes(method):
    arrays, y_val = task()
    found = method.logits(arrays, 10.0)
    assert found.shape == (60, 3)
    assert np.isfinite(found).all()
    assert (found.argmax(1) == y_val).mean() > 0.6


@every
def test_two_classes_and_a_class_that_no_label_has(method):
    arrays, _ = task(classes=2)
    lacking = replace(arrays, ways=4)
    found = method.logits(lacking, 1.0)
    assert (found[:, 2:] == ABSENT).all()
    np.testing.assert_array_equal(found[:, :2], method.logits(arrays, 1.0))
    alone = method.logits(replace(arrays, y=np.ones_like(arrays.y)), 1.0)
    assert (alone.argmax(1) == 1).all()


@every
def test_one_image_a_class_and_images_that_are_all_alike(method):
    arrays, _ = task(shots=1)
    assert np.isfinite(method.logits(arrays, 1.0)).all()
    flat = replace(arrays, x=np.zeros_like(arrays.x), x_val=np.zeros_like(arrays.x_val))
    assert np.isfinite(method.logits(flat, 1.0)).all()


@every
def test_the_seed_decides_what_is_drawn(method):
    arrays, _ = task()
    np.testing.assert_array_equal(method.logits(arrays, 1.0), method.logits(arrays, 1.0))


def test_logistic_regression_in_the_span_is_that_of_all_features():
    arrays, _ = task()
    scale = np.sqrt(30)
    whole = LogisticRegression(C=3.0, max_iter=2000, tol=1e-9)
    whole.fit(arrays.x / scale, arrays.y)
    expected = whole.predict_proba(arrays.x_val / scale)
    found = np.exp(BY_NAME["logistic regression"].logits(arrays, 3.0))
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_support_vectors_are_those_of_all_features():
    arrays, _ = task()
    scale = np.sqrt(30)
    linear = SVC(C=2.0, kernel="linear").fit(arrays.x / scale, arrays.y)
    found = BY_NAME["linear SVM"].logits(arrays, 2.0)
    np.testing.assert_allclose(found, linear.decision_function(arrays.x_val / scale), atol=1e-2)
    distance = ((arrays.x[:, None] - arrays.x) ** 2).sum(2).mean()
    rbf = SVC(C=2.0, kernel="rbf", gamma=1 / distance).fit(arrays.x, arrays.y)
    found = BY_NAME["RBF SVM"].logits(arrays, 2.0)
    np.testing.assert_allclose(found, rbf.decision_function(arrays.x_val), atol=1e-2)


def test_the_nearest_mean_is_scikit_learns():
    arrays, _ = task()
    expected = NearestCentroid().fit(arrays.x, arrays.y).predict(arrays.x_val)
    found = BY_NAME["nearest class mean"].logits(arrays).argmax(1)
    np.testing.assert_array_equal(found, expected)


def test_shrinkage_lda_is_bayes_rule_of_normal_classes_with_one_covariance():
    arrays, _ = task()
    arrays = replace(arrays, x=arrays.x[1:], y=arrays.y[1:])  # uneven classes
    x, x_val = arrays.span
    means = [x[arrays.y == c].mean(0) for c in range(3)]
    covariance, _ = ledoit_wolf(x - np.array(means)[arrays.y], assume_centered=True)
    joint = [
        np.log((arrays.y == c).mean()) + multivariate_normal(means[c], covariance).logpdf(x_val)
        for c in range(3)
    ]
    expected = np.array(joint).T
    found = BY_NAME["shrinkage LDA"].logits(arrays)
    np.testing.assert_allclose(
        found - found[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-4
    )


# --- on tasks ---


def logits_of_the_test(episodes, engine):
    """What cross-entropy's networks give on six test tasks, [T V C]."""
    return episodes.evaluate(
        engine,
        [CE],
        "test",
        Stream(3).at("test"),
        range(6),
        rates=[0.2],
        steps=(5,),
        metric=observe_logits,
    )[0][0, 0]


def evaluation_of(episodes, engine):
    return EpisodeEvaluation(engine, episodes, Stream(3))


def test_rivals_meet_the_tasks_of_the_losses_and_depend_on_no_thread(episodes):
    results = []
    for workers in (1, 3):
        with Local(workers=workers) as engine:
            results.append(fit_methods(evaluation_of(episodes, engine), 3, 5))
    for one, other in zip(*results, strict=True):
        assert (one.name, one.value) == (other.name, other.value)
        assert torch.equal(one.measures.right, other.measures.right)
        assert torch.equal(one.measures.nll.nan_to_num(), other.measures.nll.nan_to_num())
    tasks = episodes.sample([Stream(3).at("test", "task", t) for t in range(5)], "test")
    mean = next(x for x in results[0] if x.name == "nearest class mean")
    x = tasks.train.x().flatten(2)
    for t in range(5):
        centroid = NearestCentroid().fit(x[t].numpy(), tasks.train.label[t].numpy())
        found = centroid.predict(tasks.val.x().flatten(2)[t].numpy())
        right = torch.from_numpy(found == tasks.val.label[t].numpy())
        assert torch.equal(mean.measures.right[t], right)


def test_a_constant_is_chosen_on_meta_validation_tasks(episodes, monkeypatch):
    """The one with the best mean there, whatever the test says."""
    pools = []
    measured = fitting._measured

    def spied(evaluation, pool, count, methods):
        pools.append((pool, count, [values for _, values in methods]))
        return measured(evaluation, pool, count, methods)

    monkeypatch.setattr(fitting, "_measured", spied)
    with Local(workers=1) as engine:
        found = fit_methods(evaluation_of(episodes, engine), 3, 2)
    assert [(pool, count) for pool, count, _ in pools] == [("validation", 3), ("test", 2)]
    assert {len(values) for values in pools[1][2]} == {1}
    assert all(x.value in (0.1, 1.0, 10.0, 100.0) for x in found if x.constant == "C")
    without = [x for x in found if x.name in ("linear SVM", "RBF SVM", "nearest class mean")]
    assert all(x.measures.nll.isnan().all() for x in without)


def test_rows_that_pad_a_task_are_left_out(open_tiny):
    tasks = open_tiny(shots=[1, 4], val=2).sample([Stream(1).at("task", t) for t in range(6)])
    assert tasks.train.count is not None
    for t in range(6):
        arrays = fitting.arrays_of(tasks, t, Stream(0))
        assert len(arrays.x) == len(arrays.y) == int(tasks.train.count[t])


def test_augmented_versions_are_left_out(open_tiny):
    augment = {"kind": "mixup", "pad": 1, "copies": 3}
    keys = [Stream(1).at("task", t) for t in range(3)]
    plain, tasks = (
        open_tiny(shots=[1, 4], val=2, noise={"kind": "symmetric", "share": 0.4}, **more).sample(
            keys
        )
        for more in ({}, {"augment": augment})
    )
    for t in range(3):
        one, other = (fitting.arrays_of(x, t, Stream(0)) for x in (plain, tasks))
        assert np.array_equal(one.x, other.x)
        assert np.array_equal(one.y, other.y)


# --- after training ---


def test_even_classes_have_no_prior_to_correct(episodes):
    with Local(workers=1) as engine:
        (only,) = adjust_logits(evaluation_of(episodes, engine), "ce", CE, Setting(0.2, 5), 3, 4)
    assert only.name == "ce, temperature"
    assert only.constant == "T"


def test_a_correction_is_that_of_the_published_formula(open_tiny):
    episodes = open_tiny(shots={"most": 4, "least": 1}, val=2)
    with Local(workers=1) as engine:
        evaluation = evaluation_of(episodes, engine)
        setting = Setting(0.2, 5)
        corrected, scaled = adjust_logits(evaluation, "ce", CE, setting, 4, 6)
        (plain,), *_ = evaluation.test([CE], [(setting,)], 6)
        seen = logits_of_the_test(episodes, engine)
    tasks = episodes.sample([Stream(3).at("test", "task", t) for t in range(6)], "test")
    assert corrected.value in logits.STRENGTHS
    for t in range(6):
        own = tasks.train.label[t]  # a tail has one length in all tasks
        share = np.bincount(own.numpy(), minlength=3) / len(own)
        z = seen[t].double().numpy() - corrected.value * np.log(share)
        right = torch.from_numpy(z.argmax(1)) == tasks.val.label[t]
        assert torch.equal(corrected.measures.right[t], right)
    # A temperature moves no answer, and lowers the NLL of the tasks that chose it.
    assert torch.equal(scaled.measures.right, plain.right)
    assert scaled.value in logits.TEMPERATURES


def test_the_answer_of_least_expected_cost_is_that_of_the_network_s_probabilities(open_tiny):
    table = [[0.0, 1, 2, 9], [5, 0, 1, 1], [2, 2, 1, 7], [4, 1, 1, 0]]
    episodes = open_tiny(metric={"kind": "cost", "matrix": table})
    with Local(workers=1) as engine:
        found = adjust_logits(evaluation_of(episodes, engine), "ce", CE, Setting(0.2, 5), 4, 6)
        seen = logits_of_the_test(episodes, engine)
    rival = {x.name: x for x in found}["ce, least expected cost"]
    assert "ce, thresholds" not in {x.name for x in found}  # tasks have three of four classes
    assert rival.measures.nll.isnan().all()
    tasks = episodes.sample([Stream(3).at("test", "task", t) for t in range(6)], "test")
    for t in range(6):
        costs = np.array(table)[tasks.classes[t]][:, tasks.classes[t]]
        z = seen[t].double().numpy() / rival.value
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        answer = (p @ costs).argmin(1)
        label = tasks.val.label[t].numpy()
        # A score is what a value is below the dearest answer.
        expected = 9 - costs[label, answer].mean()
        assert float(rival.measures.by_metric[t]) == pytest.approx(expected, rel=1e-5)


def test_thresholds_follow_the_classes_of_the_data_set(open_tiny, monkeypatch):
    monkeypatch.setattr(thresholds, "STEPS", (1.0, 0.25))
    episodes = open_tiny(ways=4, metric="macro_f1")
    with Local(workers=1) as engine:
        evaluation = evaluation_of(episodes, engine)
        tuning = logits._Networks.trained(evaluation, CE, Setting(0.2, 5), "validation", 4)
        found = adjust_logits(evaluation, "ce", CE, Setting(0.2, 5), 4, 6)
    names = [x.name for x in found]
    assert "ce, thresholds" in names
    assert "ce, least expected cost" not in names
    offsets = torch.tensor([0.5, 0, -1, 2])
    moved = tuning.offset(offsets)
    classes = tuning.tasks[0].classes
    for t in range(4):
        of_task = torch.tensor([offsets[c] for c in classes[t]])
        torch.testing.assert_close(moved.logits[0][t], tuning.logits[0][t] + of_task)
    # A class that the networks prefer far too much is pushed back by the search.
    spoilt = tuning.offset(torch.tensor([0.0, 3, 0, 0]))
    repaired = logits._thresholds("ce", spoilt)[0].measured(spoilt).measures.score.mean()
    assert repaired > spoilt.measures().score.mean()
    torch.testing.assert_close(spoilt.score(), spoilt.measures().score.mean())
