"""The compiled interpreter gives what torch gives, of every primitive and of whole formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from trees import expressions, small

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.losses import _compiled_programs, zoo
from metaloss.losses.base import Clock, TrainingTargets, at, one_hot
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.parser import parse
from metaloss.losses.language.primitives import PRIMITIVES

pytest.importorskip("numba")

T, B, C = 2, 37, 4
PUBLISHED = [name for name in zoo.names() if zoo.entry(name).text]
SEARCHED = [name for name in PRIMITIVES if name not in ("pow", "exact_log", "div")]


def sizes():
    """Numbers of every size and sign, zero, and those that are not finite."""
    size = torch.cat([torch.linspace(0, 100, 2001), torch.logspace(-30, 30, 601)])
    bad = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0])
    return torch.cat([size, -size, bad])


def run(function, *values):
    """What the interpreter gives for a function of a program, on values [n]."""
    from metaloss.kernels.losses import programs

    rows = np.zeros((5, len(values[0])), np.float32)
    rows[: len(values)] = torch.stack(values).numpy()
    programs.run_operation(rows, _compiled_programs.operations()[function], 0, 1, 2, 3, 4)
    return torch.from_numpy(rows[4])


def operands(arity, x):
    """Arguments among which each number meets many others."""
    return [x, *(x.roll(701 * k) * (1, 3)[k - 1] for k in range(1, arity))]


@pytest.fixture
def without(monkeypatch):
    """As where numba is not installed."""
    monkeypatch.setattr(kernels, "compiler", lambda: "none")


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_is_torchs_to_a_few_last_bits(name):
    row = PRIMITIVES[name]
    values = operands(row.arity, sizes())
    wanted = row.run(*(v.double() for v in values)).float()
    # Where float32 itself ends otherwise than float64, what torch makes of float32 counts.
    own = row.run(*values)
    wanted = wanted.where(own.isfinite() & wanted.isfinite(), own)
    torch.testing.assert_close(run(row.run, *values), wanted, rtol=3e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_its_derivatives_are_torchs(name):
    row = PRIMITIVES[name]
    for x in (Stream(1).normal(500) * 5, Stream(1).uniform(500)):
        args = operands(row.arity, x)
        values = {
            "g": Stream(2).normal(500),
            "o": row.run(*args),
            **dict(zip("abc", args, strict=False)),
        }
        for derivative in row.derivatives:
            if derivative is None or derivative.run is None:
                continue
            needs = [values[n] for n in derivative.needs]
            wanted = derivative.run(*(v.double() for v in needs)).float()
            found = run(derivative.run, *needs)
            torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-6, equal_nan=True)


def situation(texts, dtype=torch.float32):
    z = 2 * Stream(3).normal(len(texts), T, C, B).mT.to(dtype)
    target = one_hot(Stream(4).integers(C, T, B), C).to(dtype)
    return Formulas.of([Formula.parse(x) for x in texts]).bind(TrainingTargets(target)), z


def by_torch(bound, z):
    """The gradient in torch's operations."""
    again = replace(bound)
    again.__dict__["_compiled"] = None
    return again.logit_gradient(z)


TEXTS = [
    "-y*logp",
    "mean(-y*logp + C*p*p)",
    "sum(-y*logp*(1 - p)**2, temperature=2)",
    "sum(square(p - y), scale=2, shift=.5*y)",
    "-(.7*y + .3*past)*logp",
    "-y*logp*(1 + t) + .1*logn*p*exp(-prior)",
    "y*t",
    "7",
    "max(p, y)*(p - 3) + sinh(p*y)/(2 + sin(logp))",
]


@pytest.mark.parametrize("steps_done", [0, 7])
def test_gradients_are_those_of_torch(steps_done):
    bound, z = situation(TEXTS)
    precise, _ = situation(TEXTS, torch.float64)
    for _ in range(3):
        bound, precise = (at(x, Clock.of(steps_done, 20)) for x in (bound, precise))
        found = bound.logit_gradient(z)
        assert bound._compiled is not None
        assert precise._compiled is None
        wanted = precise.logit_gradient(z.double()).float()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
        bound, precise = bound.after(z), precise.after(z.double())
        z = z.roll(1, -1)


def test_some_images_of_each_task():
    bound, z = situation(TEXTS)
    index = torch.stack([Stream(i).permutation(B)[:9] for i in range(T)])
    some = bound.minibatch(index)
    shown = z.mT.gather(-1, index[:, None].expand(len(z), T, C, 9)).mT
    precise = situation(TEXTS, torch.float64)[0].minibatch(index)
    wanted = precise.logit_gradient(shown.double()).float()
    torch.testing.assert_close(some.logit_gradient(shown), wanted, rtol=1e-4, atol=1e-7)
    rows = torch.tensor([7, 2, 4])
    assert torch.equal(some[rows].logit_gradient(shown[rows]), some.logit_gradient(shown)[rows])


