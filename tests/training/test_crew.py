"""A crew's results come in the order of the jobs, and a stop ends the trainings in hand."""

import time

import pytest

from metaloss.errors import Interrupted
from metaloss.losses import CrossEntropies
from metaloss.streams import Stream
from metaloss.training.crew import Crew, Job


class Family:
    def __init__(self, first):
        self.first = first

    def attempt(self, job, stop):
        while job.steps == 0 and not stop():
            time.sleep(0.01)
        return self.first + job.lr if job.lr < 9 else ValueError("too high")


def jobs(*rates, steps=1):
    return [Job(CrossEntropies.of(1), "train", Stream(0), lr, steps) for lr in rates]


def test_results_are_ordered_failures_come_back_and_a_stop_is_heard():
    crew = Crew(1, Family, (1.0,))
    with crew.executor:
        found = crew.run(jobs(0.5, 9.0, 0.25), lambda: False)
        assert found[::2] == [1.5, 1.25]
        assert isinstance(found[1], ValueError)
        with pytest.raises(Interrupted):
            crew.run(jobs(0.5, 0.5, steps=0), lambda: True)
        assert crew.run(jobs(2.0), lambda: False) == [3.0], "it works on after a stop"
