"""Tasks of unlike sizes train together, each as it does alone and without the rows that pad it."""

from dataclasses import replace

import pytest
import torch

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.data import episodes as episodes_module
from metaloss.data.episodes import Tasks
from metaloss.engines.local import Local
from metaloss.evolution import evaluate
from metaloss.inner.loop import Inner, batches
from metaloss.inner.observers import predictions, progress
from metaloss.losses.base import CrossEntropies

P = 2
T = 5
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
CLASSIFIERS = {
    "mlp": {"kind": "mlp", "hidden": [16]},
    "cnn": {"kind": "cnn", "filters": [3]},
    "linear": {"kind": "linear"},
}
GENOMES = ("mln", "targets", "taylor", "tree")
TRAININGS = {
    "all images": Inner(steps=4, lr=0.1),
    "minibatches": Inner(steps=7, lr=0.1, batch=5),
    "momentum and decay": Inner(steps=4, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": Inner(steps=4, lr=0.01, optimiser="adam"),
}


@pytest.fixture(autouse=True)
def coarse_ladder(monkeypatch):
    """Sizes in memory are multiples of four: the tests' tasks are too small for the real ladder."""
    monkeypatch.setattr(episodes_module, "padded_size", lambda rows: -(-rows // 4) * 4)


@pytest.fixture
def uneven(open_tiny):
    """A family whose tasks have 3, 6, 9 or 12 training images."""

    def opened(classifier="mlp", **more):
        return open_tiny(shots=[1, 4], val=2, classifier=CLASSIFIERS[classifier], **more)

    return opened


def losses_of(kind):
    if kind == "ce":
        return CrossEntropies.of(P, 0.1)
    genome = registry.build("genomes", {"kind": kind})
    return genome.losses(genome.sample(P, Stream(3)))


def seen(losses, episodes, tasks, starts=STARTS, inner=None, observer=predictions, memory=1 << 30):
    with Local(memory=memory, workers=1) as engine:
        return engine.observe([losses], episodes, tasks, starts, observer, inner)[0]


def alone(tasks, t):
    """One task, without the rows that pad it."""
    one = tasks[t : t + 1]
    return Tasks(one.train.cut(int(one.train.count)), one.val, one.classes)


# --- a task trains as it does alone ---


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_padded_task_trains_as_it_does_without_padding(uneven, float64, classifier, training):
    episodes = uneven(classifier)
    tasks = episodes.sample(KEYS)
    inner = TRAININGS[training]
    losses = losses_of("ce")
    together = seen(losses, episodes, tasks, inner=inner)
    for t in range(T):
        one = alone(tasks, t)
        bound = episodes.model.bind(one, STARTS[t : t + 1])
        expected = evaluate(
            losses,
            episodes.model,
            bound,
            one,
            inner=inner,
            keys=STARTS[t : t + 1],
            block=6,
            metric=predictions,
        )
        torch.testing.assert_close(together[:, :, t : t + 1], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", GENOMES)
def test_every_kind_of_loss_trains_a_padded_task_as_it_does_without_padding(uneven, kind):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    losses = losses_of(kind)
    together = seen(losses, episodes, tasks)
    for t in range(T):
        found = seen(losses, episodes, alone(tasks, t), STARTS[t : t + 1])
        torch.testing.assert_close(together[:, :, t : t + 1], found, rtol=1e-3, atol=1e-4)


def test_what_pads_a_task_does_not_matter_bit_for_bit(uneven):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    train = tasks.train
    padding = train.weight == 0
    assert padding.any()
    rows = train.rows.where(~padding, train.rows.max())
    label = train.label.where(~padding, 2)
    other = replace(tasks, train=replace(train, rows=rows, label=label))
    for inner in (TRAININGS["all images"], TRAININGS["minibatches"]):
        assert torch.equal(
            seen(losses_of("mln"), episodes, tasks, inner=inner),
            seen(losses_of("mln"), episodes, other, inner=inner),
        )


# --- whatever is beside it ---


@pytest.mark.parametrize("kind", ["mln", "tree"])
@pytest.mark.parametrize("memory", [1 << 30, 20_000], ids=["large chunks", "small chunks"])
def test_tasks_of_other_sizes_do_not_matter_bit_for_bit(uneven, kind, memory):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    losses = losses_of(kind)
    together = seen(losses, episodes, tasks, memory=memory)
    groups = tasks.by_size()
    assert len(groups) > 1
    for places, group in groups:
        starts = [STARTS[t] for t in places.tolist()]
        found = seen(losses, episodes, group, starts, memory=memory)
        assert torch.equal(found, together[:, :, places])


@pytest.mark.parametrize("kind", ["mln", "tree"])
def test_tasks_of_its_own_size_do_not_matter_bit_for_bit(uneven, kind):
    episodes = uneven()
    keys = [Stream(0).at("task", t) for t in range(40)]
    sizes = episodes.sample(keys).train.count
    small = [t for t in range(40) if int(sizes[t]) == 3][:2]
    large = [t for t in range(40) if int(sizes[t]) > 8][:3]
    one, other = ([small[i], *large] for i in range(2))
    results = [
        seen(
            losses_of(kind),
            episodes,
            episodes.sample([keys[t] for t in chosen]),
            [Stream(0).at("init", t) for t in chosen],
        )
        for chosen in (one, other)
    ]
    assert torch.equal(results[0][:, :, 1:], results[1][:, :, 1:])


def test_results_stand_at_their_tasks_in_whatever_order_they_come(uneven):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    order = torch.tensor([3, 2, 0, 1, 4])
    found = seen(losses_of("mln"), episodes, tasks)
    turned = seen(losses_of("mln"), episodes, tasks[order], [STARTS[t] for t in order.tolist()])
    assert torch.equal(turned, found[:, :, order])


def test_the_number_of_workers_does_not_matter_for_uneven_tasks(uneven):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    results = []
    for workers in (1, 3):
        with Local(memory=20_000, workers=workers) as engine:
            results.append(engine.score(losses_of("mln"), episodes, tasks, STARTS))
    assert torch.equal(*results)


# --- what is drawn and measured ---


def test_minibatches_draw_a_task_s_own_images_alone_each_once_an_epoch():
    count = torch.tensor([11, 12, 4, 5])
    inner = Inner(steps=6, batch=5)
    steps = torch.stack(list(batches(12, inner, KEYS[:4], count=count)))  # [steps T b]
    assert steps.shape == (6, 4, 5)
    for t in (0, 1):
        epochs = steps[:, t].reshape(3, 10)
        assert int(epochs.max()) < count[t]
        assert all(len(epoch.unique()) == 10 for epoch in epochs)
        # Its order is that of a task of its own size that nothing pads.
        unpadded = list(batches(int(count[t]), inner, KEYS[t : t + 1]))
        assert torch.equal(torch.cat(unpadded), steps[:, t])
    assert set(steps[:, 2].flatten().tolist()) == {0, 1, 2, 3, 4}  # 4 pads it
    assert (steps[:, 3] == torch.arange(5)).all()


def test_training_accuracy_is_that_of_a_task_s_own_images(uneven):
    episodes = uneven()
    tasks = episodes.sample(KEYS)
    losses = losses_of("ce")
    found = seen(losses, episodes, tasks, observer=progress)
    for t in range(T):
        expected = seen(losses, episodes, alone(tasks, t), STARTS[t : t + 1], observer=progress)
        torch.testing.assert_close(found[:, :, t : t + 1], expected)


def test_a_diverged_training_stays_nan_though_padding_is_selected_away(uneven):
    episodes = uneven()
    found = seen(losses_of("ce"), episodes, episodes.sample(KEYS), inner=Inner(steps=9, lr=1e30))
    assert found.isnan().all()
