"""The losses of a comparison: read, named, and traced to the run that each came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloss import catalogue, zoo
from metaloss.criterion import Criterion
from metaloss.errors import SettingsError
from metaloss.families import Episodes
from metaloss.run import Run, find

CE = "ce"  # always there: what a gain over any baseline is worth shows beside cross-entropy with more steps
LABEL = 60  # characters


@dataclass(frozen=True)
class Contestant:
    """A loss in a comparison, under the name that its table shows, and the run it came from if that is known."""

    label: str
    criterion: Criterion
    run: Run | None


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
    run = _run_of(spec, loss, runs)
    label = catalogue.printable(_label(spec, loss, run)).strip()
    label = f"./{label}" if _mistakable(label, loss) else label
    label = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
    numbers = (f"{label} #{n}" for n in range(2, len(taken) + 3))
    return Contestant(next(x for x in (label, *numbers) if x not in taken), loss, run)


def _mistakable(label: str, loss: Criterion) -> bool:
    """Whether this is the name of a published loss that is another one: files may call themselves what they like."""
    if not zoo.published(label):
        return False
    try:
        return getattr(loss, "formula", None) != zoo.find(label)[1]
    except SettingsError:
        return True


def _run_of(spec: Any, loss: Criterion, runs: Path) -> Run | None:
    """The run that a loss came from; None where none is to be found here."""
    own = isinstance(spec, str | Path) and not (isinstance(spec, str) and zoo.published(spec))
    for name in ([spec, Path(spec).parent] if own else []) + [loss.about.get("run")]:
        try:
            if isinstance(name, str | Path) and str(name) not in ("", "."):
                return find(name, runs)
        except (SettingsError, OSError, ValueError):
            continue
    return None


def _label(spec: Any, loss: Criterion, run: Run | None) -> str:
    if isinstance(spec, str) and zoo.published(spec):
        return spec.strip().lower()
    if run is not None:
        return run.name
    if isinstance(spec, str | Path):
        return Path(spec).name if Path(spec).exists() else str(spec)
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
