"""Who stands for election, and the front, which holds what nothing smaller reaches."""

import pytest
import torch
from test_report import check_figure
from trees import population

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.evaluation import plots
from metaloss.genomes._filters import Filters
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.cached_evaluator import CachedEvaluator
from metaloss.search.finalists import (
    OF_SEARCH,
    Finalists,
    choose_finalists,
    size_front,
)
from metaloss.search.run_folder import Progress
from metaloss.search.trained_losses import TrainedLosses

TREE = registry.build("genomes", {"kind": "tree", "min_height": 1})


def stands(*texts):
    formulas = tuple(Formula.parse(text) for text in texts)
    return Finalists(
        TREE, population(TREE, *texts), formulas, [f"number {i}" for i in range(len(texts))]
    )


SIZES = ("y*p", "-y*p", "-y*sqrt(p)", "-y*sqrt(sqrt(p))", "-y*sqrt(sqrt(sqrt(p)))")


# --- the front ---


def drawn(texts, reached):
    rows = size_front(stands(*texts), torch.tensor(reached))
    return [(row["size"], row["formula"], row["accuracy"]) for row in rows]


def test_the_front_leaves_out_what_something_smaller_reaches():
    assert drawn(SIZES, [0.5, 0.75, 0.625, 0.75, 0.875]) == [
        (3, "sum(y * p)", 0.5),
        (4, "sum(-y * p)", 0.75),
        (7, "sum(-y * sqrt(sqrt(sqrt(p))))", 0.875),
    ]


def test_of_one_size_the_front_has_the_best_and_of_equals_the_first():
    texts = ("y*p", "y*logp", "p*y", "C*y*p")
    assert drawn(texts, [0.25, 0.5, 0.5, 0.5]) == [(3, "sum(y * logp)", 0.5)]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_on_the_front_is_dominated_and_all_else_is(seed):
    reached = (Stream(seed).integers(6, 5) / 8).tolist()
    order = Stream(seed).at("order").permutation(5).tolist()
    texts = [SIZES[i] for i in order]
    reached = [reached[i] for i in order]
    found = drawn(texts, reached)
    assert [row[0] for row in found] == sorted({row[0] for row in found})
    assert [row[2] for row in found] == sorted({row[2] for row in found})
    for text, x in zip(texts, reached, strict=True):
        formula = Formula.parse(text)
        on_it = (formula.expression.size, str(formula), x) in found
        dominated = any(
            size <= formula.expression.size and y >= x
            for size, other, y in found
            if other != str(formula)
        )
        assert on_it != dominated


def test_the_front_has_formulas_that_can_be_read_back_and_typeset():
    (row,) = size_front(stands("-y*logp"), torch.tensor([0.5]))
    assert str(Formula.parse(row["formula"])) == row["formula"] == "sum(-y * logp)"
    assert row["latex"] == Formula.parse("-y*logp").latex()


def test_what_is_no_formula_has_no_front():
    genome = registry.build("genomes", {"kind": "mln", "features": 2, "hidden": 2})
    assert (
        size_front(
            Finalists(genome, genome.sample(2, Stream(0)), (), ["a", "b"]), torch.tensor([0.5, 0.6])
        )
        == []
    )


@pytest.mark.parametrize("n", [1, 3])
def test_a_front_can_be_drawn(tmp_path, n):
    plots.front(size_front(stands(*SIZES[:n]), torch.arange(n) / 8), tmp_path / "front.png")
    check_figure(tmp_path / "front.png", 1)


# --- who stands ---


def progress(finalists, mean_candidates, generation=3):
    return Progress(
        generation,
        None,
        finalists,
        mean_candidates,
        0,
        0,
        0,
        CachedEvaluator(lambda *args: None).snapshot(),
    )


def test_networks_stand_with_the_last_best_the_centre_and_the_mean_of_the_centres():
    genome = registry.build(
        "genomes", {"kind": "mln", "start": "random", "features": 2, "hidden": 2}
    )
    best = genome.sample(2, Stream(0))
    mean_candidates = genome.sample(3, Stream(1))
    found = choose_finalists(genome, progress(best, mean_candidates), None)
    assert found.origins == [
        "best of generation 2",
        "best of generation 3",
        "the population's centre",
        "the mean of the last 3 centres",
    ]
    expected = torch.cat(
        [best.values, mean_candidates.values[-1:], mean_candidates.values.mean(0, keepdim=True)]
    )
    assert torch.equal(found.population.values, expected)
    criterion = found.criterion(2, {}, 20)
    assert isinstance(criterion, GenomeCriterion)
    assert torch.equal(criterion.values, mean_candidates.values[-1:])


def test_formulas_stand_once_each_with_the_best_of_the_search_and_of_every_size():
    many = [(f"sum(-y * {k}.0 * p)", 0.6 + k / 1000) for k in range(1, OF_SEARCH + 6)]
    small = ("sum(y * p)", 0.1)
    told = TrainedLosses(Filters(), [{"losses": [small, *many], "control": 0.5}])
    best = population(TREE, "-y*logp", f"-{OF_SEARCH + 5}.0*y*p")
    mean_candidates = population(TREE, "-logp*y")
    found = choose_finalists(TREE, progress(best, mean_candidates), told)
    digests = [f.digest for f in found.formulas]
    assert len(set(digests)) == len(digests) == OF_SEARCH + 2
    by = dict(zip(digests, found.origins, strict=True))
    assert by[Formula.parse("y*p").digest] == "best of its size, 3 nodes"
    assert by[Formula.parse("-y*logp").digest] == "the mean of the last 1 centres"
    assert by[Formula.parse(f"-{OF_SEARCH + 5}.0*y*p").digest] == "best of generation 3"
    assert list(by.values()).count("among the best of the search") == OF_SEARCH - 1
    assert isinstance(found.losses, Formulas)
    assert len(found.losses) == len(found.origins)
    criterion = found.criterion(0, {"name": "mine"}, 20)
    assert isinstance(criterion, FormulaCriterion)
    assert criterion.formula == found.formulas[0]
