"""The ledger knows every loss of a run, and knows the same when it is told by the history."""

import gc
import json

import pytest
import torch

from metaloss.genomes._filters import Filters
from metaloss.losses.language.expression import Expression
from metaloss.losses.language.formula import Formula
from metaloss.search import novelty
from metaloss.search.trained_losses import TrainedLoss, TrainedLosses
from metaloss.storage import json_safe

CE = "sum(-y * logp)"
MSE = "sum(square(p - y))"
LINEAR = "sum(-y * p)"
ROOT = "sum(-y * sqrt(p))"


def line(*losses, control=0.5):
    return {"losses": list(losses), "control": control}


def ledger(*lines):
    return TrainedLosses(Filters(), lines)


def names(formulas):
    return [str(f) for f in formulas]


def test_a_lead_is_counted_as_if_there_had_been_a_level_one_besides():
    assert TrainedLoss(CE, 4, [0.2], [1.0]).rank_score == pytest.approx(0.1)
    assert TrainedLoss(CE, 4, [0.2] * 3, [1.0] * 3).rank_score == pytest.approx(0.15)
    assert TrainedLoss(CE, 4, [-0.2], [1.0]).rank_score == pytest.approx(-0.1)


def test_a_lead_on_more_tasks_weighs_more():
    found = ledger(
        {**line((CE, 0.6), (MSE, 0.9)), "tasks": 8}, {**line((CE, 0.9), (MSE, 0.6)), "tasks": 24}
    )
    assert found.entries[CE].rank_score == pytest.approx((0.1 + 3 * 0.4) / (1 + 3 + 1))
    assert names(found.best(2)) == [CE, MSE]


def test_one_that_often_led_stands_above_one_that_shone_once():
    found = ledger(line((CE, 0.6), (MSE, 0.65)), line((CE, 0.62)), line((CE, 0.61)))
    assert names(found.best(2)) == [CE, MSE]
    assert found.entries[MSE].leads[0] > max(found.entries[CE].leads)


def test_a_lead_is_over_cross_entropy_on_the_same_tasks():
    found = ledger(line((CE, 0.9), control=0.85), line((MSE, 0.4), control=0.2))
    assert names(found.best(9)) == [MSE, CE]


def test_of_equals_the_one_that_was_trained_first_stands_first():
    found = ledger(line((ROOT, 0.6), (CE, 0.6)), line((MSE, 0.6)))
    assert names(found.best(3)) == [ROOT, CE, MSE]
    assert names(found.best(1)) == [ROOT]


def test_the_best_of_each_size_come_smallest_first():
    same_size = "sum(y * square(p))"
    found = ledger(
        line((same_size, 0.9), (ROOT, 0.6), (CE, 0.7), (LINEAR, 0.6), ("sum(y * p)", 0.1))
    )
    assert names(found.best_of_each_size()) == ["sum(y * p)", same_size, ROOT]
    assert [f.expression.size for f in found.best_of_each_size()] == [3, 4, 5]


def test_a_loss_that_failed_is_seen_and_never_among_the_best():
    found = ledger(line((CE, None), (MSE, 0.1)))
    assert names(found.best(5)) == names(found.best_of_each_size()) == [MSE]
    assert found.seen.reason_seen(Formula.parse(CE)) == "duplicate text"
    found.add(line((CE, 0.9)))
    assert names(found.best(5)) == [CE, MSE]


def test_every_loss_is_seen_once():
    found = ledger(line((CE, 0.6)), line((CE, 0.7), (MSE, 0.6)))
    assert len(found.entries) == 2
    assert len(found.seen.curves) == 2
    assert found.seen.reason_seen(Formula.parse("-(logp*y)")) == "duplicate text"
    assert found.seen.reason_seen(Formula.parse(LINEAR)) == ""


def test_a_generation_of_networks_tells_nothing():
    assert not ledger({"generation": 1, "best": 0.5}).entries


def test_a_ledger_told_by_the_history_equals_the_live_one():
    live = ledger()
    stored = []
    fitness = iter(torch.rand(12, generator=torch.Generator().manual_seed(0)).double().tolist())
    for number in range(4):
        record = line(
            *((text, next(fitness)) for text in (CE, MSE, LINEAR)),
            (ROOT, None),
            control=0.1 * number,
        )
        live.add(record)
        stored.append(json.dumps(json_safe(record)))
    told = TrainedLosses(Filters(), map(json.loads, stored))
    assert {k: (e.text, e.size, e.leads) for k, e in told.entries.items()} == {
        k: (e.text, e.size, e.leads) for k, e in live.entries.items()
    }
    assert told.best(9) == live.best(9)
    assert told.best_of_each_size() == live.best_of_each_size()
    assert told.seen.digests == live.seen.digests
    assert told.seen.entries == live.seen.entries
    assert told.seen.curves == live.seen.curves


def test_a_long_search_keeps_neither_trees_nor_tensors_of_what_it_has_trained():
    found = ledger(line((CE, 0.6), (MSE, 0.65), (ROOT, None)))
    kept = [found.entries, vars(found.seen)]
    reached = []
    while kept:
        reached.append(kept.pop())
        if not isinstance(reached[-1], type):
            kept += [x for x in gc.get_referents(reached[-1]) if not any(x is y for y in reached)]
    assert CE in reached
    assert len(found.seen.curves) == 3
    assert not [x for x in reached if isinstance(x, Expression | torch.Tensor)]


def test_a_full_cache_changes_nothing_that_is_told(monkeypatch):
    lines = line((CE, 0.6), (MSE, 0.65), (LINEAR, 0.6), (ROOT, 0.1))
    usual = ledger(lines)
    novelty._curve_and_span.cache_clear()
    monkeypatch.setattr(novelty, "_curve_and_span", novelty._curve_and_span.__wrapped__)
    assert usual.seen.curves == ledger(lines).seen.curves
    assert usual.best(4) == ledger(lines).best(4)
