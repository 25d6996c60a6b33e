"""No loss is trained twice, none without hope, and every result stands in its own row."""

from functools import partial

import pytest
import torch

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.protocol import LossEvaluation, ScreeningBudget
from metaloss.evaluation.tuning import Tuned
from metaloss.losses.base import CrossEntropies
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.cached_evaluator import CONTROL, PACK, CachedEvaluator, CachedScores
from metaloss.storage.codec import pack, unpack

KEY = Stream(0).at("tasks", 1)
LATER = Stream(0).at("tasks", 2)
TEXTS = ("-y*p", "square(p - y)", "y*square(logp)", "-y*sqrt(p)", "abs(p - y)")


def formulas(*texts):
    return Formulas.of([Formula.parse(text) for text in texts])


def worth(formula):
    """A number in [0, 1) that stands for a formula."""
    return int(formula.digest[:8], 16) / 2**32


class Full:
    """Scores that depend on the formula and the key alone; keeps what it was asked to train."""

    def __init__(self):
        self.calls = []

    def __call__(self, losses, key):
        self.calls.append([str(f) for f in losses.formulas])
        epoch = key.path[-1]
        return torch.tensor(
            [[worth(f) / epoch, worth(f) / 2] for f in losses.formulas]
        ), torch.tensor([0, 1])

    @property
    def trained(self):
        """Everything that was trained, but for what fills a pack up."""
        return [text for call in self.calls for text in dict.fromkeys(call)]


def screen(*refused):
    """Passed by all but these; keeps how many it was asked about."""
    wrong = {Formula.parse(text).digest for text in refused}
    sizes = []

    def passes(losses, key):
        sizes.append(len(losses))
        return torch.tensor([f.digest not in wrong for f in losses.formulas])

    passes.sizes = sizes
    return passes


def expected(*texts, epoch=1):
    values = [worth(Formula.parse(text)) for text in texts]
    return torch.tensor([[x / epoch, x / 2] for x in values])


# --- what is known ---


def test_a_formula_is_trained_once_per_task_epoch():
    full = Full()
    evaluator = CachedEvaluator(full)
    one, family = evaluator(formulas(*TEXTS[:3]), KEY)
    assert evaluator.trained == 3
    two, _ = evaluator(formulas(TEXTS[3], TEXTS[1], TEXTS[0]), KEY)
    assert evaluator.trained == 1
    assert torch.equal(one, expected(*TEXTS[:3]))
    assert family.tolist() == [0, 1]
    assert torch.equal(two, expected(TEXTS[3], TEXTS[1], TEXTS[0]))
    assert sorted(full.trained) == sorted(str(Formula.parse(t)) for t in ("-y*logp", *TEXTS[:4]))


def test_formulas_that_are_alike_are_trained_once_and_all_get_the_result():
    full = Full()
    evaluator = CachedEvaluator(full)
    found, _ = evaluator(formulas("-y*p", "y*logp", "-p*y", "logp*y", "-(p*y)"), KEY)
    assert evaluator.trained == 2
    assert full.trained == [
        "sum(-y * p)",
        "sum(y * logp)",
        "sum(-y * logp)",
    ]
    assert torch.equal(found, expected("-y*p", "y*logp", "-y*p", "y*logp", "-y*p"))


def test_a_new_epoch_forgets():
    full = Full()
    evaluator = CachedEvaluator(full)
    evaluator(formulas(*TEXTS), KEY)
    found, _ = evaluator(formulas(*TEXTS), LATER)
    assert evaluator.trained == len(TEXTS)
    assert torch.equal(found, expected(*TEXTS, epoch=2))
    assert full.calls[0] == full.calls[1]
    again, _ = evaluator(formulas(*TEXTS), KEY)
    assert len(full.calls) == 3
    assert torch.equal(again, expected(*TEXTS))


def test_where_all_is_known_nothing_is_trained():
    full = Full()
    evaluator = CachedEvaluator(full)
    evaluator(formulas(*TEXTS), KEY)
    found, _ = evaluator(formulas(*reversed(TEXTS)), KEY)
    assert len(full.calls) == 1
    assert evaluator.trained == 0
    assert torch.equal(found, expected(*reversed(TEXTS)))


