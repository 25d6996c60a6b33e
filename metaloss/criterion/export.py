"""One loss written for other programs.

Forms: Python that needs torch alone, LaTeX, a torch.export program, or the folder that `load`
reads.
"""

import copy
import io
import json
import os
from pathlib import Path

import torch

from metaloss import storage
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.standalone import python
from metaloss.errors import SettingsError
from metaloss.losses.language.formula import Formula

SUFFIXES = (".py", ".tex", ".pt2", ".json")


def export(
    loss: str | os.PathLike[str] | torch.nn.Module | Formula,
    path: str | os.PathLike[str],
    runs: str | os.PathLike[str] = "runs",
) -> None:
    """Write a loss in the form that the file's suffix asks for.

    Args:
        loss: the loss, as `load` takes it; its options are a `.py` module's defaults and fixed in
            `.pt2`; `loss.json` keeps the prior, the costs, the steps and whether to normalise, and
            `.tex` none of them.
        path: .py: a module with a class `Loss`; .tex: the formula; .pt2: a program of torch.export
            for logits [N, C] and class indices [N], and of a loss that reads the clock with the
            buffer `clock` [t, logn]; loss.json: in a folder of its own, what `metaloss.load` reads.
            A network's program is for its home number of classes, one with class weights, a prior
            or costs for as many classes as those have.
        runs: where runs are looked for by name.

    Raises:
        SettingsError: the suffix is unknown; there is no such loss, it is not metaloss's, or it has
            no formula.
    """
    criterion = loss_io.load(loss, runs)
    if not isinstance(criterion, Criterion):
        raise SettingsError(
            f"{type(criterion).__name__} is not metaloss's: export takes a loss of metaloss.load"
        )
    path = Path(path)
    if path.suffix == ".py":
        storage.write(path, python(criterion).encode())
    elif path.suffix == ".tex":
        storage.write(path, (_latex(criterion, path) + "\n").encode())
    elif path.suffix == ".pt2":
        _program(criterion, path)
    elif path.suffix == ".json":
        _folder(criterion, path)
    else:
        raise SettingsError(
            f"{path}: the suffix says the form, and must be one of {', '.join(SUFFIXES)}"
        )


def _latex(criterion: Criterion, path: Path) -> str:
    latex = criterion.latex()
    if latex is None:
        raise SettingsError(f"{path}: a network has no formula; .py, .pt2 and .json can hold it")
    return latex


def _program(criterion: Criterion, path: Path) -> None:
    if criterion.reads_past:
        raise SettingsError(
            f"{path}: a program has no memory of what was predicted for each image; "
            f"{path.with_suffix('.py')} can hold this loss"
        )
    # Weights and a prior are as many numbers as there are classes, costs as many rows.
    told = [x for x in (criterion.weight, criterion.prior, criterion.costs) if x is not None]
    fixed = len(told[-1]) if told else criterion.home_classes
    classes = criterion.classes or fixed or 10
    n = torch.export.Dim("N", min=1)
    example = (torch.zeros(4, classes), torch.zeros(4, dtype=torch.int64))
    shapes = {0: n} if fixed else {0: n, 1: torch.export.Dim("C", min=2)}
    # torch.export counts a buffer that is None among the inputs, which it is not: it comes last.
    loss = copy.copy(criterion)
    loss._buffers = dict(sorted(criterion._buffers.items(), key=lambda x: x[1] is None))
    # Not strict: losses are traced by running them, whatever Python they are made of.
    exported = torch.export.export(loss, example, dynamic_shapes=(shapes, {0: n}), strict=False)
    # Into memory first, because `storage.write` writes a file whole or not at all.
    program = io.BytesIO()
    torch.export.save(exported, program)
    storage.write(path, program.getvalue())


def _folder(criterion: Criterion, path: Path) -> None:
    if path.name != "loss.json":
        raise SettingsError(
            f"{path}: a loss's folder holds loss.json; try {path.with_suffix('')}/loss.json"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps(storage.json_safe(criterion.about), indent=1, ensure_ascii=False)
    notes = "".join(f"{note}\n\n" for note in criterion.notes)
    card = f"# {criterion.describe()}\n\n{notes}```\n{about}\n```\n"
    loss_io.save(path.parent, criterion, card)
