"""A search for Taylor polynomials as a user meets it, from the search to the refined formula."""

import json

import pytest
import torch
from test_run_folder import SMALL, code, essence, evolved, family, only_the_subset, without_plots

import metaloss
from metaloss.core.streams import Stream
from metaloss.criterion.formula import FormulaCriterion
from metaloss.evolution import generation
from metaloss.genomes.taylor import TaylorPolynomial
from metaloss.losses.language.formula import Formula
from metaloss.search import program, settings
from metaloss.search.objectives import mean
from metaloss.strategies.random_search import RandomSearch

STRATEGY = {"kind": "cma_es", "population": 6, "sigma": 1.2}
# Where the search starts every other candidate is refused.
INVARIANT = {"kind": "taylor", "start": "0*p", "invariant": True}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def searched(folder, out="runs", genome="taylor", **changes):
    return evolved(folder, out=out, genome=genome, **{"strategy": STRATEGY, **changes})


def test_a_run_without_settings_searches_as_published():
    search = settings.resolve({"tasks": ("fashionmnist",), "genome": {"kind": "taylor"}})
    assert search.strategy == {"kind": "cma_es", "population": 20, "sigma": 1.2}
    assert search.generations == 100


def test_the_winner_is_a_formula_that_is_shown_exported_and_refined(tmp_path, capsys):
    result = searched(tmp_path)
    assert isinstance(result.best, FormulaCriterion)
    folder = str(result.folder)
    assert code("show", folder) == 0
    assert str(result.best.formula) in capsys.readouterr().out
    assert code("export", folder, "-o", str(tmp_path / "loss.py")) == 0
    assert code("export", folder, "-o", str(tmp_path / "loss.tex")) == 0
    space = {}
    exec((tmp_path / "loss.py").read_text(), space)
    logits, label = Stream(0).normal(6, 5), torch.arange(6) % 5
    torch.testing.assert_close(space["Loss"]()(logits, label), result.best(logits, label))
    small = {key: value for key, value in SMALL.items() if key not in ("genome", "strategy")}
    refined = metaloss.refine(
        folder, tasks=family(tmp_path), strategy=SMALL["strategy"], out=tmp_path / "out", **small
    )
    assert refined.comparison["before"] == str(result.best.formula)
    assert Formula.parse(refined.comparison["after"])


def test_what_the_invariant_refuses_is_not_trained_and_the_run_says_how_many(tmp_path):
    result = searched(tmp_path, genome=INVARIANT)
    counts = [record.get("refused", {}).get("invariant", 0) for record in result.history]
    assert sum(counts) > 0
    for record, refused in zip(result.history, counts, strict=True):
        assert record["trained"] == record["candidates"] - refused
        assert record["diverged"] == record["failed_trainings"] == 0
    assert result.summary["refused"] == {"invariant": sum(counts)}
    again = searched(tmp_path, genome=INVARIANT, out="again", generations=1)
    program.resume(again.folder, changes={"generations": 3})
    assert essence(again.folder) != ""
    assert (
        json.loads((again.folder / "summary.json").read_text())["refused"]
        == (result.summary["refused"])
    )


@pytest.mark.parametrize("refuse", ["some", "all"])
def test_a_generation_has_no_scores_of_what_is_refused(refuse):
    space = TaylorPolynomial(start="0*p", invariant=True)
    asked = []

    def evaluator(losses, key):
        asked.append(len(losses))
        return torch.arange(2.0 * len(losses)).reshape(-1, 2) + 1, torch.tensor([0, 0])

    class Refusing(type(space)):
        def valid(self, population):
            codes = super().valid(population)
            return torch.ones_like(codes) if refuse == "all" else codes

    strategy = RandomSearch(population=12)
    space = Refusing(start="0*p", invariant=True)
    state = strategy.init(space, Stream(0))
    _, scored = generation(strategy, state, space, evaluator, mean, Stream(0), 1)
    worth = scored.refused == 0
    assert asked == [max(1, int(worth.sum()))]
    assert torch.equal(scored.score.isfinite().all(1), worth)
    assert torch.equal(scored.fitness.isfinite(), worth)
    if refuse == "some":
        assert 0 < int(worth.sum()) < 12
        # In the order in which they were asked for.
        assert scored.score[worth].flatten().diff().eq(1).all()