def test_what_is_known_goes_through_a_checkpoint_and_is_not_trained_again():
    full = Full()
    before = CachedEvaluator(full, screen(TEXTS[1]))
    found, family = before(formulas(*TEXTS), KEY)
    stored = unpack(pack(before.snapshot()), (CachedScores,))
    after = CachedEvaluator(full, screen())
    after.restore(stored, KEY)
    again, same_family = after(formulas(*TEXTS), KEY)
    assert len(full.calls) == 1
    assert (after.trained, after.screened) == (0, 0)
    assert torch.equal(again.nan_to_num(nan=-1), found.nan_to_num(nan=-1))
    assert torch.equal(same_family, family)
    assert after.control == before.control
    assert pack(after.snapshot()) == pack(before.snapshot())


def test_nothing_known_goes_through_a_checkpoint_too():
    evaluator = CachedEvaluator(Full())
    evaluator.restore(unpack(pack(evaluator.snapshot()), (CachedScores,)), KEY)
    found, _ = evaluator(formulas(*TEXTS), KEY)
    assert torch.equal(found, expected(*TEXTS))


def test_what_is_restored_for_another_epoch_is_forgotten():
    full = Full()
    evaluator = CachedEvaluator(full)
    evaluator(formulas(*TEXTS), KEY)
    other = CachedEvaluator(full)
    other.restore(evaluator.snapshot(), KEY)
    found, _ = other(formulas(*TEXTS), LATER)
    assert torch.equal(found, expected(*TEXTS, epoch=2))


# --- the control ---


def test_the_control_is_what_cross_entropy_reaches():
    evaluator = CachedEvaluator(Full())
    evaluator(formulas(*TEXTS), KEY)
    assert evaluator.control == pytest.approx(expected("-y*logp").double().mean().item(), rel=1e-12)


def test_cross_entropy_among_the_candidates_is_its_own_control():
    full = Full()
    evaluator = CachedEvaluator(full)
    evaluator(formulas("-y*p", "-logp*y"), KEY)
    assert full.trained == ["sum(-y * p)", "sum(-logp * y)"]
    assert evaluator.trained == 2
    assert evaluator.control == pytest.approx(worth(CONTROL) * 0.75)


def test_a_control_that_fails_is_a_wrong_answer():
    evaluator = CachedEvaluator(
        lambda losses, key: (torch.tensor([[0.5, 0.5], [torch.nan, 0.5]]), torch.tensor([0, 0]))
    )
    evaluator(formulas("-y*p"), KEY)
    assert evaluator.control == 0.25


# --- the screen ---


def test_what_does_not_pass_is_nan_and_counted_and_the_rest_is_as_without_a_screen():
    full = Full()
    passes = screen(TEXTS[0], TEXTS[3])
    evaluator = CachedEvaluator(full, passes)
    found, _ = evaluator(formulas(*TEXTS), KEY)
    assert found.isnan().all(1).tolist() == [True, False, False, True, False]
    alive = torch.tensor([1, 2, 4])
    assert torch.equal(found[alive], expected(*TEXTS)[alive])
    assert (evaluator.screened, evaluator.trained) == (2, 3)
    assert passes.sizes == [PACK]
    assert [len(call) for call in full.calls] == [PACK]


def test_what_is_left_is_filled_up_to_a_multiple_of_a_pack():
    texts = [f"-y*logp*{k}" for k in range(2, 14)]
    full = Full()
    passes = screen(texts[0])
    found, _ = CachedEvaluator(full, passes)(formulas(*texts), KEY)
    assert passes.sizes == [2 * PACK]
    assert [len(call) for call in full.calls] == [2 * PACK]
    assert torch.equal(found[1:], expected(*texts)[1:])


def test_a_formula_that_did_not_pass_is_not_asked_about_again():
    full = Full()
    passes = screen(TEXTS[0])
    evaluator = CachedEvaluator(full, passes)
    for _ in range(2):
        found, _ = evaluator(formulas(*TEXTS), KEY)
        assert found[0].isnan().all()
    assert len(passes.sizes) == len(full.calls) == 1
    evaluator(formulas(*TEXTS), LATER)
    assert len(passes.sizes) == 2


def test_every_candidate_that_did_not_pass_is_counted():
    evaluator = CachedEvaluator(Full(), screen("-y*p"))
    found, _ = evaluator(formulas("-y*p", "y*logp", "-p*y"), KEY)
    assert found.isnan().all(1).tolist() == [True, False, True]
    assert (evaluator.screened, evaluator.trained) == (2, 1)


