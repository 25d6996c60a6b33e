"""With augmented versions, tasks train on one of each image a step, as a plain loop does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.data import episodes as episodes_module
from metaloss.data.episodes import Tasks
from metaloss.engines.chunking import plan_chunks, sharing_saves_work
from metaloss.engines.local import Local
from metaloss.evolution import evaluate
from metaloss.inner.loop import Inner, batches
from metaloss.inner.observers import predictions, progress
from metaloss.losses.base import CrossEntropies

T = 5
KEYS = [Stream(0).at("task", t) for t in range(T)]
STARTS = [Stream(0).at("init", t) for t in range(T)]
CLASSIFIERS = {
    "mlp": {"kind": "mlp", "hidden": [16]},
    "cnn": {"kind": "cnn", "filters": [3]},
    "linear": {"kind": "linear"},
}
SHIFT = {"kind": "shift", "pad": 1, "copies": 3}
AUGMENTS = {
    "one version": SHIFT,
    "all versions": {**SHIFT, "all": True},
    "mixed": {"kind": "mixup", "pad": 1, "copies": 3},
}
TRAININGS = {
    "all images": Inner(steps=7, lr=0.1),
    "minibatches": Inner(steps=7, lr=0.1, batch=5),
    "momentum and decay": Inner(steps=5, lr=0.05, momentum=0.9, weight_decay=0.01),
}
SIZES = {"even": {"shots": 2}, "uneven": {"shots": [1, 4]}}
augments = pytest.mark.parametrize("augment", AUGMENTS)
classifiers = pytest.mark.parametrize("classifier", CLASSIFIERS)
sizes = pytest.mark.parametrize("size", SIZES)
trainings = pytest.mark.parametrize("training", TRAININGS)


@pytest.fixture(autouse=True)
def coarse_ladder(monkeypatch):
    """Sizes in memory are multiples of four: the tests' tasks are too small for the real ladder."""
    monkeypatch.setattr(episodes_module, "padded_size", lambda rows: -(-rows // 4) * 4)


@pytest.fixture
def opened(open_tiny):
    """Opens a family of the tiny data set with versions."""

    def opened(augment="one version", size="even", classifier="mlp", **more):
        return open_tiny(
            val=2,
            classifier=CLASSIFIERS[classifier],
            augment=AUGMENTS[augment],
            **SIZES[size],
            **more,
        )

    return opened


def seen(losses, episodes, tasks, starts=STARTS, inner=None, observer=predictions, memory=1 << 30):
    with Local(memory=memory, workers=1) as engine:
        return engine.observe([losses], episodes, tasks, starts, observer, inner)[0]


def losses_of(kind, n=2):
    if kind == "ce":
        return CrossEntropies.of(n, 0.1)
    genome = registry.build("genomes", {"kind": kind})
    return genome.losses(genome.sample(n, Stream(3)))


# --- which versions a step takes ---


def test_a_step_takes_one_version_of_every_image_and_an_image_passes_through_all_of_them():
    steps = torch.stack(list(batches(20, Inner(steps=12), KEYS[:3], choices=4)))  # [steps T b]
    assert steps.shape == (12, 3, 5)
    assert torch.equal(steps // 4, torch.arange(5).expand(12, 3, 5))
    for first in (0, 4, 8):
        turns = (steps[first : first + 4] % 4).sort(0).values
        assert torch.equal(turns, torch.arange(4)[:, None, None].expand(4, 3, 5))
    # In an order of its own, each time another one, and from the task's own key.
    assert (steps[:4] != steps[4:8]).any()
    assert (steps[:, 0] != steps[:, 1]).any()
    assert torch.equal(
        steps[:, 1:2], torch.stack(list(batches(20, Inner(steps=12), KEYS[1:2], choices=4)))
    )


def test_a_shorter_training_takes_the_first_versions_of_a_longer_one():
    short, long = (
        torch.stack(list(batches(20, Inner(steps=n, batch=3), KEYS, choices=4))) for n in (5, 11)
    )
    assert torch.equal(short, long[:5])


def test_minibatches_are_those_of_the_images_without_versions():
    inner = Inner(steps=9, batch=5)
    plain = torch.stack(list(batches(11, inner, KEYS)))
    found = torch.stack(list(batches(11 * 4, inner, KEYS, choices=4)))
    assert torch.equal(found // 4, plain)
    assert len((found % 4).unique()) == 4


def test_a_step_never_takes_what_pads_a_task_in_the_place_of_its_own_images():
    count = torch.tensor([9, 12, 6])
    for inner in (Inner(steps=8), Inner(steps=8, batch=3)):
        steps = torch.stack(list(batches(12, inner, KEYS[:3], count=count, choices=3)))
        for t in range(3):
            images = steps[:, t] // 3
            own = steps[:, t][images < count[t] // 3]
            assert (own < count[t]).all()
            assert (steps[:, t][images >= count[t] // 3] >= count[t]).all()
            unpadded = list(batches(int(count[t]), inner, KEYS[t : t + 1], choices=3))
            assert torch.equal(torch.cat(unpadded).flatten(), own)


# --- as a plain loop ---


def plain_mlp(start):
    """A `torch.nn` network with the drawn weights of one task."""
    layers = nn.Sequential(nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 3))
    for i, layer in enumerate((layers[0], layers[2])):
        layer.weight.data = start[f"w{i}"][0].clone()
        layer.bias.data = start[f"b{i}"][0, 0].clone()
    return layers


@augments
@sizes
@trainings
def test_a_perceptron_in_the_span_trains_as_a_plain_network_does(
    opened, float64, augment, size, training
):
    episodes = opened(augment, size)
    inner = TRAININGS[training]
    tasks = episodes.sample(KEYS)
    assert sharing_saves_work(episodes, inner, 100), "the form in the span is what is tested"
    found = seen(CrossEntropies.of(1), episodes, tasks, inner=inner)[0, 0]
    for t in range(T):
        one = tasks[t : t + 1]
        own = int(one.train.count) if one.train.count is not None else one.train.rows.shape[1]
        x, y = one.train.x()[0].flatten(1)[:own], one.train.target[0, :own].double()
        choices = 1 if augment == "all versions" else 3
        indices = list(batches(own, inner, STARTS[t : t + 1], choices=choices))
        network = plain_mlp(episodes.model.bind(one, STARTS[t : t + 1]).start)
        optimiser = torch.optim.SGD(
            network.parameters(), inner.lr, inner.momentum, weight_decay=inner.weight_decay
        )
        for index in indices:
            rows = torch.arange(own) if index is None else index[0]
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
        with torch.no_grad():
            logp = network(one.val.x()[0].flatten(1)).log_softmax(-1)
        expected = logp.gather(1, one.val.label[0][:, None])[:, 0]
        # Images are float64 here, the versions' pixels float32.
        torch.testing.assert_close(found[t, :, 2], expected.to(found), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["ce", "mln", "targets", "taylor", "tree"])
@classifiers
@augments
def test_all_forms_of_training_agree_with_a_training_on_the_rows_alone(
    opened, augment, classifier, kind
):
    """What the engine does, chunk by chunk in its own form, and `evaluate` of the plain classifier
    on one task without padding."""
    episodes = opened(augment, "uneven", classifier)
    tasks = episodes.sample(KEYS)
    together = seen(losses_of(kind), episodes, tasks)
    for t in range(T):
        one = tasks[t : t + 1]
        one = Tasks(one.train.cut(int(one.train.count)), one.val, one.classes)
        expected = evaluate(
            losses_of(kind),
            episodes.model,
            episodes.model.bind(one, STARTS[t : t + 1]),
            one,
            inner=episodes.family.inner,
            keys=STARTS[t : t + 1],
            block=6,
            metric=predictions,
        )
        torch.testing.assert_close(together[:, :, t : t + 1], expected, rtol=1e-3, atol=1e-4)


# --- whatever is beside it ---


@augments
@sizes
@classifiers
def test_tasks_beside_it_do_not_matter_bit_for_bit(opened, augment, size, classifier):
    episodes = opened(augment, size, classifier)
    losses = losses_of("mln")
    keys = [Stream(0).at("task", t) for t in range(40)]
    count = episodes.sample(keys).train.count
    large = range(40) if count is None else [t for t in range(40) if int(count[t]) > 8 * 3]
    others = list(large)[:4]
    small = [t for t in range(40) if t not in others][:2]
    results = []
    for first in small:
        chosen = [first, *others]
        starts = [Stream(0).at("init", t) for t in chosen]
        tasks = episodes.sample([keys[t] for t in chosen])
        results.append(seen(losses, episodes, tasks, starts, TRAININGS["minibatches"]))
    assert torch.equal(results[0][:, :, 1:], results[1][:, :, 1:])


@augments
def test_what_pads_a_task_does_not_matter_bit_for_bit(opened, augment):
    episodes = opened(augment, "uneven")
    tasks = episodes.sample(KEYS)
    train = tasks.train
    padding = train.weight == 0
    assert padding.any()
    rows = train.rows.where(~padding, train.rows.max())
    label = train.label.where(~padding, 2)
    other = replace(tasks, train=replace(train, rows=rows, label=label))
    for inner in TRAININGS.values():
        assert torch.equal(
            seen(losses_of("mln"), episodes, tasks, inner=inner),
            seen(losses_of("mln"), episodes, other, inner=inner),
        )


@sizes
def test_the_number_of_workers_does_not_matter(opened, size):
    episodes = opened(size=size)
    tasks = episodes.sample(KEYS)
    results = []
    for workers in (1, 3):
        with Local(memory=60_000, workers=workers) as engine:
            results.append(engine.score(losses_of("mln"), episodes, tasks, STARTS))
    assert torch.equal(*results)


# --- what is measured, and what it takes ---


def test_training_accuracy_is_that_of_all_versions_of_a_task_s_own_images(opened):
    episodes = opened(size="uneven")
    tasks = episodes.sample(KEYS)
    found = seen(losses_of("ce"), episodes, tasks, observer=progress)
    for t in range(T):
        one = tasks[t : t + 1]
        one = Tasks(one.train.cut(int(one.train.count)), one.val, one.classes)
        expected = seen(losses_of("ce"), episodes, one, STARTS[t : t + 1], observer=progress)
        torch.testing.assert_close(found[:, :, t : t + 1], expected)


def test_losses_that_read_shares_or_a_whole_batch_train_on_versions(opened):
    episodes = opened("mixed", "uneven")
    tasks = episodes.sample(KEYS)
    for spec in ("logit_adjustment(tau=1)", "nce_rce", "soft_f1", "dice"):
        assert seen(loss_io.load(spec).losses(), episodes, tasks).isfinite().all()


def test_versions_change_what_is_learned_and_validation_images_stay_as_they_are(opened, open_tiny):
    episodes = opened()
    plain = open_tiny(val=2, classifier=CLASSIFIERS["mlp"])
    tasks, others = episodes.sample(KEYS), plain.sample(KEYS)
    assert torch.equal(tasks.val.x(), others.val.x())
    inner = TRAININGS["all images"]
    found, without = (
        seen(losses_of("ce"), e, t, inner=inner) for e, t in ((episodes, tasks), (plain, others))
    )
    assert not torch.equal(found, without)


def test_plans_count_the_versions(opened, open_tiny):
    plain = open_tiny(val=2, classifier=CLASSIFIERS["mlp"])
    inner = plain.family.inner
    memory = 400_000
    trainings = [
        plan.candidates * plan.tasks
        for episodes in (plain, opened(), opened("all versions"))
        for plan in [plan_chunks(episodes, inner, 1000, 1, memory)]
    ]
    assert trainings[0] > trainings[1] > trainings[2]
    # All versions of an image take what so many images take.
    assert trainings[2] == pytest.approx(trainings[0] / 3, rel=0.1)


def test_the_form_in_the_span_is_left_where_versions_make_it_dearer(opened, open_tiny):
    plain = open_tiny(shots=4, val=2, classifier=CLASSIFIERS["mlp"])
    many = open_tiny(shots=4, val=2, classifier=CLASSIFIERS["mlp"], augment={**SHIFT, "copies": 40})
    assert sharing_saves_work(plain, Inner(), 100)
    assert not sharing_saves_work(many, Inner(), 100)
