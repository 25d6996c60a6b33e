"""Primitives that torch computes number by number, or in several passes, as compiled loops for a
CPU.

They stand in for the steps of a program that no autograd follows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from metaloss import kernels
from metaloss.losses.language.primitives import PRIMITIVES, bessel
from metaloss.losses.language.primitives.base import where_above
from metaloss.losses.language.programs import Program, Run


def quick(run: Run, like: Tensor) -> Run:
    """The compiled form of a step, where there is one for numbers such as these; else the step."""
    known = kernels.available() and like.device.type == "cpu" and like.dtype == torch.float32
    return _table().get(run, run) if known else run


def quick_steps(program: Program, like: Tensor) -> Program:
    """The program with the compiled forms of its steps."""
    return replace(program, steps=tuple((quick(run, like), args) for run, args in program.steps))


@cache
def _table() -> dict[Run, Run]:
    """Each step's compiled form."""
    from metaloss.kernels import functions

    return _forms(functions)


def _forms(functions: ModuleType) -> dict[Run, Run]:
    names = ("i0", "i1", "i0e", "i1e", "softplus", "sinh", "asinh", "tanh", "dtanh", "dsigmoid")
    form = {x: _of_each(getattr(functions, f"fill_{x}")) for x in (*names, "cosh")}
    forms: dict[Run, Run] = {PRIMITIVES[name].run: form[name] for name in names}
    derivatives: dict[str, Run] = {
        # Those of the table, with the compiled functions in them.
        "i0": lambda g, a: where_above(g * form["i1"](a), -a.abs(), -bessel.BOUND),
        "i1": lambda g, o, a: where_above(
            g * (form["i0"](a) - bessel.ratio(o, a)), -a.abs(), -bessel.BOUND
        ),
        "i0e": lambda g, o, a: g * (form["i1e"](a) - a.sign() * o),
        "i1e": lambda g, o, a: g * (form["i0e"](a) - o.abs() - bessel.ratio(o, a)),
        "sinh": lambda g, a: g * form["cosh"](a),
        "dtanh": lambda g, o, a: g * o * form["tanh"](a) * 2,
        "dsigmoid": lambda g, o, a: g * o * form["tanh"](a * 0.5),
    }
    for name, quicker in derivatives.items():
        (derivative,) = PRIMITIVES[name].derivatives
        assert derivative is not None
        assert derivative.run is not None
        forms[derivative.run] = quicker
    return forms


def _of_each(fill: Callable[..., None]) -> Callable[[Tensor], Tensor]:
    """A compiled function of one number, as one of all numbers of a tensor."""

    def run(x: Tensor) -> Tensor:
        x = x.contiguous()
        result = torch.empty_like(x)
        fill(x.view(-1).numpy(), result.view(-1).numpy())
        return result

    return run
