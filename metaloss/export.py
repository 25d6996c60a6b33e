"""A loss for others: Python that needs torch alone, LaTeX, a torch.export program, or the folder that `load` reads."""

import io
import json
from pathlib import Path

import torch
from torch import Tensor

from metaloss import catalogue, storage
from metaloss._version import __version__
from metaloss.criterion import Criterion, FormulaCriterion, GenomeCriterion
from metaloss.errors import SettingsError
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.genomes.targets import LearnedTargets
from metaloss.language.expression import Expression
from metaloss.language.primitives import PRIMITIVES

SUFFIXES = (".py", ".tex", ".pt2", ".json")

MODULE = '''"""{title}

Written by metaloss {version}. Needs torch alone.
"""

import math

import torch


class Loss(torch.nn.Module):
    """Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N, C, ...]."""

    def forward(self, logits, target):
        """The mean over the batch."""
        with torch.autocast(logits.device.type, enabled=False):
            z = logits.movedim(1, -1).flatten(0, -2)
            z = z if z.dtype == torch.float64 else z.float()
            if target.is_floating_point():
                y = target.movedim(1, -1).flatten(0, -2).to(z)
            else:
                y = torch.nn.functional.one_hot(target.flatten(), z.shape[-1]).to(z)
            return self.terms(z, y).sum(-1).mean()

    def terms(self, z, y):
        """What each image's value is the sum of, of logits and targets [N, C]."""
{body}
'''


def export(criterion: Criterion, path: Path) -> None:
    """Write a loss in the form that the file's suffix asks for.

    Args:
        criterion: the loss; of its options, `.pt2` alone keeps any.
        path: .py: a module with a class `Loss`; .tex: the formula; .pt2: a program of torch.export for logits [N, C]
            and class indices [N] (a network's for its home number of classes); loss.json: in a folder of its own, what
            `metaloss.load` reads.

    Raises:
        SettingsError: the suffix is unknown, or the loss has no formula.
    """
    if path.suffix == ".py":
        storage.write(path, python(criterion).encode())
    elif path.suffix == ".tex":
        if not isinstance(criterion, FormulaCriterion):
            raise SettingsError(f"{path}: a network has no formula; .py, .pt2 and .json can hold it")
        storage.write(path, (criterion.formula.latex() + "\n").encode())
    elif path.suffix == ".pt2":
        _program(criterion, path)
    elif path.suffix == ".json":
        _folder(criterion, path)
    else:
        raise SettingsError(f"{path}: the suffix says the form, and must be one of {', '.join(SUFFIXES)}")


def python(criterion: Criterion) -> str:
    """The source of a module that needs torch alone."""
    if isinstance(criterion, FormulaCriterion):
        body, title = _formula(criterion), f"The loss {criterion.describe()}."
    elif isinstance(criterion, GenomeCriterion) and isinstance(criterion.genome, MetaLossNetwork):
        body, title = _network(criterion.genome, criterion.candidate.vectors()[0]), criterion.describe() + "."
    elif isinstance(criterion, GenomeCriterion) and isinstance(criterion.genome, LearnedTargets):
        body, title = _targets(criterion.genome, criterion.candidate.vectors()[0]), criterion.describe() + "."
    else:
        raise SettingsError(f"{type(criterion).__name__} cannot be written as Python")
    lines = "\n".join(f"        {line}" if line else "" for line in body)
    return MODULE.format(title=title, version=__version__, body=lines)


def _formula(criterion: FormulaCriterion) -> list[str]:
    formula = criterion.formula
    cooled = "z" if formula.temperature == 1 else f"(z / {formula.temperature!r})"
    lines = [f"logp = {cooled}.log_softmax(-1)", "p = logp.exp()", "C = torch.full_like(p[:1, :1], p.shape[-1])"]
    names: dict[Expression, str] = {}

    def name(e: Expression) -> str:
        """The variable that holds an expression, after the lines that fill it; equal ones are computed once."""
        if e not in names:
            if e.is_constant:
                value = f"torch.full_like(p[:1, :1], {e.value!r}, dtype=torch.float64).to(p)"
            elif not e.args:
                return e.head
            else:
                value = PRIMITIVES[e.head].source.format(**dict(zip("abc", map(name, e.args), strict=False)))
            names[e] = f"t{len(names)}"
            lines.append(f"{names[e]} = {value}")
        return names[e]

    result = f"{name(formula.expression)}.expand_as(p)"
    return [*lines, f"return {result}{' / p.shape[-1]' if formula.reduction == 'mean' else ''}"]


