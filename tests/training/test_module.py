"""The loop trains as a bare PyTorch loop does, resumes to the same bits, stops at a NaN loss."""

import math

import pytest
import torch
from torch import nn

import metaloss
from metaloss import storage
from metaloss.core.streams import Stream
from metaloss.data.augmentations import mixed, raw
from metaloss.errors import DamagedFile, Interrupted, MetalossError, SettingsError
from metaloss.training import module
from metaloss.training.images import in_memory
from metaloss.training.losses import at_last_step
from metaloss.training.measurement import measure
from metaloss.training.models import ImageClassifier, NetworkShape, seeded
from metaloss.training.module import train
from metaloss.training.sampling import batch_order
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import resolve
from metaloss.training.spec import EpochBatches, TrainingSpec

KEY = Stream(0).at("train")
CLOCK = "-y*logp*(2 - t)*logn"  # of a loss that sees how far the training is
PAST = "-(.5*y + .5*past)*logp"  # of one that sees what was predicted for an image before


@pytest.fixture
def setting(shapes, network, monkeypatch):
    """Makes a plan and a classifier that is always the same; keeps a checkpoint every epoch."""
    monkeypatch.setattr(module, "PAUSE", 0.0)

    how = {}

    def made(lr=0.1, make=network, **table):
        chosen = resolve({"batch": 16, "epochs": 3, **table})
        material = in_memory(shapes, chosen, torch.device("cpu"))
        rows = material.shares.train
        spec = TrainingSpec(
            chosen, material, rows, make_schedule(chosen, len(rows)), lr, KEY, **how
        )
        shape = NetworkShape(1, (12, 12), 4)
        return ImageClassifier(
            seeded(make, Stream(1)), shape, material.mean, material.std, repeat=False
        ), spec

    made.how = how
    return made


def state(classifier):
    return [x.clone() for x in classifier.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def with_dropout():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)
    )


def bare(classifier, spec, loss):
    """The same training, written down plainly."""
    chosen = spec.settings
    sgd = torch.optim.SGD(
        classifier.parameters(), lr=spec.lr, momentum=chosen.momentum, nesterov=chosen.nesterov
    )
    rows = batch_order(spec.rows, chosen.batch, spec.key, 0, spec.schedule.steps).split(
        chosen.batch
    )
    classifier.train()
    for step, some in enumerate(rows):
        torch.manual_seed(KEY.at("step", step).generator().initial_seed())
        images = raw(spec.images.source.pixels[some], chosen.augment)
        labels = spec.images.source.labels[some]
        ready, target = mixed(classifier.normalise(images), labels, 4, chosen.augment)
        sgd.zero_grad()
        loss(classifier.network(ready), target).backward()
        if chosen.clip:
            gradients = [x.grad for x in classifier.parameters()]
            length = sum(x.double().square().sum() for x in gradients).sqrt()
            for gradient in gradients:
                gradient.mul_(min(1.0, chosen.clip / float(length)))
        sgd.param_groups[0]["lr"] = spec.lr * spec.schedule.scale(step, [])
        sgd.step()


@pytest.mark.parametrize("augment", ["none", "all"])
def test_it_is_the_bare_loop_to_the_bit(setting, augment):
    table = {"augment": {"kind": augment, "pad": 1, "patch": 3}}
    ours, spec = setting(make=with_dropout, **table)
    theirs, _ = setting(make=with_dropout, **table)
    before = torch.get_rng_state()
    train(ours, metaloss.load("ce"), spec)
    assert torch.equal(torch.get_rng_state(), before)
    bare(theirs, spec, metaloss.load("ce"))
    assert same(state(ours), state(theirs))


def test_a_loss_that_sees_the_clock_is_told_at_every_step(setting):
    ours, spec = setting()
    theirs, _ = setting()
    loss, same_loss = metaloss.load(CLOCK), metaloss.load(CLOCK)
    steps = spec.schedule.steps
    train(ours, loss, spec)
    assert loss.clock.tolist() == pytest.approx([(steps - 1) / steps, math.log(steps)])
    count = iter(range(steps))

    def next_loss(logits, target):
        return same_loss.at(next(count), steps)(logits, target)

    bare(theirs, spec, next_loss)
    assert same(state(ours), state(theirs))
    assert at_last_step(metaloss.load(CLOCK), steps).clock.tolist() == loss.clock.tolist()


