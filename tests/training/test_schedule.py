"""The learning rate follows its schedule."""

import math

import pytest

from metaloss.errors import SettingsError
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import resolve


def scales(images=64, losses=(), **table):
    found = make_schedule(
        resolve({"batch": 16, **table}), images
    )  # 4 steps are a pass over 64 images
    return [found.scale(step, losses) for step in range(found.steps)]


def test_one_cycle_goes_up_along_a_line_and_down_along_half_a_cosine():
    found = scales(steps=10, warmup=4)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:] == pytest.approx([(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])


def test_the_warm_up_is_a_tenth_unless_given():
    assert make_schedule(resolve({"steps": 200}), 64).warmup == 20


def test_a_step_schedule_falls_every_few_epochs():
    assert scales(schedule="step", epochs=4, every=2, factor=0.5) == [1.0] * 8 + [0.5] * 8


def test_a_constant_rate_is_constant():
    assert scales(schedule="constant", epochs=2) == [1.0] * 8


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((), 1.0),
        ((3, 2, 2), 1.0),
        ((3, 2, 2, 2), 0.1),
        ((3, 2, 2, 2, 2), 0.1),
        ((3, 2, 2, 2, 2, 2), 0.01),
        ((3, 2, 2, 1, 2), 1.0),
        ((math.nan, math.nan), 0.1),
    ],
)
def test_a_plateau_lowers_the_rate_after_epochs_without_a_lower_loss(losses, expected):
    found = make_schedule(resolve({"schedule": "plateau", "every": 2, "factor": 0.1}), 64)
    assert found.scale(0, [float(x) for x in losses]) == pytest.approx(expected)


def test_a_last_epoch_may_be_shorter():
    found = make_schedule(resolve({"steps": 10, "epoch_steps": 4}), 64)
    assert (found.steps, found.epochs) == (10, 3)
    assert make_schedule(resolve({"epochs": 3, "epoch_steps": 5}), 64).steps == 15


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(
        SettingsError, match="warmup must be below the 8 steps of this training, got 8"
    ):
        scales(epochs=2, warmup=8)
