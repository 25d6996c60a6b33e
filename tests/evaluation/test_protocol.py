import pytest
import torch

from metaloss.evaluation.tuning import best_setting
from metaloss.inner.loop import Inner
from metaloss.tasks.step_counts import training_lengths


@pytest.mark.parametrize(
    ("schedule", "trainings"),
    [("constant", [(20, 40)]), ("cosine", [(20,), (40,)]), ("linear", [(20,), (40,)])],
)
def test_one_training_shows_its_beginnings_only_at_a_constant_rate(schedule, trainings):
    assert training_lengths(Inner(schedule=schedule), (20, 40)) == trainings


def test_the_best_setting_has_the_highest_mean_and_never_a_failure():
    score = torch.tensor([[[0.5, 0.5], [0.6, 0.8]], [[0.9, torch.nan], [0.7, 0.6]]])  # [M R T]
    assert best_setting(score) == (0, 1)
    assert best_setting(torch.full((2, 2, 2), torch.nan)) == (0, 0)
    assert best_setting(score[:, :1]) == (0, 0)
    assert best_setting(score[1:]) == (0, 1)
