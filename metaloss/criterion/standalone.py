"""A loss as Python that needs torch alone: what every loss shares, as text, and its own terms."""

import inspect
import re
from dataclasses import asdict

from metaloss._version import __version__
from metaloss.criterion import loss_module
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.loss_module import LossModule
from metaloss.criterion.no_formula import BatchCriterion, ImageCriterion, standalone_source
from metaloss.errors import SettingsError
from metaloss.genomes import Exportable
from metaloss.losses import clock, costs, past, prior
from metaloss.losses.language.expression import (
    CLASS_TERMINALS,
    CLOCK_TERMINALS,
    COST,
    Expression,
)
from metaloss.losses.language.formula import NO_SCALE, NO_SHIFT
from metaloss.losses.language.primitives import PRIMITIVES

MODULE = '''"""{title}

Written by metaloss {version}. Needs torch alone: `Loss()` stands where \
`torch.nn.CrossEntropyLoss()` stood.{note}
"""

import math
{imports}
import torch


{shared}


class Loss({base}):
    """The loss, with the options that it was written with."""

    weighs_terms = {weighs_terms}
    reads_clock = {reads_clock}
    reads_past = {reads_past}

    def __init__(self, {parameters}):
        super().__init__({arguments})
{body}'''


def python(criterion: Criterion) -> str:
    """The source of a module that needs torch alone.

    Raises:
        SettingsError: there is no Python for the loss.
    """
    base: type = LossModule
    shared = "\n\n\n".join(map(_after_imports, (prior, costs, clock, past, loss_module)))
    defaults = {name: getattr(criterion, name) for name in Criterion.OPTIONS}
    arguments = ", ".join(f"{name}={name}" for name in defaults)
    imports, body = "", []
    if isinstance(criterion, BatchCriterion | ImageCriterion):
        base, source = standalone_source(criterion)
        imports = "from dataclasses import dataclass\n"
        shared = f"{shared}\n\n\n{source}"
        own = asdict(criterion.loss)
        made = ", ".join(f"{name}={name}" for name in own)
        arguments = f"{type(criterion.loss).__name__}({made}), {arguments}"
        defaults = {**own, **defaults}
    else:
        body = _methods(criterion)
    for name in ("weight", "prior", "costs"):
        numbers = defaults[name]
        defaults[name] = None if numbers is None else numbers.tolist()
    lines = "".join(f"    {line}\n" if line else "\n" for line in body)
    return MODULE.format(
        title=criterion.describe().rstrip(".") + ".",
        version=__version__,
        note="".join(f"\n\n{note}" for note in criterion.notes),
        imports=imports,
        shared=shared,
        base=base.__name__,
        weighs_terms=criterion.weighs_terms,
        reads_clock=criterion.reads_clock,
        reads_past=criterion.reads_past,
        parameters=", ".join(f"{name}={value!r}" for name, value in defaults.items()),
        arguments=arguments,
        body=lines,
    )


def _after_imports(module: object) -> str:
    """A module's text from behind its last import on."""
    source = inspect.getsource(module)  # type: ignore[arg-type]
    return re.split(r"(?m)^(?:import|from) .*\n", source)[-1].strip()


def _methods(criterion: Criterion) -> list[str]:
    """The lines of what a loss adds."""
    if isinstance(criterion, FormulaCriterion):
        return _formula(criterion)
    if isinstance(criterion, GenomeCriterion) and isinstance(criterion.genome, Exportable):
        return _method("terms(self, z, y)", criterion.genome.torch_source(criterion.candidate))
    raise SettingsError(f"{type(criterion).__name__} cannot be written as Python")


def _method(head: str, lines: list[str]) -> list[str]:
    return ["", f"def {head}:", *(f"    {line}" if line else "" for line in lines)]


def _formula(criterion: FormulaCriterion) -> list[str]:
    """The code of its terms.

    The part that is 0 in a class without a share of the target is selected there, not multiplied by
    0.
    """
    formula = criterion.formula
    z = "z" if formula.temperature == 1 else f"(z / {formula.temperature!r})"
    moves = [("scale", formula.scale, NO_SCALE), ("shift", formula.shift, NO_SHIFT)]
    moves = [move for move in moves if move[1] != move[2]]
    for name, _, _ in moves:
        # For even classes, or for every image, a move may be one number, which is expanded.
        z = f"({z} {'*' if name == 'scale' else '+'} self.{name}(y, z))"
    due, rest = formula.divided
    lines = [f"logp = {z}.log_softmax(-1)"]
    lines += ["absent = y == 0"] if due else []
    parts = ["self.due(y, logp.masked_fill(absent, 0)).masked_fill(absent, 0)"] if due else []
    parts += ["self.rest(y, logp)"] if rest else []
    value = " + ".join(parts)
    lines.append(
        f"return ({value}) / z.shape[-1]" if formula.reduction == "mean" else f"return {value}"
    )
    methods = _method("terms(self, z, y)", lines)
    for name, e in (("due", due), ("rest", rest), *((name, e) for name, e, _ in moves)):
        methods += _method(f"{name}(self, y, logp)", _expression(e)) if e else []
    return methods


def _expression(e: Expression) -> list[str]:
    """The lines that compute an expression of y and logp."""
    lines = ["p = logp.exp()", "C = torch.full_like(p[:1, :1], p.shape[-1])"]
    if read := sorted(e.terminals & CLASS_TERMINALS):
        lines.append("known = self.class_terminals(p.shape[-1], p)")
        lines += [f"{name} = known[{name!r}]" for name in read]
    if e.reads_clock:
        lines.append("clock = self.clock_terminals(p)")
        read = sorted(e.terminals & CLOCK_TERMINALS)
        lines += [f"{name} = clock[{name!r}].expand(1, 1)" for name in read]
    if e.reads_past:
        lines.append("past = self.past_terminal(p, p.shape[-1]).expand_as(p)")
    lines += ["cost = self.image_costs(y)"] if COST.head in e.terminals else []
    names: dict[Expression, str] = {}

    def name(e: Expression) -> str:
        """The variable that holds an expression, after the lines that fill it.

        Equal expressions are computed once.
        """
        if e not in names:
            if e.is_constant:
                value = f"torch.full_like(p[:1, :1], {e.value!r}, dtype=torch.float64).to(p)"
            elif not e.args:
                return e.head
            else:
                value = PRIMITIVES[e.head].source.format(
                    **dict(zip("abc", map(name, e.args), strict=False))
                )
            names[e] = f"t{len(names)}"
            lines.append(f"{names[e]} = {value}")
        return names[e]

    result = name(e)
    return [*lines, f"return {result}.expand_as(p)"]
