"""Expressions print as what the parser reads back; canonical forms mean the same."""

import math
import pickle
import subprocess
import sys

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import expressions, small

from metaloss.losses.language.canonical import canonical, digest
from metaloss.losses.language.expression import LOGP, Expression, P, Y, call, constant
from metaloss.losses.language.parser import parse
from metaloss.losses.language.primitives import PRIMITIVES

MANY = settings(max_examples=150, deadline=None)
# Whose values are ordinary numbers wherever p and y are.
TAME = (
    "neg",
    "add",
    "sub",
    "mul",
    "max",
    "min",
    "abs",
    "tanh",
    "sin",
    "cos",
    "aq",
    "sigmoid",
    "square",
    "atan",
    "i0e",
)
TAME_TREES = expressions(TAME, st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, -3.25]))


def evaluate(e, y, logp):
    """The value by plain recursion."""
    known = {"y": y, "p": logp.exp(), "logp": logp, "C": torch.tensor(10.0, dtype=y.dtype)}
    known["cost"] = 1 - y
    even = {
        "prior": 0.1,
        "logprior": 0.0,
        "count": 1.0,
        "t": 0.5,
        "logn": math.log(50),
        "past": 0.1,
    }
    known |= {name: torch.tensor(x, dtype=y.dtype) for name, x in even.items()}
    if not e.args:
        return torch.tensor(e.value, dtype=y.dtype) if e.is_constant else known[e.head]
    return PRIMITIVES[e.head].run(*[evaluate(a, y, logp) for a in e.args])


def places():
    """Some targets and log-probabilities."""
    y, p = torch.meshgrid(
        torch.tensor([0.0, 0.013, 0.4, 1.0]), torch.tensor([1e-6, 0.031, 0.37, 0.93]), indexing="ij"
    )
    return y.double().flatten(), p.double().flatten().log().requires_grad_()


@MANY
@given(expressions().filter(small))
def test_what_is_printed_reads_back_as_the_same_tree(e):
    assert parse(str(e)) == e
    assert str(parse(str(e))) == str(e)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("-y*logp", "-y * logp"),
        ("-(y*logp)", "-(y * logp)"),
        ("p-(y-1)", "p - (y - 1.0)"),
        ("p-y-1", "p - y - 1.0"),
        ("p/(y*C)", "p / (y * C)"),
        ("2**3**p", "2.0 ** 3.0 ** p"),
        ("(2**3)**p", "(2.0 ** 3.0) ** p"),
        ("-2**p", "-2.0 ** p"),
        ("(-2)**p", "(-2.0) ** p"),
        ("p**-y", "p ** -y"),
        ("--2", "--2.0"),
        ("-(2)", "-(2.0)"),
        ("p--2e-9", "p - -2e-09"),
        ("max( p ,y )", "max(p, y)"),
        ("-0.0", "0.0"),
        (".5*p", "0.5 * p"),
    ],
)
def test_text_is_tidied_without_changing_the_tree(text, printed):
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)


def test_operators_bind_as_in_python():
    p = 0.3
    y = 0.8
    for text in (
        "p-y-p",
        "p/y/p",
        "-p**y",
        "p**-y",
        "p**y**p",
        "2-p*y+p/y",
        "-p*y",
        "-(p+y)*2",
        "p*-y",
        "(p-y)*(p+y)",
    ):
        found = evaluate(parse(text), torch.tensor(y).double(), torch.tensor(p).double().log())
        assert float(found) == pytest.approx(eval(text, {"p": p, "y": y}))


def test_size_height_terminals_and_nodes_are_those_of_the_tree():
    e = parse("-y*logp + 2*C")
    assert (e.size, e.height, e.terminals) == (8, 3, {"y", "logp", "C"})
    assert [n.head for n in e] == ["add", "mul", "neg", "y", "logp", "mul", "", "C"]
    assert e.varies
    assert not parse("y*C").varies
    assert constant(2).terminals == frozenset()


def test_expressions_are_values():
    e = parse("sin(p)*y")
    assert len({e, parse("sin(p) * y"), parse("y*sin(p)")}) == 2
    with pytest.raises(AttributeError):
        e.head = "cos"
    with pytest.raises(ValueError, match="max takes 2 arguments, got 1"):
        call("max", P)


def test_pickled_expressions_keep_their_hash_in_a_process_of_its_own():
    e = parse("sin(p)*y")
    assert pickle.loads(pickle.dumps(e)) == e
    code = (
        "import pickle, sys; from metaloss.losses.language.parser import parse;"
        "e = pickle.loads(sys.stdin.buffer.read()); assert {parse('sin(p)*y'): 1}[e]"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(e), check=True)


# --- the canonical form ---


@MANY
@given(expressions().filter(small))
def test_the_canonical_form_is_its_own(e):
    once = canonical(e)
    assert canonical(once) == once
    assert parse(str(once)) == once
    assert once.size <= e.size