def test_a_loss_that_sees_the_past_is_told_which_images_a_batch_has(setting):
    (ours, spec), (theirs, _) = setting(epochs=4), setting(epochs=4)
    found = metaloss.load(PAST)
    train(ours, found, spec)
    loss = metaloss.load(PAST).remember(len(spec.images.source), 4)
    order = batch_order(spec.rows, 16, spec.key, 0, spec.schedule.steps)
    rows = iter(order.split(16))

    bare(theirs, spec, lambda logits, target: loss(logits, target, next(rows)))
    assert same(state(ours), state(theirs))
    assert torch.equal(found.past, loss.past)
    assert bool((loss.past[spec.rows] != 0.25).any())
    assert bool((loss.past[spec.images.shares.validation] == 0.25).all())


def test_a_gradient_that_is_too_long_is_scaled_down(setting):
    free, clipped, theirs = (setting(make=with_dropout, clip=clip) for clip in (0.0, 0.1, 0.1))
    for classifier, spec in (free, clipped):
        train(classifier, metaloss.load("ce"), spec)
    bare(*theirs, metaloss.load("ce"))
    for ours, other in zip(state(clipped[0]), state(theirs[0]), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-4)
    assert not same(state(clipped[0]), state(free[0]))


@pytest.mark.parametrize(
    "table",
    [
        {"optimiser": "sgd"},
        {"optimiser": "adam", "schedule": "plateau", "every": 1},
        {"augment": "mixup", "steps": 13},
        {"loss": CLOCK},
        {"loss": PAST, "epochs": 6},
    ],
    ids=["sgd", "adam plateau", "mixup", "clock", "past"],
)
def test_an_interrupted_training_goes_on_to_the_same_bits(setting, tmp_path, table):
    loss = table.get("loss", "ce")
    table = {"epochs": 4, **table} if "steps" not in table else table
    whole, spec = setting(make=with_dropout, **table)
    history = train(whole, metaloss.load(loss), spec)
    calls = []
    told = []
    setting.how |= {
        "checkpoint": tmp_path / "last.ckpt",
        "stop": lambda: calls.append(0) or len(calls) == 12,
        "on_epoch": lambda record, seconds: told.append(record),
    }
    broken, spec = setting(make=with_dropout, **table)
    with pytest.raises(Interrupted):
        train(broken, metaloss.load(loss), spec)
    assert 0 < len(told) < len(history)
    del setting.how["stop"]
    resumed, spec = setting(make=with_dropout, **table)
    assert train(resumed, metaloss.load(loss), spec) == history == told
    assert same(state(resumed), state(whole))


def test_a_stop_is_heeded_while_the_validation_share_is_looked_at(setting, tmp_path):
    calls = []
    classifier, spec = setting(epochs=1)
    steps = spec.schedule.steps
    setting.how |= {"stop": lambda: calls.append(0) or len(calls) == steps + 1}
    classifier, spec = setting(epochs=1)
    with pytest.raises(Interrupted):
        train(classifier, metaloss.load("ce"), spec)


def test_an_epoch_s_record_says_what_a_look_at_the_validation_share_says(setting):
    classifier, spec = setting(epochs=2)
    history = train(classifier, metaloss.load("ce"), spec)
    found = measure(
        classifier,
        metaloss.load("ce"),
        spec.images.source.batches(spec.images.shares.validation, 3),
    )
    last = history[-1]
    assert [row["epoch"] for row in history] == [1, 2]
    assert (last["step"], last["val_accuracy"]) == (spec.schedule.steps, found.accuracy)
    assert last["val_loss"] == pytest.approx(found.loss)
    assert last["lr"] == spec.lr * spec.schedule.scale(spec.schedule.steps - 1, [])
    assert history[1]["train_loss"] < history[0]["train_loss"]