def _network(genome: MetaLossNetwork, vector: Tensor) -> list[str]:
    if genome.architecture != "equivariant":
        raise SettingsError(f"the architecture '{genome.architecture}' has no Python; .pt2 can hold it")
    weights, at = [], 0
    for key, (rows, columns) in genome.shapes.items():
        block = vector[at : at + rows * columns].reshape(rows, columns).tolist()
        weights.append(f"{key} = z.new_tensor({block})")
        at += rows * columns
    act = {"tanh": "torch.tanh", "relu": "torch.relu", "softplus": "torch.nn.functional.softplus"}[genome.activation]
    home = genome.home_classes
    channel = {
        "p": "logp.exp() * stretch + (1 - stretch)",
        "logp": f"logp + math.log(C / {home})",
        "logit": "logp - logp.mean(-1, keepdim=True)",
    }
    context = []
    if genome.context in ("mean", "label"):
        context.append("u = u + (w_mean @ h.mean(1, keepdim=True).mT).mT")
    if genome.context == "label":
        context.append("u = u + (w_true @ (h * y[..., None]).sum(1, keepdim=True).mT).mT")
    return [
        *weights,
        "logp = z.log_softmax(-1)",
        "C = z.shape[-1]",
        f"stretch = 1.0 if C == {home} else (1 - 1 / {home}) * C / max(1, C - 1)",
        f"x = torch.stack([{', '.join(channel[c] for c in genome.channels)}], -1)",
        f"h = {act}(x @ w_pred.mT + b_pred[:, 0])",
        f"label = {act}(y[..., None] @ w_label.mT + b_label[:, 0])",
        "u = h @ w_mix_pred.mT + label @ w_mix_label.mT + b_mix[:, 0]",
        *context,
        f"return ({act}(u) @ w_out.mT)[..., 0]",
    ]


def _targets(genome: LearnedTargets, vector: Tensor) -> list[str]:
    knots, home = torch.tensor(genome.knots).log().tolist(), genome.home_classes
    return [
        f"knots = z.new_tensor({knots})",
        f"curves = z.new_tensor({vector.unflatten(0, (-1, len(knots))).tolist()})",
        "logp = z.log_softmax(-1)",
        "C, u = z.shape[-1], logp",
        f"if C != {home}:  # a guess reads 1/{home}, 0 and certainty stay",
        f"    stretch = (1 - 1 / {home}) * C / max(1, C - 1)",
        "    sure = torch.log1p(stretch * logp.clamp(min=-math.log(C)).expm1())",
        f"    u = torch.where(logp > -math.log(C), sure, logp + math.log(C / {home}))",
        "",
        "def along(u, curve):",
        "    passed = ((u[..., None] - knots[:-1]) / knots.diff()).clamp(0, 1)",
        "    return curve[0] + passed @ curve.diff()",
        "",
        "true = (u * y).sum(-1, keepdim=True)",
        "other = (along(u, curves[1]) + along(true, curves[2])) / C",
        "targets = other + y * (along(true, curves[0]) - other)",
        "return -targets.detach() * logp",
    ]


def _program(criterion: Criterion, path: Path) -> None:
    # Of classes; a network's arithmetic depends on it, and weights are as many as there are classes.
    any_number = isinstance(criterion, FormulaCriterion) and criterion.weight is None
    genome = getattr(criterion, "genome", None)
    home = int(getattr(genome, "home_classes", 10)) if criterion.weight is None else len(criterion.weight)
    classes: int = criterion.classes or home
    n = torch.export.Dim("N", min=1)
    example = (torch.zeros(4, classes), torch.zeros(4, dtype=torch.int64))
    shapes = {0: n, 1: torch.export.Dim("C", min=2)} if any_number else {0: n}
    exported = torch.export.export(criterion, example, dynamic_shapes=(shapes, {0: n}), strict=False)
    program = io.BytesIO()
    torch.export.save(exported, program)
    storage.write(path, program.getvalue())


def _folder(criterion: Criterion, path: Path) -> None:
    if path.name != "loss.json":
        raise SettingsError(f"{path}: a loss's folder holds loss.json; try {path.with_suffix('')}/loss.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps(storage.plain(criterion.about), indent=1, ensure_ascii=False)
    catalogue.save(path.parent, criterion, f"# {criterion.describe()}\n\n```\n{about}\n```\n")
