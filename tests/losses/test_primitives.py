"""Every primitive against an independent reference, autograd, sympy and its stand-alone source."""

import warnings

import numpy as np
import pytest
import scipy.special
import sympy
import torch

from metaloss.losses.language.primitives import EVOMAL, MORGAN_BINARY, MORGAN_UNARY, PRIMITIVES

E = 1e-7
BOTH = [-30.0, -7.5, -2.25, -1.0, -0.3, -1e-3, 1e-9, 1e-3, 0.2, 0.7, 1.0, 1.9, 4.5, 30.0]
POSITIVE = [x for x in BOTH if x > 1e-8]
REFERENCE = {
    "neg": lambda x: -x,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "quotient": lambda a, b: a / (b + E),
    "aq": lambda a, b: a / np.hypot(1, b),
    "max": np.maximum,
    "min": np.minimum,
    "clip": np.clip,
    "exp": np.exp,
    "expm1": np.expm1,
    "exact_log": np.log,
    "ln": lambda x: np.log(np.abs(x) + E),
    "log10": lambda x: np.log10(np.abs(x) + E),
    "log_clamp": lambda x: np.log(np.maximum(np.abs(x), E)),
    "sqrt": lambda x: np.abs(x) ** 0.5,
    "sqrt_clamp": lambda x: np.maximum(np.abs(x), E) ** 0.5,
    "square": lambda x: x * x,
    "abs": np.abs,
    "sign": np.sign,
    "relu": lambda x: np.maximum(x, 0),
    "nrelu": lambda x: np.minimum(x, 0),
    "sigmoid": scipy.special.expit,
    "dsigmoid": lambda x: scipy.special.expit(x) * scipy.special.expit(-x),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "deriv_soft": lambda x: 1 / (1 + np.abs(x)),
    "tanh": np.tanh,
    "dtanh": lambda x: 1 - np.tanh(x) ** 2,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "sin": np.sin,
    "cos": np.cos,
    "sinh": np.sinh,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "inverse": lambda x: 1 / (x + E),
    "i0": scipy.special.i0,
    "i0e": scipy.special.i0e,
    "i1": scipy.special.i1,
    "i1e": scipy.special.i1e,
}
EVERY = pytest.mark.parametrize("name", PRIMITIVES)


def arguments(name, dtype=torch.float64):
    """Every combination of some ordinary numbers that the primitive is defined for."""
    if name == "clip":
        columns = ([-2.0, -0.5, 0.1, 0.4, 3.0], [-1.0, 0.0], [0.3, 2.0])
    elif name == "pow":
        columns = (POSITIVE, [-1.5, 0.5, 1.0, 2.0, 3.3])
    elif name == "exact_log":
        columns = (POSITIVE,)
    else:
        columns = (BOTH, [x + 0.01 for x in BOTH])[: PRIMITIVES[name].arity]
    return [
        x.to(dtype).flatten() for x in torch.meshgrid(*map(torch.tensor, columns), indexing="ij")
    ]


def autograd(name, args):
    """The value, and autograd's gradients for gradients of 1.7 at the output."""
    leaves = [x.clone().requires_grad_() for x in args]
    out = PRIMITIVES[name].run(*leaves)
    grads = torch.autograd.grad(out, leaves, torch.full_like(out, 1.7), allow_unused=True)
    return out.detach(), [torch.zeros_like(out) if g is None else g for g in grads]


def test_there_is_a_reference_for_every_primitive():
    assert REFERENCE.keys() == PRIMITIVES.keys()
    assert all(
        name == row.name and len(row.derivatives) == row.arity for name, row in PRIMITIVES.items()
    )


def test_the_published_sets_are_there():
    assert len(set(MORGAN_UNARY)) == 27
    assert len(set(MORGAN_BINARY)) == 7
    assert len(set(EVOMAL)) == 12
    assert {*MORGAN_UNARY, *MORGAN_BINARY, *EVOMAL} <= PRIMITIVES.keys()
    assert all(PRIMITIVES[name].arity == 1 for name in MORGAN_UNARY)
    assert all(PRIMITIVES[name].arity == 2 for name in MORGAN_BINARY)


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_values_are_those_of_the_reference(name, dtype, tolerance):
    args = arguments(name, dtype)
    with np.errstate(all="ignore"):
        expected = REFERENCE[name](*[x.double().numpy() for x in args])
    found = PRIMITIVES[name].run(*args)
    assert found.dtype == dtype
    # Sin and erfc of ±30 are conditioned badly in float32.
    small = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(
        found.double(), torch.as_tensor(expected), rtol=tolerance, atol=tolerance * small * 1e5
    )


@EVERY
def test_reverse_derivatives_are_those_of_autograd(name):
    args = arguments(name)
    out, expected = autograd(name, args)
    found = PRIMITIVES[name].reverse(torch.full_like(out, 1.7), out, *args)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.expand_as(theirs), theirs, rtol=1e-11, atol=1e-12)


