"""Scores are how much better than a failure; what is shown is the metric's own value."""

import pytest

from metaloss.core.metric_scale import ACCURACY, MetricScale

COST = MetricScale("cost", "cost", maximise=False, in_percent=False, failed=5.0, guess=2.0)
KAPPA = MetricScale("kappa", "quadratic kappa", in_percent=False, failed=-1.0)


@pytest.mark.parametrize("scale", [ACCURACY, COST, KAPPA], ids=lambda scale: scale.kind)
def test_more_is_better_of_a_score_and_a_failure_is_0(scale):
    assert scale.score(scale.failed) == 0
    better = scale.failed + (0.5 if scale.maximise else -0.5)
    assert scale.score(better) == 0.5
    assert scale.value(scale.score(0.25)) == 0.25


def test_the_score_of_accuracy_is_the_accuracy_itself_and_no_file_names_it():
    assert ACCURACY.value(0.1234) == ACCURACY.score(0.1234) == 0.1234
    assert ACCURACY.entry() == {}
    assert MetricScale.of({}) == ACCURACY
    assert MetricScale.of({"x": 1, **COST.entry()}) == COST


def test_differences_are_shown_in_the_metrics_own_sign():
    gain = {"mean": 0.5, "low": 0.25, "high": 1.0, "tasks": 3}
    assert ACCURACY.difference(gain) == gain
    turned = COST.difference(gain)
    assert turned == {"mean": -0.5, "low": -1.0, "high": -0.25, "tasks": 3}
    versus = {"verdict": "better", "gain": turned, "low": -1.25, "high": -0.125}
    assert COST.verdict(versus) == "better, paired -0.500 [-1.250, -0.125]"


def test_accuracy_stands_beside_another_metric():
    row = {"cost": 0.5, "accuracy": 0.8, "classes": 10}
    assert COST.tested(row) == "cost 0.500 (accuracy 80.0 %)"
    assert ACCURACY.tested({"accuracy": 0.1, "classes": 10}).endswith("10 classes, 10.0 %)")


def test_no_difference_of_a_cost_has_no_minus_sign():
    none = COST.difference({"mean": 0.0, "low": 0.0, "high": 0.0})
    assert COST.interval(none) == "0.000 [0.000, 0.000]"


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert ACCURACY.interval({"mean": -0.0004, "low": -0.005, "high": 0.0004}) == "0.0 [-0.5, 0.0]"
    small = {"mean": 0.0004, "low": -0.0004, "high": 0.0006}
    assert KAPPA.interval(small) == "0.000 [0.000, +0.001]"


def test_what_is_lost_is_not_called_a_gain():
    assert ACCURACY.change(-0.083) == "loses 8.3 points"
    assert ACCURACY.change(0.083) == "gains 8.3 points"
    assert ACCURACY.change(-0.0004) == "gains 0.0 points"
    assert KAPPA.change(-0.25) == "loses 0.250"
