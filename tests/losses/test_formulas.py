"""P formulas at once, each blind to its neighbours.

Their values by plain recursion, their gradients by autograd.
"""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expression import TAME, evaluate
from trees import expressions, small

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.losses.base import CrossEntropies, TrainingTargets, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import P, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.language.programs import evaluate as run_whole
from metaloss.losses.language.programs import gradient_program, value_program, whole_program

T = 2
B = 5
C = 4
TEXTS = (
    "-y*logp",
    "mean(exp(2.4092 - p - p*y) - cos(cos(sin(p))))",
    "sum(-y*logp, temperature=2)",
    "abs(p - y)",
    "y/i0e(ln(p))",
    "-log10(quotient(p, y)) - p",
    "p",
    "C*y",
    "3",
    "-p*y - p*logp + p",
    "sin(p*logp) + sin(p*logp) - p*logp",
    "mean(clip(p, .2, .5) + max(p, y) - min(p, 1/C), temperature=.5)",
    "aq(p, logp) + (p - p**2)**p",
    "sqrt(y - p)*-logp**2 + 1/(C - p)",
)
FORMS = pytest.mark.parametrize("form", ["each", "grouped"])
LAYOUTS = pytest.mark.parametrize("layout", ["rows", "class-major", "neither"])


def hard():
    return one_hot(Stream(1).integers(C, T, B), C).double()


def soft():
    return Stream(2).normal(T, B, C).double().softmax(-1)


TARGETS = pytest.mark.parametrize("target", [hard, soft])


def losses(form="each", texts=TEXTS):
    return Formulas.of([Formula.parse(text) for text in texts], form)


def logits(n=None, layout="rows"):
    x = 3 * Stream(0).normal(n or len(TEXTS), T, B, C).double()
    if layout == "class-major":
        return x.mT.contiguous().mT
    return x if layout == "rows" else x.permute(1, 3, 0, 2).contiguous().permute(2, 0, 3, 1)


def reference(formula, x, target):
    """The value of one formula at one classifier's logits, written out."""
    logp = (x / formula.temperature).log_softmax(-1)
    p = logp.exp()

    def value(e):
        if e.is_constant or e.head == "C":
            return torch.tensor(e.value if e.is_constant else C, dtype=x.dtype)
        return (
            PRIMITIVES[e.head].run(*map(value, e.args))
            if e.args
            else {"y": target, "p": p, "logp": logp}[e.head]
        )

    terms = value(formula.expression).expand_as(x)
    return (terms.mean(-1) if formula.reduction == "mean" else terms.sum(-1)).mean()


def gradient(values, x):
    if not values.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(values.sum(), x)[0]


@FORMS
@LAYOUTS
@TARGETS
def test_values_and_slopes_are_those_of_each_formula_alone(form, layout, target):
    bound = losses(form).bind(TrainingTargets(target()))
    x = logits(layout=layout).requires_grad_()
    values = bound(x)
    expected = torch.stack(
        [
            torch.stack([reference(f, x[i, t], target()[t]) for t in range(T)])
            for i, f in enumerate(bound.formulas)
        ]
    )
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    by_hand = gradient(expected, x)
    torch.testing.assert_close(gradient(bound(x), x), by_hand, rtol=1e-10, atol=1e-13)
    slope = bound.logit_gradient(x.detach())
    assert slope.shape == x.shape
    torch.testing.assert_close(slope, by_hand, rtol=1e-10, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.lists(expressions(leaves=8).filter(small), min_size=1, max_size=4))
