"""Halving chooses as one does where every setting goes on; a loss is blind to the others."""

import pytest
import torch

import metaloss
from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation import halving
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.variants import tune_variants

RATES = (0.05, 0.5, 5.0)
SPECS = ("label_smoothing(alpha=0.1)", "label_smoothing(alpha=0.9)")
OF_LOSSES = [
    {spec: metaloss.load(spec).losses() for spec in SPECS},
    {"": metaloss.load("mse").losses()},
]


@pytest.fixture
def evaluation(open_tiny):
    with Local(workers=1) as engine:
        yield FamilyEvaluation(engine, open_tiny(), Stream(4))


def test_where_all_settings_go_on_it_is_the_search_of_the_whole_grid(evaluation, monkeypatch):
    monkeypatch.setattr(halving, "ROUNDS", ((2, 1), (1, 1)))
    found = halving.tune_by_halving(evaluation, OF_LOSSES, RATES, 4, 6)
    whole = tune_variants(lambda x: evaluation.tune(x, RATES, 4, (6,)), OF_LOSSES)
    assert [x.setting for x in found] == [x.setting for x in whole]


def test_settings_that_fail_on_the_first_tasks_do_not_go_on(evaluation):
    grid = [halving._Pair("", lr) for lr in RATES]
    scores = {grid[0]: torch.tensor([0.4]), grid[1]: torch.tensor([torch.nan])}
    scores[grid[2]] = torch.tensor([0.9])
    assert halving._best(grid, scores, 2) == [grid[0], grid[2]]
    alone, *_ = halving.tune_by_halving(evaluation, OF_LOSSES[:1], RATES, 4, 6)
    beside, *_ = halving.tune_by_halving(evaluation, OF_LOSSES, RATES, 4, 6)
    assert alone.setting == beside.setting
    assert alone.setting.spec in SPECS


def test_few_settings_are_left_for_most_tasks(evaluation, monkeypatch):
    trained = []
    scores = halving._scores

    def counted(of, losses, pairs, tasks, steps):
        trained.append(sum(map(len, pairs)) * len(tasks))
        return scores(of, losses, pairs, tasks, steps)

    monkeypatch.setattr(halving, "_scores", counted)
    halving.tune_by_halving(evaluation, OF_LOSSES, RATES, 16, 2)
    assert trained == [2 * 9, 2 * (2 + 2), 12 * (2 + 2)]
    assert sum(trained) == sum(halving.halving_trainings(n, 16) for n in (6, 3))