class Breaks(nn.Module):
    """A loss that is no number from its third call on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, logits, target):
        self.calls += 1
        return nn.functional.cross_entropy(logits, target) * (math.nan if self.calls >= 3 else 1.0)


def test_a_loss_that_is_no_number_stops_and_names_step_rate_and_loss(setting):
    classifier, spec = setting(lr=0.25, schedule="constant")
    with pytest.raises(
        MetalossError, match=r"the loss is nan at step 3 \(learning rate 0.25\): Breaks"
    ):
        train(classifier, Breaks(), spec)


def test_a_rate_far_too_high_stops_too(setting):
    classifier, spec = setting(lr=1e30)
    with pytest.raises(MetalossError, match="try a smaller rate"):
        train(classifier, nn.CrossEntropyLoss(), spec)


def test_a_checkpoint_that_holds_more_than_tensors_is_refused(setting, tmp_path):
    import pickle

    setting.how["checkpoint"] = tmp_path / "last.ckpt"
    (tmp_path / "written").write_bytes(pickle.dumps(Stream(0)))
    storage.seal_file(tmp_path / "written", tmp_path / "last.ckpt")
    classifier, spec = setting()
    with pytest.raises(DamagedFile, match=r"last.ckpt: not a checkpoint \("):
        train(classifier, metaloss.load("ce"), spec)


class Two(nn.Module):
    """Gives an auxiliary output while it trains."""

    def __init__(self):
        super().__init__()
        self.flat, self.main, self.aux = nn.Flatten(), nn.Linear(144, 4), nn.Linear(144, 4)

    def forward(self, x):
        x = self.flat(x)
        return (self.main(x), self.aux(x)) if self.training else self.main(x)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_auxiliary_outputs_count_with_their_weight(setting, weight):
    classifier, spec = setting(make=Two, auxiliary=weight, epochs=1)
    before = classifier.network.aux.weight.clone()
    train(classifier, metaloss.load("ce"), spec)
    assert torch.equal(classifier.network.aux.weight, before) == (weight == 0)


def test_tensorboard_that_is_missing_is_one_line(setting, tmp_path, monkeypatch):
    from lightning.pytorch import loggers

    def missing(*args, **kwargs):
        raise ModuleNotFoundError("no tensorboard")

    monkeypatch.setattr(loggers, "TensorBoardLogger", missing)
    setting.how["logs"] = tmp_path / "logs"
    classifier, spec = setting()
    with pytest.raises(SettingsError, match="pip install '"):
        train(classifier, metaloss.load("ce"), spec)


# --- several devices ---


def close(one, other):
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(one, other, strict=True))


def test_two_devices_train_as_one_and_go_on_to_the_same_bits(setting, tmp_path):
    alone, spec = setting()
    expected = train(alone, metaloss.load("ce"), spec)
    setting.how["checkpoint"] = tmp_path / "last.ckpt"
    whole, spec = setting(devices=2)
    history = train(whole, metaloss.load("ce"), spec)
    assert close(state(whole), state(alone))
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    assert [row["train_loss"] for row in history] == pytest.approx(
        [row["train_loss"] for row in expected], rel=1e-5
    )
    setting.how["on_epoch"] = lambda record, seconds: told.append(record)
    told, (resumed, spec) = [], setting(devices=2)
    assert train(resumed, metaloss.load("ce"), spec) == history
    assert told == history[-1:], "it went on from the last checkpoint"
    assert same(state(resumed), state(whole))


class BreaksElsewhere(Breaks):
    """The same, on the second device alone."""

    def forward(self, logits, target):
        value = super().forward(logits, target)
        return (
            value if torch.distributed.get_rank() else nn.functional.cross_entropy(logits, target)
        )


def test_a_loss_that_is_no_number_on_another_device_stops_all(setting):
    classifier, spec = setting(devices=2, lr=0.25, schedule="constant")
    with pytest.raises(
        MetalossError, match=r"the loss is nan at step 3 \(learning rate 0.25\): BreaksElsewhere"
    ):
        train(classifier, BreaksElsewhere(), spec)


def test_a_parameter_without_a_gradient_is_named(setting):
    classifier, spec = setting(devices=2)
    found = module.Supervised(classifier, nn.CrossEntropyLoss(), spec)
    with pytest.raises(
        SettingsError, match=r"devices: classifier\.network\.1\.weight, .* had no part in the loss"
    ):
        found.on_after_backward()


def test_the_devices_parts_make_up_the_batch(setting):
    _, spec = setting(devices=4)
    _, alone = setting()
    parts = [list(EpochBatches(spec, lambda: 2, rank)) for rank in range(4)]
    whole = list(EpochBatches(alone, lambda: 2, 0))
    for step, ((images, labels), rows) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][0][1] for part in parts]), labels)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), rows)
        assert torch.equal(spec.images.source.labels[rows], labels)


def test_logits_that_are_no_numbers_measure_as_none(setting):
    classifier, spec = setting()
    with torch.no_grad():
        classifier.network[1].weight.fill_(math.inf)
    found = measure(
        classifier,
        nn.CrossEntropyLoss(),
        spec.images.source.batches(spec.images.shares.test, 8),
    )
    assert math.isnan(found.accuracy)
    assert math.isnan(found.f1)
