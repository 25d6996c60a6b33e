import math

import pytest
import torch
from test_run_folder import SMALL, evolved, only_the_subset, without_plots

from metaloss.core.population import Vectors
from metaloss.core.registry import build
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.genomes.constants import FAR, Constants, values
from metaloss.losses import zoo
from metaloss.losses.base import TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas

TEXT = "mean(-2.0 * y * logp + 0.0 * p + tanh(0.5 * p), temperature=3.0)"
KEY = Stream(3)


def formulas(genome, *rows):
    return genome.formulas(Vectors(torch.tensor(rows, dtype=torch.float32)))


def test_a_gene_is_the_logarithm_of_a_constant_s_factor():
    wanted = [-3.0, 0.25, 0.7]
    # 0 has no factor: its gene is its value.
    genes = [math.log(-3.0 / -2.0), 0.25, math.log(0.7 / 0.5)]
    (formula,) = formulas(Constants(TEXT), genes)
    assert values(formula.expression) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    "spec", [TEXT, "poly1", "focal(gamma=2)", "label_smoothing", "taylorglo_mnist", "sce"]
)
def test_genes_of_0_are_the_formula_bit_for_bit(spec):
    genome = Constants(spec)
    original = zoo.read(spec)
    formula, again = genome.formulas(genome.sample(2, KEY))
    assert formula == again == original == genome.original
    target = one_hot(torch.arange(6)[None] % 3, 3)
    logits = KEY.normal(1, 1, 6, 3)
    one, other = (
        Formulas.of([f]).bind(TrainingTargets(target)).logit_gradient(logits)
        for f in (formula, original)
    )
    assert torch.equal(one, other)


def test_reduction_and_temperature_stay():
    (formula,) = formulas(Constants(TEXT), [1.0, 1.0, 1.0])
    assert (formula.reduction, formula.temperature) == ("mean", 3.0)
    assert formula != zoo.read(TEXT)


@pytest.mark.parametrize("gene", [FAR, 1e3, 1e30, math.inf, -FAR, -1e30, -math.inf, math.nan])
def test_no_gene_turns_a_sign_or_makes_a_formula_that_cannot_be_read(gene):
    (formula,) = formulas(Constants("sum(-2.0*y*logp + 1e299*p + 0.0)"), [gene] * 3)
    found = values(formula.expression)
    assert all(map(math.isfinite, found))
    assert found[0] < 0 < found[1]
    assert zoo.read(str(formula)) == formula


def test_a_step_of_five_percent_moves_constants_by_five_percent():
    genome = Constants(TEXT)
    start = genome.sample(400, KEY)
    moved = genome.formulas(genome.mutate(start, torch.full((400, 3), 0.05), KEY))
    found = torch.tensor([values(f.expression) for f in moved])
    for column, old in ((0, -2.0), (2, 0.5)):
        assert float((found[:, column] / old - 1).std()) == pytest.approx(0.05, rel=0.15)
    assert float(found[:, 1].std()) == pytest.approx(0.05, rel=0.15)


def test_a_cross_has_the_geometric_mean_of_its_parents_constants():
    genome = Constants("sum(2.0*y*p)")
    a, b = (Vectors(torch.tensor([[math.log(x)]])) for x in (1.5, 6.0))
    (formula,) = genome.formulas(genome.crossover(a, b, KEY))
    assert values(formula.expression) == pytest.approx([2.0 * 3.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, -1e30, 0.0])
def test_rows_are_blind_to_each_other(bad):
    genome = Constants(TEXT)
    vectors = 0.3 * KEY.normal(3, 3)
    target = one_hot(torch.arange(6)[None] % 3, 3)
    logits = KEY.at("logits").normal(3, 1, 6, 3)
    before = genome.losses(Vectors(vectors)).bind(TrainingTargets(target)).logit_gradient(logits)
    changed = vectors.clone()
    changed[1] = bad
    after = genome.losses(Vectors(changed)).bind(TrainingTargets(target)).logit_gradient(logits)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("ce", "ce has no constants to tune"),
        ("-y*logp", "no constants"),
        ("focl", "Did you mean 'focal'?"),
    ],
)
def test_a_formula_without_constants_is_refused_in_one_line(formula, words):
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")) as caught:
        build("genomes", {"kind": "constants", "formula": formula})
    assert "\n" not in str(caught.value)


def test_a_candidate_is_described_by_its_formula():
    genome = Constants("sum(-2.0*y*logp)")
    assert genome.describe(genome.sample(1, KEY), 0) == "sum(-2.0 * y * logp)"


# --- in a search ---


@pytest.fixture
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def election(monkeypatch, favourite):
    """Lets the finalist in this place, and no other, reach more."""

    def held_out(self, losses, role, tasks, beside=(), first=0):
        score = torch.full((len(losses), tasks), 0.5)
        if favourite is not None:
            score[favourite] = 0.6
        return score

    monkeypatch.setattr(LossEvaluation, "validation_scores", held_out)


@pytest.mark.parametrize("favourite", [None, 1])
def test_what_is_no_better_than_the_original_does_not_replace_it(
    surroundings, tmp_path, monkeypatch, favourite
):
    election(monkeypatch, favourite)
    result = evolved(
        tmp_path, genome={"kind": "constants", "formula": "poly1"}, strategy=SMALL["strategy"]
    )
    assert (result.summary["choice"]["origin"] == "the original") == (favourite is None)
    assert (str(result.best.formula) == str(zoo.read("poly1"))) == (favourite is None)


def test_a_tuned_formula_is_saved_as_a_formula_and_its_history_lists_none(surroundings, tmp_path):
    result = evolved(
        tmp_path, genome={"kind": "constants", "formula": "poly1"}, strategy="openai_es"
    )
    assert {path.name for path in (result.folder / "loss").iterdir()} == {
        "loss.json",
        "card.md",
        "images.json",
    }
    assert all("losses" not in record for record in result.history)
    assert not (result.folder / "plots" / "front.png").exists()
