import pytest
import torch

from metaloss.evaluation.tuning import Tuned, best_setting, spread_of
from metaloss.inner.loop import Inner
from metaloss.losses.base import CrossEntropies
from metaloss.tasks.step_counts import training_lengths


@pytest.mark.parametrize(
    ("schedule", "trainings"),
    [("constant", [(20, 40)]), ("cosine", [(20,), (40,)]), ("linear", [(20,), (40,)])],
)
def test_one_training_shows_its_beginnings_only_at_a_constant_rate(schedule, trainings):
    assert training_lengths(Inner(schedule=schedule), (20, 40), CrossEntropies.of(1)) == trainings


def test_the_best_setting_has_the_highest_mean_and_never_a_failure():
    score = torch.tensor([[[0.5, 0.5], [0.6, 0.8]], [[0.9, torch.nan], [0.7, 0.6]]])  # [M R T]
    assert best_setting(score) == (0, 1)
    assert best_setting(torch.full((2, 2, 2), torch.nan)) == (0, 0)
    assert best_setting(score[:, :1]) == (0, 0)
    assert best_setting(score[1:]) == (0, 1)


# --- the unit of gains ---

# [R T]: of four rates, not in order; the best is 0.2.
GRID = torch.tensor(
    [[0.50, 0.70, 0.60], [0.60, 0.76, 0.80], [0.0, 0.0, torch.nan], [0.61, 0.79, 0.76]]
)
GRID_RATES = (0.1, 0.2, 3.0, 0.3)


def test_a_kinds_unit_is_what_the_nearer_of_the_neighbouring_rates_changes():
    changes = torch.tensor([0.01, 0.03, -0.04], dtype=torch.float64)
    assert spread_of(GRID, GRID_RATES, 1, 0.0) == pytest.approx(float(changes.std()), rel=1e-5)
    tuned = Tuned.best(CrossEntropies.of(1), GRID[None], GRID_RATES, (20,), 0.0)
    assert (tuned.lr, tuned.spread) == (0.2, spread_of(GRID, GRID_RATES, 1, 0.0))


def test_how_unlike_tasks_are_is_no_part_of_it():
    harder = GRID - torch.tensor([0.0, 0.3, 0.5])
    assert spread_of(harder, GRID_RATES, 1, 0.0) == pytest.approx(
        spread_of(GRID, GRID_RATES, 1, 0.0), rel=1e-5
    )


def test_a_rate_at_which_a_training_failed_is_no_neighbour():
    lower = (GRID[1] - GRID[3]).double()
    assert spread_of(GRID, GRID_RATES, 3, 0.0) == pytest.approx(float(lower.std()), rel=1e-5)


def test_without_another_rate_the_unit_is_the_deviation_of_the_scores():
    own = GRID[1:2]
    assert spread_of(own, (0.2,), 0, 0.0) == pytest.approx(float(own.double().std()), rel=1e-5)


def test_the_unit_is_never_below_a_quarter_of_what_is_negligible():
    level = torch.full((3, 4), 0.5)
    assert spread_of(level, (0.1, 0.2, 0.3), 1, 0.02) == pytest.approx(0.005)
