import math

import pytest

from metaloss.training.measurement import Measurement
from metaloss.training.targets import CLASSIFICATION, SEGMENTATION, target_of

TARGETS = pytest.mark.parametrize("target", [CLASSIFICATION, SEGMENTATION])


@TARGETS
def test_a_failed_training_has_every_metric_of_its_target_and_none_is_a_number(target):
    scores = target.scores(None, ("cat", "dog"))
    assert all(math.isnan(scores[metric.key]) for metric in target.metrics)
    assert scores["only_answer"] is None
    assert target.metric in target.metrics


@TARGETS
def test_what_is_shown_while_training_is_measured_there(target):
    measured = Measurement(0.5, 0.75, 0.7, iou=0.6)
    assert all(0 < getattr(measured, key) < 1 for key, _ in target.progress)
    # Accuracy and F1 are in every epoch's record; what else is shown must be added to it.
    assert {key for key, _ in target.progress} <= {"accuracy", "f1", *target.epoch_metrics}


@TARGETS
def test_a_result_tells_what_was_labelled(target):
    assert target_of(target.scores(None, ("cat", "dog"))) is target
    assert target_of(dict.fromkeys((f"val_{key}" for key, _ in target.progress), 0.5)) is target


def test_only_answer_is_a_class_by_name():
    measured = Measurement(0.5, 0.75, 0.7, answered=(0, 8))
    assert CLASSIFICATION.scores(measured, ("cat", "dog"))["only_answer"] == "dog"
