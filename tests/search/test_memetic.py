"""A generation's best are refined, and enter the population where that made them better."""

import re

import pytest
import torch
from test_run_folder import SMALL, evolved, only_the_subset, without_plots

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.evolution import Scored
from metaloss.genomes._vectors import RealVectors
from metaloss.search import settings
from metaloss.search.estimate import GRADIENT_COST, gradient_trainings
from metaloss.search.memetic import RefinementStage, Refiner
from metaloss.search.objectives import mean

X = torch.tensor([[1.0, 1.0], [0.2, 0.1], [0.5, -0.5], [9.0, 9.0]])
TASKS = Stream(5)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


class Space(RealVectors):
    """Losses that are their own numbers."""

    def sample(self, n, key):
        return Vectors(torch.zeros(n, 2))

    def losses(self, population):
        return population.vectors()


def fitness(x):
    return -x.square().sum(1)


def generation(failed=()):
    score = fitness(X)[:, None].repeat(1, 3)
    score[list(failed)] = torch.nan
    family = torch.zeros(3, dtype=torch.int64)
    none = torch.zeros(len(X), dtype=torch.int64)
    return Scored(Vectors(X), score, mean(score, family, None), family, none)


def refined(scored, gradient, steps=2):
    """The generation after it, and the keys that gradients and scores were asked with."""
    asked = {"gradients": [], "scores": []}

    def gradients(population, key):
        asked["gradients"].append(key)
        return gradient(population.vectors())

    def score(losses, key):
        asked["scores"].append(key)
        return fitness(losses)[:, None].repeat(1, 3), torch.zeros(3, dtype=torch.int64)

    stage = RefinementStage(every=1, best=2, steps=steps, lr=0.05)
    refiner = Refiner(stage, Space(), gradients, score, mean, Stream(7))
    return refiner(scored, TASKS), asked


def test_the_best_go_down_their_gradients_and_take_their_own_places():
    before = generation()
    after, asked = refined(before, lambda x: 2 * x)
    x = after.population.vectors()
    assert torch.equal(x[[0, 3]], X[[0, 3]])
    # Adam's first steps are as long as the rate, towards 0 in every number.
    torch.testing.assert_close(x[[1, 2]], X[[1, 2]] - 0.1 * X[[1, 2]].sign(), atol=0.02, rtol=0)
    assert after.refined == 2
    torch.testing.assert_close(after.fitness, fitness(x))
    torch.testing.assert_close(after.score, fitness(x)[:, None].repeat(1, 3))
    assert asked["scores"] == [TASKS]
    assert len(set(asked["gradients"])) == 2
    assert TASKS not in asked["gradients"]


def test_what_became_worse_stays_as_it_was():
    before = generation()
    after, _ = refined(before, lambda x: -2 * x)
    assert after.refined == 0
    assert torch.equal(after.population.vectors(), X)
    assert torch.equal(after.fitness, before.fitness)


def test_what_failed_is_not_refined():
    after, asked = refined(generation(failed=(1, 2, 3)), lambda x: 2 * x)
    assert after.refined == 1
    assert torch.equal(after.population.vectors()[1:], X[1:])
    none, asked = refined(generation(failed=range(4)), lambda x: 2 * x)
    assert none.refined == 0
    assert not asked["gradients"]


@pytest.mark.parametrize(
    ("every", "number", "due"), [(0, 20, False), (20, 20, True), (20, 21, False), (1, 3, True)]
)
def test_every_so_many_generations_are_refined(every, number, due):
    assert RefinementStage(every=every).at(number) is due


def test_a_line_of_the_history_counts_what_was_refined(tmp_path):
    strategy = {"kind": "cma_es", "population": 4}
    # Weak losses, which any step down the gradient makes stronger.
    genome = {"kind": "constants", "formula": "-0.01 * y * logp"}
    search = {"genome": genome, "strategy": strategy, "generations": 4}
    stage = {"every": 2, "best": 4, "steps": 3, "lr": 0.5}
    result = evolved(tmp_path, **search, refine=stage)
    assert not any("refined" in record for record in result.history[::2])
    assert any(record.get("refined") for record in result.history[1::2])
    plain = evolved(tmp_path, "plain", **search)
    assert plain.history[0] == result.history[0]


def test_an_estimate_counts_gradients_as_the_trainings_that_they_take_as_long_as():
    stage = {"every": 10, "best": 2, "steps": 3}
    search = settings.resolve({"genome": {"kind": "targets"}, "refine": stage})
    cma_es, gradient = (
        registry.build("strategies", {"kind": kind}) for kind in ("cma_es", "gradient")
    )
    assert gradient_trainings(search, cma_es, 9, 32) == 0
    assert gradient_trainings(search, cma_es, 10, 32) == 2 * (3 * GRADIENT_COST + 1)
    assert gradient_trainings(search, gradient, 9, 1) == GRADIENT_COST


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (3, "settings: refine: Input should be a table of settings, got 3"),
        ({"steps": 3}, "settings: refine: every = 0 refines nothing"),
        ({"every": -1}, "refine.every: Input should be greater than or equal to 0, got -1"),
        ({"evry": 2}, "Did you mean 'every'?"),
    ],
)
def test_a_stage_that_cannot_be_or_does_nothing_is_refused(stage, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        settings.resolve({"refine": stage})


def test_trees_are_refused(tmp_path):
    changes = {**SMALL, "genome": {"kind": "tree"}, "strategy": {"kind": "gp"}}
    with pytest.raises(
        SettingsError, match=r"refine\.every = 5: genome 'tree' has no real vectors"
    ):
        evolved(tmp_path, **changes, refine={"every": 5})
    assert not (tmp_path / "runs").exists()