def test_where_none_passes_there_is_still_a_control():
    full = Full()
    evaluator = CachedEvaluator(full, screen(*TEXTS))
    found, family = evaluator(formulas(*TEXTS), KEY)
    assert found.shape == (5, 2)
    assert found.isnan().all()
    assert family.tolist() == [0, 1]
    assert full.trained == ["sum(-y * logp)"]
    assert evaluator.trained == 0
    assert evaluator.control > 0


# --- losses that are no formulas ---


def test_networks_go_straight_through():
    given = CrossEntropies.of(3)
    result = (torch.rand(3, 2), torch.tensor([0, 0]))
    evaluator = CachedEvaluator(
        lambda losses, key: (
            result if losses is given and key == KEY else pytest.fail("other arguments")
        )
    )
    found, family = evaluator(given, KEY)
    assert found is result[0]
    assert family is result[1]
    assert (evaluator.trained, evaluator.screened) == (3, 0)
    assert not evaluator.cache


def test_networks_are_screened_like_formulas():
    given = CrossEntropies(torch.arange(10) / 100)
    sizes = []

    def full(losses, key):
        sizes.append(len(losses))
        return losses.smoothing[:, None].repeat(1, 2), torch.tensor([0, 0])

    evaluator = CachedEvaluator(full, lambda losses, key: losses.smoothing > 0.045)
    found, _ = evaluator(given, KEY)
    assert found[:5].isnan().all()
    assert torch.equal(found[5:, 0], given.smoothing[5:])
    assert sizes == [PACK]
    assert (evaluator.trained, evaluator.screened) == (5, 5)


def test_networks_of_which_none_passes_are_all_nan():
    evaluator = CachedEvaluator(
        lambda losses, key: (torch.ones(len(losses), 2), torch.tensor([0, 0])),
        lambda losses, key: torch.zeros(len(losses), dtype=torch.bool),
    )
    found, _ = evaluator(CrossEntropies.of(3), KEY)
    assert found.shape == (3, 2)
    assert found.isnan().all()
    assert (evaluator.trained, evaluator.screened) == (0, 3)


# --- with the engine ---


def test_the_engine_gives_survivors_what_it_gives_without_a_screen(open_tiny):
    episodes = open_tiny(inner={"steps": 12, "lr": 0.2})
    losses = formulas("-y*logp", "y*logp", "square(p - y)", "-y*p", "exp(exp(9 - y*logp))")
    with Local(memory=1 << 26, workers=1) as engine:
        evaluation = LossEvaluation(engine, (episodes,), Stream(0))
        full = partial(evaluation.search_scores, 4, 4)
        rivals = evaluation.tune_baseline((0.2,), 4)
        passes = partial(evaluation.passes_screening, ScreeningBudget(8, 3, 0.5), rivals, 4)
        plain = CachedEvaluator(full)
        evaluator = CachedEvaluator(full, passes)
        without, _ = plain(losses, KEY)
        found, _ = evaluator(losses, KEY)
    left = ~found.isnan().all(1)
    assert left.tolist()[:2] == [True, False]
    assert not left[4]
    assert evaluator.screened == int((~left).sum()) < 4
    assert (found[left] - without[left]).abs().max() <= 1 / 12 + 1e-6
    assert evaluator.control == pytest.approx(plain.control, abs=1 / 12)
    assert evaluator.control == pytest.approx(found[0].double().mean().item())


def test_the_screen_measures_by_the_way_from_chance_to_cross_entropy(open_tiny, monkeypatch):
    asked = []

    def fixed(self, losses, pool, key, tasks, *, val=None, lr=None, steps=()):
        asked.append((len(losses), tasks, lr, steps))
        scores = [0.9] if lr else [0.63, 0.65, torch.nan, 1.0]
        return torch.tensor(scores)[None, :, None].repeat(1, 1, tasks)

    monkeypatch.setattr(FamilyEvaluation, "scores", fixed)
    tuned = Tuned(CrossEntropies.of(1), 0.3, 10, torch.zeros(1))
    with Local(workers=1) as engine:
        evaluation = LossEvaluation(engine, (open_tiny(inner={"steps": 10}),), Stream(0))
        passed = evaluation.passes_screening(
            ScreeningBudget(20, 2, 0.54), [tuned], 4, CrossEntropies.of(4), KEY
        )
    assert passed.tolist() == [False, True, False, True]  # 1/3 + 0.54 (0.9 - 1/3) = 0.64
    assert asked == [(4, 2, None, (10,)), (1, 2, 0.3, (10,))]