@pytest.mark.parametrize("classes", [2, 3, 101])
def test_any_number_of_classes_and_images(classes):
    formulas = Formulas.of([Formula.parse(x) for x in ("-y*logp + p*p", "square(p - y)/C")])
    for images in (1, 31, 32, 65):
        target = one_hot(Stream(4).integers(classes, 3, images), classes)
        z = Stream(5).normal(2, 3, classes, images).mT
        found = formulas.bind(TrainingTargets(target)).logit_gradient(z)
        precise = formulas.bind(TrainingTargets(target.double()))
        wanted = precise.logit_gradient(z.double()).float()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_losses_at_ordinary_and_at_extreme_logits(name):
    formula = zoo.entry(name).formula()
    target = one_hot(Stream(4).integers(C, T, B), C)
    for size in (1, 30, 3000):
        z = size * Stream(6).normal(1, T, C, B).mT
        bound = Formulas.of([formula]).bind(TrainingTargets(target))
        found = bound.logit_gradient(z)
        torch.testing.assert_close(found, by_torch(bound, z), rtol=2e-4, atol=2e-6, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(expressions(tuple(SEARCHED)).filter(small))
def test_any_expression_is_what_torch_makes_of_it(e):
    lines = _compiled_programs.gradient_lines(e)
    assert lines is not None
    # A step never fills what it reads, nor what a step of the training gives, nor an input.
    kept = {0, 1, 2, *(r for _, r in lines.inputs)}
    for operation, result, *read in lines.lines.tolist():
        assert operation >= 0
        assert result not in kept
        assert result not in read
    target = one_hot(Stream(4).integers(C, T, B), C)
    z = Stream(6).normal(1, T, C, B).mT
    bound = Formulas.of([Formula(e)]).bind(TrainingTargets(target))
    found = bound.logit_gradient(z)
    precise = Formulas.of([Formula(e)]).bind(TrainingTargets(target.double()))
    wanted = precise.logit_gradient(z.double()).float()
    own = by_torch(bound, z)
    # What rounding makes of it in torch's own float32 is as far as two forms of it may differ, and
    # what is left where large numbers take each other away.
    logp = z.double().mT.log_softmax(-2)
    size = precise._by_logp(logp, logp.exp()).abs()
    scale = size.where(size.isfinite(), 0).amax() / B
    slack = 20 * (own - wanted).abs().nan_to_num(torch.inf) + 1e-5 * scale + 1e-4 * wanted.abs()
    near = (found - wanted).abs() <= slack
    assert bool((near | ~wanted.isfinite() | ~own.isfinite()).all())


def test_what_is_not_finite_stays_with_its_candidate():
    texts = ["-y*logp", "exact_log(p - 2)*p", "-y*logp + p", "p/(y - y)", "square(p - y)"]
    bound, z = situation(texts)
    good = [0, 2, 4]
    alone = Formulas.of([bound.formulas[i] for i in good]).bind(
        TrainingTargets(one_hot(Stream(4).integers(C, T, B), C))
    )
    found = bound.logit_gradient(z)
    assert not found[1].isfinite().any()
    assert not found[3].isfinite().all()
    assert torch.equal(found[good], alone.logit_gradient(z[good]))
    z[0, 0, 2, 3] = torch.nan
    z[2, 0, 2, 3] = torch.inf
    found = bound.logit_gradient(z)
    assert found[0, 0, 2].isnan().all()
    assert not found[2, 0, 2].isfinite().all()
    assert found[4].isfinite().all()
    others = [b for b in range(B) if b != 2]
    assert found[0, 0, others].isfinite().all()


def test_torch_computes_what_the_interpreter_does_not_know(monkeypatch):
    texts = ["-y*logp", "-y*logp + erf(p)"]
    known = dict(_compiled_programs.operations())
    del known[PRIMITIVES["erf"].run]
    del known[PRIMITIVES["erf"].derivatives[0].run]
    wanted = situation(texts)[0].logit_gradient(situation(texts)[1])
    _compiled_programs.gradient_lines.cache_clear()
    monkeypatch.setattr(_compiled_programs, "operations", lambda: known)
    bound, z = situation(texts)
    assert bound._compiled is None
    torch.testing.assert_close(bound.logit_gradient(z), wanted)
    _compiled_programs.gradient_lines.cache_clear()


def test_torch_computes_all_where_there_is_no_compiler(without):
    bound, _ = situation(["-y*logp"])
    assert bound._compiled is None


def test_registers_are_used_again():
    text = "+".join(f"sin({k}*p)" for k in range(1, 30))
    lines = _compiled_programs.gradient_lines(parse(text))
    numbers = len(lines.inputs)
    assert len(lines.lines) > 60
    assert lines.registers < numbers + 3 + 35
