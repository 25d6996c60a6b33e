"""A criterion that sees what was predicted for an image before, and what is written of it."""

import copy
import pickle

import pytest
import torch
from test_export import written

import metaloss
from metaloss.criterion.export import export
from metaloss.errors import SettingsError
from metaloss.losses.past import KEPT

SPECS = (
    "-(.7*y + .3*past)*logp",
    "mean(square(p - past) - y*logp, temperature=2)",
    "-y*logp*past",  # of the label's own class alone
)
specs = pytest.mark.parametrize("spec", SPECS)
INDEX = torch.tensor([4, 0, 7, 2, 1, 5])


def situation():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(6) % 4


def with_past(spec, logits, label, past):
    """The mean of the values where `past` is written as numbers, class by class."""
    soft = torch.nn.functional.one_hot(label, 4).float()
    divisor = 4 if spec.startswith("mean") else 1
    logp = (logits / (2 if "temperature" in spec else 1)).log_softmax(-1)
    p = logp.exp()
    terms = {
        SPECS[0]: -(0.7 * soft + 0.3 * past) * logp,
        SPECS[1]: (p - past) ** 2 - soft * logp,
        SPECS[2]: -soft * logp * past,
    }[spec]
    return terms.sum(-1).mean() / divisor


@specs
@pytest.mark.parametrize("form", ["module", "file", "folder"])
def test_it_sees_the_running_mean_of_each_image(spec, form, tmp_path):
    logits, label = situation()
    loss = metaloss.load(spec)
    if form == "file":
        loss = written(loss, tmp_path / "loss.py")
    if form == "folder":
        export(loss, tmp_path / "shared" / "loss.json")
        loss = metaloss.load(tmp_path / "shared")
    past = torch.full((8, 4), 0.25)
    torch.testing.assert_close(loss(logits, label), with_past(spec, logits, label, past[:6]))
    assert loss.remember(8, 4) is loss
    for step in range(3):
        z = logits.roll(step, -1) * (step + 1)
        torch.testing.assert_close(loss(z, label, INDEX), with_past(spec, z, label, past[INDEX]))
        past[INDEX] = KEPT * past[INDEX] + (1 - KEPT) * z.softmax(-1)
        torch.testing.assert_close(loss.past, past)
    # Measured, it reads no past, and remembers nothing.
    measured = loss.eval()(logits, label)
    torch.testing.assert_close(measured, with_past(spec, logits, label, torch.full((6, 4), 0.25)))
    torch.testing.assert_close(loss.past, past)


@specs
def test_no_gradient_goes_through_the_past(spec):
    logits, label = situation()
    loss = metaloss.load(spec).remember(8, 4)
    loss(3 * logits, label, INDEX)
    past = loss.past[INDEX].clone()
    z = logits.clone().requires_grad_()
    (ours,) = torch.autograd.grad(loss(z, label, INDEX), z)
    (expected,) = torch.autograd.grad(with_past(spec, z, label, past), z)
    torch.testing.assert_close(ours, expected)


def test_what_is_missing_is_said():
    logits, label = situation()
    loss = metaloss.load(SPECS[0])
    assert "loss.remember(images, classes)" in loss.past_note
    loss.remember(8, 4)
    with pytest.raises(ValueError, match="index must be the numbers of the images"):
        loss(logits, label)
    with pytest.raises(ValueError, match=r"got torch.int64 \(2,\) for logits \(6, 4\)"):
        loss(logits, label, INDEX[:2])
    with pytest.raises(ValueError, match="remembers 4 classes, and the logits have 5"):
        loss(torch.zeros(6, 5), label, INDEX)
    with pytest.raises(ValueError, match=r"and logits \[N, C\]"):
        loss(torch.zeros(6, 4, 2), torch.zeros(6, 2, dtype=torch.int64), INDEX)
    with pytest.raises(ValueError, match=r"got torch.bool \(6,\)"):
        loss(logits, label, INDEX.bool())
    for number in (-1, 8):
        with pytest.raises(ValueError, match=f"remembers 8 images, .* index has {number}"):
            loss(logits, label, torch.full((6,), number))
    assert torch.equal(loss.past, torch.full((8, 4), 0.25))


@pytest.mark.parametrize("number", [0, -1])
def test_a_memory_of_nothing_is_refused(number):
    for name, sizes in (("images", (number, 4)), ("classes", (8, number))):
        message = f"{name} must be a whole number of at least 1, got {number}"
        with pytest.raises(ValueError, match=message):
            metaloss.load(SPECS[0]).remember(*sizes)


def test_other_losses_take_no_notice():
    logits, label = situation()
    loss = metaloss.load("focal").remember(8, 4)
    assert loss.past is None
    assert not loss.past_note
    assert torch.equal(loss(logits, label, INDEX), loss(logits, label))


def test_the_past_is_a_part_of_a_checkpoint_and_of_copies():
    logits, label = situation()
    loss = metaloss.load(SPECS[0]).remember(8, 4)
    loss(logits, label, INDEX)
    fresh = metaloss.load(SPECS[0]).remember(8, 4)
    fresh.load_state_dict(loss.state_dict())
    for other in (fresh, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(
            other(logits, label, INDEX),
            loss.__class__.forward(copy.deepcopy(loss), logits, label, INDEX),
        )
    # Options give a loss that remembers nothing.
    assert loss.with_options(reduction="none").past is None


def test_a_program_is_refused_for_it(tmp_path):
    with pytest.raises(SettingsError, match=r"no memory .*loss\.py can hold this loss"):
        export(metaloss.load(SPECS[0]), tmp_path / "loss.pt2")


def test_the_gain_is_that_of_the_first_step():
    loss = metaloss.load("-y*logp*past").remember(8, 4)
    loss(*situation(), INDEX)
    assert loss.gain(4) == pytest.approx(0.25)
