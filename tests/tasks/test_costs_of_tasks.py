"""Losses see what mistakes cost by the family's metric, in each task's own order of classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.data import episodes as episodes_module
from metaloss.engines.local import Local
from metaloss.evolution import evaluate
from metaloss.inner.observers import predictions
from metaloss.losses import zoo
from metaloss.losses.formulas import Formulas

T = 5
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
LOSSES = Formulas.of([zoo.read(x) for x in ("ce", "softmax_margin(tau=3)", "ce_expected_cost")])


def matrix(classes):
    """Unlike costs for all pairs, right answers' too."""
    return [[float(3 * t + (t - c) ** 2 + c / 7) for c in range(classes)] for t in range(classes)]


def relative(costs):
    above = costs - np.diag(costs)[:, None]
    return above / above[~np.eye(len(costs), dtype=bool)].mean()


def answers(losses, episodes, tasks, memory=1 << 30):
    with Local(memory=memory, workers=1) as engine:
        return engine.observe([losses], episodes, tasks, STARTS[: len(tasks)], predictions, None)[0]


def test_a_task_has_the_costs_of_its_own_classes(open_tiny, dataset):
    table = matrix(len(dataset.classes))
    tasks = open_tiny(metric={"kind": "cost", "matrix": table}).sample(KEYS)
    assert len({tuple(x) for x in tasks.classes.tolist()}) > 1
    for classes, costs in zip(tasks.classes.tolist(), tasks.costs, strict=True):
        np.testing.assert_allclose(costs, relative(np.array(table)[classes][:, classes]), rtol=1e-5)


def test_a_matrix_that_names_its_classes_in_another_order_gives_the_same(open_tiny, dataset):
    table = np.array(matrix(len(dataset.classes)))
    order = Stream(9).permutation(len(table)).numpy()
    names = [dataset.classes[i] for i in order]
    shuffled = {"matrix": table[order][:, order].tolist(), "names": names}
    one, other = (
        open_tiny(metric={"kind": "cost", **x}).sample(KEYS)
        for x in ({"matrix": table.tolist()}, shuffled)
    )
    assert torch.equal(one.costs, other.costs)


def test_an_order_of_classes_costs_the_square_of_the_distance_in_ranks(open_tiny):
    tasks = open_tiny(metric="kappa").sample(KEYS)
    for classes, costs in zip(tasks.classes.tolist(), tasks.costs, strict=True):
        rank = np.array([sorted(classes).index(c) for c in classes])
        distance = (rank[:, None] - rank) ** 2
        np.testing.assert_allclose(costs, distance / (distance.sum() / 6), rtol=1e-6)


@pytest.mark.parametrize("metric", [None, "macro_f1", "auroc", "nll", "cost"])
def test_other_metrics_let_all_mistakes_cost_alike(open_tiny, metric):
    assert open_tiny(metric=metric).sample(KEYS).costs is None


def test_losses_that_read_costs_train_by_them_and_others_do_not(open_tiny):
    plain, told = open_tiny(), open_tiny(metric="kappa")
    without = answers(LOSSES, plain, plain.sample(KEYS))
    found = answers(LOSSES, told, told.sample(KEYS))
    assert torch.equal(found[:, 0], without[:, 0])
    for row in (1, 2):
        assert not torch.allclose(found[:, row], without[:, row], rtol=1e-3)


def test_tasks_of_unlike_sizes_keep_their_costs(open_tiny, monkeypatch):
    monkeypatch.setattr(episodes_module, "padded_size", lambda rows: -(-rows // 4) * 4)
    episodes = open_tiny(metric="kappa", shots=[1, 3], val=2)
    tasks = episodes.sample(KEYS)
    assert len(tasks.by_size()) > 1
    for places, some in tasks.by_size():
        assert torch.equal(some.costs, tasks.costs[places])
    together = answers(LOSSES, episodes, tasks)
    for t in range(T):
        one = tasks[t : t + 1]
        one = replace(one, train=one.train.cut(int(one.train.count)))
        starts = STARTS[t : t + 1]
        bound = episodes.model.bind(one, starts)
        expected = evaluate(
            LOSSES,
            episodes.model,
            bound,
            one,
            inner=episodes.family.inner,
            keys=starts,
            block=6,
            metric=predictions,
        )
        torch.testing.assert_close(together[:, :, t : t + 1], expected, rtol=1e-3, atol=1e-4)