@settings(max_examples=150, deadline=None)
@given(TAME_TREES)
def test_the_canonical_form_has_the_same_value_and_gradient(e):
    results = []
    for form in (e, canonical(e)):
        y, logp = places()
        value = evaluate(form, y, logp).expand_as(logp)
        gradient = torch.zeros_like(logp)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), logp)
        results.append((value.detach(), gradient))
    (value, gradient), (value_too, gradient_too) = results
    usable = value.isfinite() & gradient.isfinite() & (value.abs() < 1e100)
    torch.testing.assert_close(value_too[usable], value[usable], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient_too[usable], gradient[usable], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("p*y", "y * p"),
        ("-(y*logp)", "-y * logp"),
        ("y*-logp", "-y * logp"),
        ("logp*-y", "-y * logp"),
        ("p+0", "p"),
        ("0-p", "-p"),
        ("1*p", "p"),
        ("p/1", "p"),
        ("--p", "p"),
        ("p*-1", "-p"),
        ("p--y", "y + p"),
        ("-(p-y)", "y - p"),
        ("square(p-y)", "square(y - p)"),
        ("abs(abs(-p))", "abs(p)"),
        ("sin(-p)", "-sin(p)"),
        ("max(p, p)", "p"),
        ("max(p, y)", "max(y, p)"),
        ("aq(p, 0)", "p"),
        ("p**1", "p"),
        ("p**2", "square(p)"),
        ("exp(logp)", "p"),
        ("2*3+p", "6.0 + p"),
        ("p/(2-2)", "p / 0.0"),
        ("1/0", "1.0 / 0.0"),
        ("exact_log(0)", "exact_log(0.0)"),
        ("p*0", "0.0 * p"),
        ("p-p", "p - p"),
        ("softsign(C-1)", "softsign(C - 1.0)"),
        ("p*(C-1)", "p * (C - 1.0)"),
        ("(C-1)+(p-y)", "C - 1.0 - (y - p)"),
        ("C-1-C", "C - 1.0 - C"),
        ("-(p+y*2)", "-2.0 * y - p"),
        ("p+(y+p)", "p + (y + p)"),
    ],
)
def test_safe_identities_are_used_and_others_are_not(text, form):
    assert str(canonical(parse(text))) == form


def test_expressions_that_are_the_same_have_one_digest():
    assert (
        digest(parse("-(logp*y)"))
        == digest(parse("y * -logp"))
        == digest(call("mul", call("neg", Y), LOGP))
    )
    assert digest(parse("-y*logp")) != digest(parse("y*logp"))
    assert digest(parse("-y*logp")) == "11bdd9cbeaadca3df841ae033a0f09ab"


# --- other notations ---


@MANY
@given(expressions().filter(small))
def test_latex_is_balanced(e):
    text = e.latex()
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")
    assert "#" not in text


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("-y*logp", r"-y \cdot \ln \hat{y}"),
        ("(p-y)*C", r"\left(\hat{y} - y\right) \cdot C"),
        ("1/C", r"\frac{1}{C}"),
        ("logp**2", r"{\left(\ln \hat{y}\right)}^{2}"),
        ("p**(y+1)", r"{\hat{y}}^{y + 1}"),
        ("1e-7+p", r"1 \cdot 10^{-7} + \hat{y}"),
        ("p**-0.5", r"{\hat{y}}^{-0.5}"),
        ("-(p+y)", r"-\left(\hat{y} + y\right)"),
    ],
)
def test_latex_reads_as_one_would_write_it(text, latex):
    assert parse(text).latex() == latex


@settings(max_examples=60, deadline=None)
@given(expressions(TAME, st.sampled_from([1.0, -1.0, 0.5, 2.0]), leaves=6))
def test_sympy_gets_the_same_function(e):
    y, logp = (x.detach() for x in places())
    symbols = [
        sympy.Symbol("y", real=True),
        sympy.Symbol("p", positive=True),
        sympy.Symbol("C", positive=True),
        sympy.Symbol("prior", positive=True),
        sympy.Symbol("count", positive=True),
        sympy.Symbol("cost", real=True),
        sympy.Symbol("t", real=True),
        sympy.Symbol("N", positive=True),
        sympy.Symbol("past", positive=True),
    ]
    for i in (1, 6, 11):
        target, p = float(y[i]), float(logp[i].exp())
        values = (target, p, 10.0, 0.1, 1.0, 1 - target, 0.5, 50.0, 0.1)
        point = dict(zip(symbols, values, strict=True))
        expected = float(sympy.N(e.to_sympy().subs(point)))
        found = float(evaluate(e, y[i], logp[i]))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_constant_is_never_minus_zero():
    assert str(constant(-0.0)) == "0.0"
    assert Expression("", value=-0.0) == constant(0)
