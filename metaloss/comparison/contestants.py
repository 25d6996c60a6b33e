"""The losses of a comparison: read, named, and traced to where each came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metaloss import catalogue, storage
from metaloss.criterion import Criterion, FormulaCriterion, GenomeCriterion
from metaloss.errors import SettingsError
from metaloss.families import Episodes
from metaloss.notation import printable
from metaloss.run import Run, find, short_digest

CE = "ce"  # always there: what a gain over any baseline is worth shows beside cross-entropy with more steps
LABEL = 60  # characters


@dataclass(frozen=True)
class Contestant:
    """A loss in a comparison.

    Attributes:
        label: the name that its table shows.
        criterion: the loss.
        run: the run it came from; None where none is to be found here.
        name: the published or shipped loss that it is; "" for all others.
    """

    label: str
    criterion: Criterion
    run: Run | None
    name: str = ""


def entered(losses: Sequence[Any], against: str, runs: Path) -> tuple[list[Contestant], str]:
    """The losses that are asked for, the baseline and cross-entropy, each once; and the baseline's label.

    Raises:
        SettingsError: one cannot be read, or cannot train episodes.
    """
    found: list[Contestant] = []
    for spec in losses:
        found.append(_contestant(spec, runs, {x.label for x in found}))
    baseline = ""
    for spec in (CE, against):
        one = _contestant(spec, runs, set())
        baseline = one.label
        if one.label not in {x.label for x in found}:
            found.append(one)
    return found, baseline


def _contestant(spec: Any, runs: Path, taken: set[str]) -> Contestant:
    loss = catalogue.load(spec, runs)
    if not isinstance(loss, Criterion):
        raise SettingsError(f"{type(loss).__name__} cannot be compared: episodes need a loss of metaloss.load")
    loss.losses()  # Dice says here that it is none
    name = _name(spec, loss)
    run = None if name else _run_of(spec, loss, runs)  # a run here may have the name of a shipped loss's
    label = name or printable(_label(spec, loss, run)).strip()
    label = f"./{label}" if catalogue.named(label) and not _is(loss, label) else label
    # Two long formulas may begin alike.
    label = label if len(label) <= LABEL else f"{label[: LABEL - 9]}…{short_digest(label)}"
    numbers = (f"{label} #{n}" for n in range(2, len(taken) + 3))
    return Contestant(next(x for x in (label, *numbers) if x not in taken), loss, run, name)


def traced(label: str, spec: Any, loss: Criterion, runs: Path) -> Contestant:
    """A loss with the name or the run that it comes from, under a label."""
    name = _name(spec, loss)
    return Contestant(label, loss, None if name else _run_of(spec, loss, runs), name)


def _name(spec: Any, loss: Criterion) -> str:
    """The published or shipped loss that this one is; a file may call itself what it likes."""
    name = spec if isinstance(spec, str | Path) else loss.about.get("name")
    return name.strip().lower() if isinstance(name, str) and catalogue.named(name) and _is(loss, name) else ""


def _is(loss: Criterion, name: str) -> bool:
    """Whether a loss is the one that goes by a name."""
    try:
        named = catalogue.load(name)
    except SettingsError:
        return False
    if isinstance(loss, FormulaCriterion) and isinstance(named, FormulaCriterion):
        return loss.formula == named.formula
    if isinstance(loss, GenomeCriterion) and isinstance(named, GenomeCriterion):
        mine, other = loss.candidate.vectors(), named.candidate.vectors()
        return loss.genome == named.genome and torch.equal(mine.cpu(), other)
    return False


def _run_of(spec: Any, loss: Criterion, runs: Path) -> Run | None:
    """The run that a loss came from; None where none is to be found here."""
    for name in ([spec, Path(spec).parent] if isinstance(spec, str | Path) else []) + [loss.about.get("run")]:
        try:
            if isinstance(name, str | Path) and str(name) not in ("", "."):
                return find(name, runs)
        except (SettingsError, OSError, ValueError):
            continue
    return None


def _label(spec: Any, loss: Criterion, run: Run | None) -> str:
    if run is not None:
        return run.name
    if isinstance(spec, str | Path):
        return Path(spec).name if storage.exists(Path(spec)) else str(spec)
    return str(loss.about.get("name") or loss.about.get("run") or loss.describe())


def check_classes(found: Sequence[Contestant], opened: Sequence[Episodes]) -> None:
    """Refuse a loss that is made for another number of classes than a family has.

    Raises:
        SettingsError: names both.
    """
    for x in found:
        for e in opened:
            if x.criterion.classes not in (None, e.family.ways):
                ways = f"{e.family.name} has {e.family.ways}-way tasks"
                raise SettingsError(f"{x.label} works for {x.criterion.classes} classes alone, and {ways}")
