"""A crew's results come as they end, each with its job, and a stop ends the trainings in hand."""

import time

import pytest

from metaloss.core.streams import Stream
from metaloss.errors import Interrupted
from metaloss.losses.base import CrossEntropies
from metaloss.tasks.worker_pool import TrainingRequest, WorkerPool


class Family:
    def __init__(self, first):
        self.first = first

    def attempt(self, job, stop):
        while job.steps == 0 and not stop():
            time.sleep(0.01)
        return self.first + job.lr if job.lr < 9 else ValueError("too high")


def jobs(*rates, steps=1):
    return [TrainingRequest(CrossEntropies.of(1), "train", Stream(0), lr, steps) for lr in rates]


def test_each_job_has_its_result_failures_come_back_and_a_stop_is_heard():
    crew = WorkerPool(1, Family, (1.0,))
    asked = jobs(0.5, 9.0, 0.25)
    with crew.executor:
        found = dict(crew.run(asked, lambda: False))
        assert [found[job] for job in asked[::2]] == [1.5, 1.25]
        assert isinstance(found[asked[1]], ValueError)
        with pytest.raises(Interrupted):
            list(crew.run(jobs(0.5, 0.5, steps=0), lambda: True))
        told = []
        with pytest.raises(Interrupted):  # noqa: PT012 - what came before the stop is wanted
            for _, result in crew.run([*jobs(0.5), *jobs(0.5, steps=0)], lambda: bool(told)):
                told.append(result)
        assert told == [1.5], "what ended before the stop"
        assert [x for _, x in crew.run(jobs(2.0), lambda: False)] == [3.0], (
            "it works on after a stop"
        )
