"""What is left open fits the number of training images; what is given stays."""

import pytest

from metaloss.errors import SettingsError
from metaloss.training.defaults import decided
from metaloss.training.schedule import make_schedule
from metaloss.training.settings import protocol, protocols, resolve


@pytest.mark.parametrize("images", [45_000, 54_000])
def test_large_data_get_batches_of_128_ten_epochs_and_the_whole_rate(images):
    chosen = decided(resolve({}), images)
    assert (chosen.batch, chosen.epochs, chosen.steps, chosen.lr) == (128, 10, None, 0.1)


def test_the_course_of_large_data_is_ten_passes():
    found = make_schedule(resolve({}), 54_000)
    assert (found.batch, found.epoch_steps, found.steps, found.warmup) == (128, 421, 4210, 421)


@pytest.mark.parametrize(
    ("images", "devices", "batch", "steps"),
    [
        (131, 1, 13, 300),
        (131, 2, 12, 300),
        (720, 1, 72, 300),
        (1280, 1, 128, 300),
        (13, 1, 2, 300),
        (16, 4, 8, 300),
    ],
)
def test_a_batch_is_at_most_a_tenth_and_a_training_at_least_300_steps(
    images, devices, batch, steps
):
    found = make_schedule(resolve({"devices": devices}), images)
    assert (found.batch, found.steps) == (batch, steps)


@pytest.mark.parametrize(
    ("table", "lr"),
    [
        ({}, 0.03),
        ({"steps": 4000}, 0.03),
        ({"steps": 9}, 0.03),
        ({"optimiser": "adam"}, 0.00032),
        ({"batch": 64, "steps": 4000}, 0.05),
        ({"batch": 512, "steps": 5000}, 0.1),
        ({"lr": 0.1}, 0.1),
    ],
)
def test_a_rate_follows_the_batch_below_128_and_the_length(table, lr):
    assert decided(resolve(table), 131).lr == lr


@pytest.mark.parametrize(
    ("table", "images", "features", "lr"),
    [
        ({}, 167, 64, 0.004),
        ({}, 167, 13, 0.004),
        ({}, 167, 320, 0.0018),
        ({}, 167, 1280, 0.00089),
        ({}, 2000, 1280, 0.0072),
        ({"optimiser": "adam"}, 167, 1280, 0.00035),
        ({"model": "mlp"}, 167, 1280, 0.03),
        ({"lr": 0.5}, 167, 1280, 0.5),
    ],
)
def test_a_linear_head_s_rate_falls_with_the_number_of_features(table, images, features, lr):
    assert decided(resolve({"model": "linear", **table}), images, features).lr == lr


@pytest.mark.parametrize(
    ("table", "images", "clip"),
    [
        ({}, 131, 1.0),
        ({}, 720, 1.0),
        ({}, 3840, None),
        ({}, 45_000, None),
        ({"lr": 0.03}, 131, None),
        ({"rates": [0.01, 0.03]}, 131, None),
        ({"optimiser": "adam"}, 131, None),
        ({"clip": 0.0}, 131, 0.0),
        ({"clip": 5.0}, 131, 5.0),
        ({"clip": 5.0}, 45_000, 5.0),
    ],
)
def test_gradients_are_clipped_where_the_rate_is_the_least_one(table, images, clip):
    assert decided(resolve(table), images).clip == clip


@pytest.mark.parametrize(
    "table", [{"batch": 40}, {"steps": 7}, {"epochs": 2}, {"rates": [0.1, 0.2]}, {"lr": 0.3}]
)
def test_what_is_given_stays(table):
    before = resolve(table)
    after = decided(resolve(table), 131)
    assert all(getattr(after, name) == getattr(before, name) for name in table)
    assert (after.steps is None) != (after.epochs is None)


def test_what_is_decided_is_written_down_and_stays_for_other_images():
    chosen = decided(resolve({"optimiser": "adam"}), 131)
    assert decided(resolve(chosen.table()), 54_000) == chosen


@pytest.mark.parametrize("name", protocols())
def test_a_paper_leaves_nothing_open(name):
    chosen = resolve(protocol(name))
    assert decided(chosen, 500) == chosen


def test_a_warm_up_is_held_against_the_length_that_is_decided():
    with pytest.raises(
        SettingsError, match="warmup must be below the 300 steps of this training, got 300"
    ):
        make_schedule(resolve({"warmup": 300}), 131)


@pytest.mark.parametrize(("images", "batch", "steps"), [(10, 4, 2), (10, 5, 2), (3, 128, 1)])
def test_a_pass_has_whole_batches_only(images, batch, steps):
    assert make_schedule(resolve({"batch": batch, "epochs": 1}), images).steps == steps