def test_slopes_are_autograds_wherever_autograds_are_finite(found):
    bound = Formulas.of([Formula(e) for e in found], "each").bind(TrainingTargets(soft()))
    x = logits(len(found)).requires_grad_()
    by_autograd = gradient(bound(x), x)
    slope = bound.logit_gradient(x.detach())
    sane = by_autograd.isfinite() & (by_autograd.abs() < 1e100)
    scale = by_autograd.where(sane, 0).abs().amax(-1, keepdim=True)
    # Where parts cancel, what is left of them is as large as their rounding.
    largest = 1 + scale.max() + bound.terms(x).detach().abs().nan_to_num(posinf=0.0).max()
    torch.testing.assert_close(
        slope[sane], by_autograd[sane], rtol=1e-6, atol=1e-12 * float(largest)
    )
    grouped = (
        Formulas.of(bound.formulas, "grouped")
        .bind(TrainingTargets(soft()))
        .logit_gradient(x.detach())
    )
    torch.testing.assert_close(grouped, slope, rtol=1e-12, atol=0, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(expressions(TAME, st.sampled_from([1.0, -1.0, 0.5, 2.0]), leaves=8))
def test_programs_compute_the_expression(e):
    bound = Formulas.of([Formula(e)]).bind(TrainingTargets(soft()))
    x = logits(1)
    expected = evaluate(e, soft(), x[0].log_softmax(-1))
    if e.terminals.isdisjoint(("C", "prior", "past")):  # of ten classes in the other test
        torch.testing.assert_close(
            bound.terms(x)[0], expected.expand(T, B, C), rtol=1e-9, atol=1e-9
        )


@FORMS
def test_some_rows_of_bound_losses_are_the_same_as_binding_some(form):
    x = logits()
    bound = losses(form).bind(TrainingTargets(hard()))
    for rows in (slice(2, 6), torch.tensor([3, 1, 3]), torch.arange(len(TEXTS)) % 2 == 0):
        some = bound[rows]
        assert len(some) == len(x[rows])
        torch.testing.assert_close(
            some.logit_gradient(x[rows]), bound.logit_gradient(x)[rows], rtol=1e-12, atol=0
        )
        torch.testing.assert_close(
            losses(form)[rows].bind(TrainingTargets(hard()))(x[rows]),
            bound(x)[rows],
            rtol=1e-12,
            atol=0,
        )


@FORMS
@TARGETS
def test_picked_images_are_the_same_as_binding_their_targets(form, target):
    index = Stream(5).integers(B, T, 3)
    picked = losses(form).bind(TrainingTargets(target())).minibatch(index)
    x = logits()[:, :, :3]
    expected = losses(form).bind(TrainingTargets(target().take_along_dim(index[..., None], 1)))
    assert torch.equal(picked(x), expected(x))
    assert torch.equal(picked.logit_gradient(x), expected.logit_gradient(x))
    again = torch.tensor([[0], [2]])
    assert torch.equal(
        picked.minibatch(again)(x[:, :, :1]), picked[:].minibatch(again)(x[:, :, :1])
    )


@FORMS
def test_a_candidate_is_blind_to_its_neighbours(form):
    x = logits()
    bound = losses(form).bind(TrainingTargets(hard()))
    clean = bound.logit_gradient(x)
    texts = list(TEXTS)
    texts[1] = "p*exact_log(p - 2)"
    broken = x.clone()
    broken[3] = torch.nan
    found = losses(form, texts).bind(TrainingTargets(hard()))
    others = [i for i in range(len(TEXTS)) if i not in (1, 3)]
    assert found.logit_gradient(broken)[1].isnan().all()
    assert torch.equal(found.logit_gradient(broken)[others], clean[others])
    assert torch.equal(found(broken)[others], bound(x)[others])


def test_both_forms_on_torch_agree_to_the_last_bit_in_float32(monkeypatch):
    monkeypatch.setattr(kernels, "compiler", lambda: "none")  # else each is run by the interpreter
    x = logits().float()
    target = hard().float()
    assert torch.equal(
        losses("each").bind(TrainingTargets(target)).logit_gradient(x),
        losses("grouped").bind(TrainingTargets(target)).logit_gradient(x),
    )


def test_the_terms_add_up_to_the_value():
    x = logits()
    bound = losses().bind(TrainingTargets(soft()))
    assert bound.terms(x).shape == x.shape
    torch.testing.assert_close(bound.terms(x).sum(-1).mean(-1), bound(x), rtol=1e-12, atol=0)


def test_cross_entropy_is_a_formula():
    x = logits(2)
    found = losses(texts=["-y*logp", "-(y*.9 + .1/C)*logp"]).bind(TrainingTargets(hard()))
    expected = CrossEntropies(torch.tensor([0.0, 0.1], dtype=torch.float64)).bind(
        TrainingTargets(hard())
    )
    torch.testing.assert_close(found(x), expected(x), rtol=1e-12, atol=0)


def test_equal_parts_are_computed_once_and_unneeded_ones_never():
    e = Formula.parse("sin(p*logp)*cos(p*logp) + y*C*p").expression
    assert len(value_program(e).steps) == 6  # p·logp, sin, cos, their product; C·y is an input
    assert len(gradient_program(Formula.parse("-y*logp").expression).steps) == 0
    assert {x.text for x in value_program(e).inputs} == {"p", "logp", "C * y"}


def test_many_uses_of_one_node_make_few_steps():
    e = call("sin", P)
    for _ in range(7):
        e = call("mul", e, e)
    # Each level's two gradients are one product, added to itself.
    assert len(gradient_program(call("add", e, call("mul", Y, constant(2)))).steps) < 40


def test_losses_can_be_pickled_and_moved():
    bound = losses().bind(TrainingTargets(hard()))
    x = logits()
    again = pickle.loads(pickle.dumps(bound))
    assert torch.equal(again.logit_gradient(x), bound.logit_gradient(x))


def test_double_backward_works():
    bound = losses(texts=["-y*logp*(1 - p)**2"]).bind(TrainingTargets(hard()))
    assert torch.autograd.gradgradcheck(lambda x: bound(x).sum(), logits(1).requires_grad_())


def test_vmap_may_run_over_the_candidates_logits():
    bound = losses(texts=["-y*logp"]).bind(TrainingTargets(hard()))
    x = logits(3)
    found = torch.vmap(lambda z: bound(z[None])[0])(x)
    torch.testing.assert_close(found, torch.cat([bound(x[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize("text", TEXTS)
def test_a_whole_program_computes_the_terms_from_terminals_alone(text):
    formula = Formula.parse(text)
    program = whole_program(formula.expression)
    assert all(not e.args for e in program.inputs)
    x = logits(1)
    logp = (x / formula.temperature).log_softmax(-1)[0]
    found = run_whole(program, soft(), logp.exp(), logp) / (C if formula.reduction == "mean" else 1)
    torch.testing.assert_close(
        found,
        Formulas.of([formula]).bind(TrainingTargets(soft())).terms(x)[0],
        rtol=1e-12,
        atol=1e-14,
    )
