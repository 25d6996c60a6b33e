"""What misleads a user is said in a line, and nothing else is."""

import math

import pytest

from metaloss.training import cautions


def test_few_images_to_validate_and_few_steps_are_said():
    assert cautions.few_images(29, 0.1).startswith(
        "29 images to validate: one answer is 3.4 points of accuracy"
    )
    assert cautions.few_images(0, 0.0) is None, "nothing is chosen on none"
    assert cautions.few_steps(49).startswith("49 steps are few")
    assert cautions.few_images(30, 0.1) is cautions.few_steps(50) is None


@pytest.mark.parametrize(
    "text",
    [
        lambda share: cautions.few_images(20, share),
        lambda share: cautions.few_for_thresholds({"a": 2}, share),
    ],
)
def test_a_share_that_is_held_out_already_is_not_advised(text):
    assert "--set validation=0.3 holds out more" in text(0.1)
    for share in (0.3, 0.5):
        assert "--set validation" not in text(share)
        assert "more images are what helps" in text(share)


def test_without_validation_the_training_loss_is_watched():
    record = {"train_loss": 99.0, "first_loss": 2.0, "epoch": 3}
    text = cautions.exploded(record, 10, 0.5)
    assert "the training loss is 99 after epoch 3" in text
    assert cautions.exploded({**record, "train_loss": 2.5}, 10, 0.5) is None


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (2.3, 2.4, False),
        (2.3, 25.0, False),
        (2.3, 26.0, True),
        (2.3, math.inf, True),
        (2.3, math.nan, True),
        (1e-3, 10.0, False),
        (1e-3, 24.0, True),
        (-2.0, -9.0, False),
        (-2.0, 30.0, True),
    ],
)
def test_a_loss_far_above_that_of_the_first_step_has_exploded(first, last, said):
    record = {"epoch": 3, "val_loss": last, "first_loss": first}
    text = cautions.exploded(record, classes=10, rate=0.1)
    assert (text is not None) == said
    assert text is None or ("after epoch 3" in text and "the rate 0.1 is probably too high" in text)


def test_one_answer_to_everything_is_named():
    assert cautions.one_answer([None, None]) is None is cautions.one_answer([])
    text = cautions.one_answer(["coat", None, "shirt"])
    assert text.startswith(
        "in 2 of 3 trainings the answer to every test image is the same class ('coat', 'shirt')"
    )
