"""What is not worth a training is varied again, and what cannot be made keeps its parent."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from trees import population, texts

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.genomes._filters import REASONS
from metaloss.losses.language.formula import Formula
from metaloss.search.novelty import NoveltyFilter, SeenLosses

KEY = Stream(0)
TREE = registry.build("genomes", {"kind": "tree", "min_height": 1})
WRONG = {
    "reads too little": "p*p",
    "is not finite": "exp(exp(9 - y*logp))",
    "range": "1e-6*y*p",
    "integrity": "cos(50*p)*y",
    "gain": "-500*y*logp",
}


def formula(text):
    return Formula.parse(text)


@dataclass
class Script:
    """A genome whose draws are written down: every call takes the next ones."""

    draws: list
    asked: list = field(default_factory=list)
    vector = False
    usual: ClassVar = {}
    populations = TREE.populations
    classes = None
    reasons = REASONS

    def sample(self, n, key):
        return self._next(n, key)

    def mutate(self, parents, strength, key):
        assert len(strength) == len(parents)
        return self._next(len(parents), key)

    def crossover(self, a, b, key):
        assert len(a) == len(b)
        return self._next(len(a), key)

    def valid(self, candidates):
        return TREE.valid(candidates)

    def losses(self, candidates):
        return TREE.losses(candidates)

    def describe(self, candidates, row):
        return TREE.describe(candidates, row)

    def _next(self, n, key):
        self.asked.append((n, key))
        drawn = self.draws.pop(0) if self.draws else ["p*p"]
        return population(TREE, *(drawn * n)[:n])


def begun(draws, seen=(), **more):
    """A filter over such draws at the beginning of a generation, and what it draws from."""
    script = Script(list(draws))
    recorded = SeenLosses(TREE.filters)
    for text in seen:
        recorded.add(formula(text))
    novelty_filter = NoveltyFilter(script, recorded, **more)
    novelty_filter.start_generation()
    return novelty_filter, script


def mutated(novelty_filter, *parents):
    rows = population(TREE, *parents)
    return texts(TREE, novelty_filter.mutate(rows, torch.zeros(len(rows), 1), KEY))


# --- what counts as seen ---


def test_a_loss_is_found_again_by_its_text_whatever_the_order_and_signs():
    seen = SeenLosses(TREE.filters)
    assert seen.reason_seen(formula("-y*logp")) == ""
    seen.add(formula("-y*logp"))
    assert {
        seen.reason_seen(formula(text)) for text in ("logp*-y", "-(logp*y)", "-(y*logp)*1")
    } == {"duplicate text"}
    assert seen.reason_seen(formula("y*square(logp)")) == ""


@pytest.mark.parametrize("twin", ["-y*log_clamp(p)", "-y*(logp + p - p)", "3 - y*logp"])
def test_a_loss_is_found_again_by_its_curve_however_it_is_written(twin):
    seen = SeenLosses(TREE.filters)
    for text in ("square(p - y)", "-y*logp", "-y*p"):
        seen.add(formula(text))
    assert seen.reason_seen(formula(twin)) == "duplicate phenotype"


def test_two_losses_that_differ_in_scale_alone_are_two():
    seen = SeenLosses(TREE.filters)
    seen.add(formula("-y*logp"))
    assert seen.reason_seen(formula("-2*y*logp")) == seen.reason_seen(formula("-0.5*y*logp")) == ""
    assert seen.reason_seen(formula("-1.001*y*logp")) == "duplicate phenotype"


def test_a_loss_without_a_curve_is_found_again_by_its_text_alone():
    seen = SeenLosses(TREE.filters)
    for text in ("p*p", WRONG["is not finite"]):
        seen.add(formula(text))
        assert seen.reason_seen(formula(text)) == "duplicate text"
    assert seen.reason_seen(formula("p*p*p")) == ""


def test_curves_are_found_among_many_by_their_distance_and_not_by_their_means():
    many = [f"-y*logp*{k}*(1 + {j}*p)" for k in range(1, 5) for j in range(5)]
    seen = SeenLosses(TREE.filters)
    for text in many:
        assert seen.reason_seen(formula(text)) == ""
        seen.add(formula(text))
    assert {seen.reason_seen(formula(f"{text} + 7")) for text in many} == {"duplicate phenotype"}


# --- what is refused ---


@pytest.mark.parametrize("reason", REASONS[1:])
def test_every_reason_is_counted_and_the_candidate_varied_again(reason):
    novelty_filter, script = begun([[WRONG[reason]], ["-y*p"]])
    assert mutated(novelty_filter, "y*logp") == ["-y * p"]
    assert dict(novelty_filter.refused) == {reason: 1}
    assert len(script.asked) == 2


def test_what_the_run_has_trained_is_refused():
    novelty_filter, _ = begun([["logp*-y"], ["-y*log_clamp(p)"], ["-y*p"]], seen=["-y*logp"])
    assert mutated(novelty_filter, "y*square(logp)") == ["-y * p"]
    assert dict(novelty_filter.refused) == {"duplicate text": 1, "duplicate phenotype": 1}


def test_what_this_generation_has_asked_for_is_refused_until_the_next_begins():
    novelty_filter, script = begun([["-y*logp"], ["-logp*y", "-y*p"], ["-y*sqrt(p)"]])
    assert mutated(novelty_filter, "y*square(logp)") == ["-y * logp"]
    assert mutated(novelty_filter, "y*square(logp)", "y*square(logp)") == ["-y * sqrt(p)", "-y * p"]
    assert dict(novelty_filter.refused) == {"duplicate text": 1}
    novelty_filter.start_generation()
    assert not novelty_filter.refused
    script.draws = [["-y*logp"]]
    assert mutated(novelty_filter, "y*square(logp)") == ["-y * logp"]


def test_of_two_that_are_alike_within_one_call_the_first_is_taken():
    novelty_filter, _ = begun([["-y*logp", "-logp*y"], ["-y*p"]])
    assert mutated(novelty_filter, "y*square(logp)", "y*square(logp)") == ["-y * logp", "-y * p"]


def test_a_cross_that_is_not_worth_a_training_is_made_again():
    novelty_filter, script = begun([["p*p", "-y*p"], ["-y*logp"]])
    a, b = (population(TREE, *[text] * 2) for text in ("y*square(logp)", "y*sqrt(p)"))
    assert texts(TREE, novelty_filter.crossover(a, b, KEY)) == ["-y * logp", "-y * p"]
    assert [n for n, _ in script.asked] == [2, 1]


def test_every_try_draws_by_a_key_of_its_own():
    novelty_filter, script = begun([], tries=4)
    mutated(novelty_filter, "y*square(logp)")
    keys = [key for _, key in script.asked]
    assert keys[0] == KEY
    assert len(set(keys)) == len(keys) >= 4


def test_a_child_that_cannot_be_made_keeps_its_parent():
    novelty_filter, _ = begun([["p*p", "-y*p"]], tries=3)
    assert mutated(novelty_filter, "y*square(logp)", "y*logp") == ["y * square(logp)", "-y * p"]
    assert novelty_filter.refused["reads too little"] == 3


# --- samples ---


def test_a_sample_is_filled_up_with_what_is_worth_a_training():
    novelty_filter, _ = begun([["p*p", "-y*p", "-p*y"], ["p*p", "-y*logp", "-y*sqrt(p)"]])
    assert texts(TREE, novelty_filter.sample(3, KEY)) == ["-y * p", "-y * logp", "-y * sqrt(p)"]
    assert dict(novelty_filter.refused) == {"reads too little": 2, "duplicate text": 1}


def test_a_sample_has_its_size_where_nothing_else_is_found():
    novelty_filter, _ = begun([["-y*p", "p*p", "p*p*p"]], tries=2)
    assert texts(TREE, novelty_filter.sample(3, KEY)) == ["-y * p", "p * p", "p * p * p"]


def test_a_sample_that_is_fine_is_the_genome_s_own():
    novelty_filter, _ = begun([["-y*p", "-y*logp"]])
    assert texts(TREE, novelty_filter.sample(2, KEY)) == ["-y * p", "-y * logp"]
    assert not novelty_filter.refused


def test_trees_that_come_through_are_new_and_valid():
    genome = registry.build("genomes", {"kind": "tree"})
    novelty_filter = NoveltyFilter(genome, SeenLosses(genome.filters))
    novelty_filter.start_generation()
    found = novelty_filter.sample(12, KEY)
    novelty_filter.start_generation()
    children = novelty_filter.mutate(found, torch.zeros(12, 1), KEY)
    for each in (found, children):
        assert not genome.valid(each).any()
        assert len({f.digest for f in genome.formulas(each)}) == 12
    assert sum(novelty_filter.refused.values()) > 0


def test_a_genome_without_formulas_goes_through_untouched():
    genome = registry.build(
        "genomes", {"kind": "mln", "start": "random", "features": 2, "hidden": 2}
    )
    novelty_filter = NoveltyFilter(genome, None)
    novelty_filter.start_generation()
    a, b = (genome.sample(4, KEY.at(i)) for i in range(2))
    strength = torch.full((4, a.genes), 0.1)
    assert torch.equal(novelty_filter.sample(4, KEY.at(0)).values, a.values)
    assert torch.equal(
        novelty_filter.mutate(a, strength, KEY).values, genome.mutate(a, strength, KEY).values
    )
    assert torch.equal(
        novelty_filter.crossover(a, b, KEY).values, genome.crossover(a, b, KEY).values
    )
    assert type(novelty_filter.losses(a)) is type(genome.losses(a))
    assert not novelty_filter.refused


def test_losses_that_are_alike_among_even_classes_alone_are_two():
    seen = SeenLosses(TREE.filters)
    seen.add(Formula.parse("-y*logp"))
    assert seen.reason_seen(Formula.parse("-y*logp - 0*p")) == "duplicate phenotype"
    others = ("-y*logp*exp(-logprior)", "sum(-y*logp, shift=logprior)", "sum(-y*logp, scale=2)")
    for text in others:
        assert not seen.reason_seen(Formula.parse(text))
        seen.add(Formula.parse(text))
        assert seen.reason_seen(Formula.parse(text)) == "duplicate text"
    assert seen.reason_seen(Formula.parse("-y*logp - 0*p")) == "duplicate phenotype"