@EVERY
def test_derivatives_are_those_of_small_differences(name):
    args = [x + 1e-4 for x in arguments(name)]  # off the kinks
    if name in ("log_clamp", "sqrt_clamp", "ln", "log10", "sqrt"):
        args = [x[x.abs() > 1e-2] for x in args]
    inputs = tuple(x.requires_grad_() for x in args)
    assert torch.autograd.gradcheck(PRIMITIVES[name].run, inputs, atol=1e-4, rtol=1e-4)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinks_have_autograds_gradient_and_no_nan(name, dtype):
    places = torch.tensor([0.0, 1.0, -1.0, 1e-7, 0.5], dtype=dtype)
    args = [x.flatten() for x in torch.meshgrid(*[places] * PRIMITIVES[name].arity, indexing="ij")]
    if name == "pow":
        args = [args[0].abs(), args[1]]
    if name == "clip":
        args = [x[args[1] < args[2]] for x in args]
    if name in ("div", "exact_log"):
        args = [x[args[-1] > 0] for x in args]
    out, expected = autograd(name, args)
    found = PRIMITIVES[name].reverse(torch.full_like(out, 1.7), out, *args)
    for ours, theirs in zip(found, expected, strict=True):
        infinite = out.isinf()  # 0 to a negative power
        assert not ours.expand_as(out)[~infinite].isnan().any()
        assert ours.expand_as(out)[~infinite].isfinite().all()
        torch.testing.assert_close(
            ours.expand_as(out)[~infinite], theirs[~infinite], rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    "name",
    sorted(
        {*MORGAN_UNARY, *EVOMAL} - {"exp", "sinh", "square", "mul", "inverse"}
        | {"i0", "i1", "softplus"}
    ),
)
def test_huge_arguments_overflow_nowhere(name):
    x = torch.tensor([-1e7, -1e3, -100.0, 100.0, 1e3, 1e7])
    out, expected = autograd(name, [x] * PRIMITIVES[name].arity)
    found = PRIMITIVES[name].reverse(torch.ones_like(x), out, *[x] * PRIMITIVES[name].arity)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in (*expected, *found))


@EVERY
def test_the_infinite_slopes_of_roots_and_powers_are_taken_as_0(name):
    zero = torch.zeros(1)
    if name in ("sqrt", "sqrt_clamp"):
        assert autograd(name, [zero])[1][0].item() == 0
    if name == "pow":
        base, exponent = autograd(name, [zero, torch.tensor([0.5])])[1]
        assert (base.item(), exponent.item()) == (0, 0)


@EVERY
def test_parity_is_what_it_says(name):
    row = PRIMITIVES[name]
    first, *rest = arguments(name)
    if row.parity:
        torch.testing.assert_close(
            row.run(-first, *rest), row.parity * row.run(first, *rest), rtol=0, atol=0
        )


@EVERY
def test_the_source_is_the_function(name):
    row = PRIMITIVES[name]
    args = arguments(name)
    known = dict(zip("abc", args, strict=False))
    found = eval(row.source.format(a="a", b="b", c="c"), {"torch": torch}, known)
    torch.testing.assert_close(found, row.run(*args), rtol=0, atol=0)


@EVERY
def test_the_sympy_counterpart_is_the_function(name):
    row = PRIMITIVES[name]
    symbols = sympy.symbols("a b c", real=True)
    args = [x[:40] for x in arguments(name)]
    function = row.sympy(sympy, *symbols[: row.arity])
    for point in zip(*[x.tolist() for x in args], strict=True):
        exact = {s: sympy.Float(repr(v), 30) for s, v in zip(symbols, point, strict=False)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = float(function.subs(exact).evalf(20))
        found = float(row.run(*[torch.tensor(v, dtype=torch.float64) for v in point]))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@EVERY
def test_latex_names_every_argument_and_closes_its_brackets(name):
    row = PRIMITIVES[name]
    assert all(f"#{i + 1}" in row.latex for i in range(row.arity))
    assert row.latex.count("{") == row.latex.count("}")
    assert row.latex.count(r"\left") == row.latex.count(r"\right")


@EVERY
def test_the_plain_form_has_the_same_values(name):
    row = PRIMITIVES[name]
    args = [torch.cat([x, torch.tensor([0.0, 1e-7])]) for x in arguments(name)]
    if row.plain:
        torch.testing.assert_close(row.plain(*args), row.run(*args), rtol=0, atol=0)


@EVERY
def test_nan_is_not_hidden(name):
    row = PRIMITIVES[name]
    if name == "sign":
        pytest.skip("torch's own sign of NaN is 0")
    args = [torch.tensor([torch.nan]), torch.tensor([0.5]), torch.tensor([0.7])][: row.arity]
    for run in filter(None, (row.run, row.plain)):
        found = run(*args)
        assert found.isnan().all()
