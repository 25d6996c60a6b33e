"""A shorter training is the beginning of a longer one, but not where its end makes a difference."""

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting, steps_of_tuning
from metaloss.inner.loop import Inner
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.step_counts import shared_trainings, step_grid, training_lengths

CE = CrossEntropies.of(1)
CLOCK = Formulas.of([Formula.parse("-y*logp*(2 - 2*t)")])
KEY = Stream(0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [((5, 9), [0, 2]), ((5,), [1]), ((9,), [1])]),
        ("cosine", [((5,), [0, 1, 2]), ((9,), [0, 1, 2])]),
    ],
)
def test_losses_that_see_the_clock_train_each_number_of_steps_by_itself(schedule, expected):
    inner = Inner(schedule=schedule)
    lengths = [training_lengths(inner, (5, 9), x) for x in (CE, CLOCK, CE)]
    assert shared_trainings(lengths) == expected


def test_tuning_of_steps_costs_such_a_loss_all_of_them():
    inner = Inner()
    assert steps_of_tuning(inner) == max(step_grid(inner))
    assert steps_of_tuning(inner, clock=True) == sum(step_grid(inner))


@pytest.fixture
def lengths(monkeypatch):
    """The numbers of steps of all trainings, and of how many losses."""
    seen = []
    trainings = Episodes.trainings

    def noted(self, populations, *args, steps, **more):
        seen.append((steps, len(populations)))
        return trainings(self, populations, *args, steps=steps, **more)

    monkeypatch.setattr(Episodes, "trainings", noted)
    return seen


def test_what_is_reached_after_some_steps_is_that_of_a_training_of_so_many(open_tiny, lengths):
    episodes = open_tiny()
    with Local(workers=1) as engine:

        def reached(losses, steps):
            found = episodes.evaluate(engine, losses, "test", KEY, range(2), steps=steps)
            return [torch.nan_to_num(x) for x in found]

        ce, clock = reached([CE, CLOCK], (2, 6))
        assert lengths == [((2, 6), 1), ((2,), 1), ((6,), 1)]
        for row, steps in enumerate((2, 6)):
            for losses, found in ((CE, ce), (CLOCK, clock)):
                assert torch.equal(reached([losses], (steps,))[0][0], found[row])


def test_a_learning_curve_of_such_a_loss_has_a_training_for_every_point(open_tiny, lengths):
    episodes = open_tiny()
    with Local(workers=1) as engine:
        evaluation = EpisodeEvaluation(engine, episodes, KEY)
        setting = Setting(0.1, episodes.steps)
        moments, (clock, ce) = evaluation.curves([CLOCK, CE], [setting, setting], 2)
        assert sorted(lengths) == sorted([(moments, 1), *(((n,), 1) for n in moments)])
        assert clock.shape == ce.shape == (len(moments), 2, 2)
        _, (alone,) = evaluation.curves([CE], [setting], 2)
        assert torch.equal(alone, ce)
