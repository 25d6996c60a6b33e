"""A run or a loss described in words and pictures: what `metaloss show` prints."""

import re
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.cli.listing import describe_run
from metaloss.console.text import summary_lines
from metaloss.core.formatting import printable
from metaloss.criterion import loss_io
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.no_formula import BatchCriterion
from metaloss.errors import SettingsError
from metaloss.evaluation import plots
from metaloss.losses import phenotype
from metaloss.search.run_folder import Run, find
from metaloss.storage.folders import short_digest

NORMALISED = "it is divided by its gain: its first steps are as long as cross-entropy's"
COUNTS = (2, 10, 100, 1000)  # of classes, for which a loss's gain is given


def describe(spec: str, out: Path) -> dict[str, Any]:
    """A run's or a loss's description; draws its pictures, a run's among its plots, a loss's in the
    current folder.

    Raises:
        SettingsError: there is no such run or loss.
    """
    run = _as_run(spec, out)
    if run is None:
        loss = loss_io.load(spec, out)
        return _loss(loss, Path(f"{_stem(spec)}-"))
    about = {"run": str(run.folder), "status": describe_run(run.folder)["about"]}
    if not (run.folder / "loss" / "loss.json").exists():
        return {**about, "loss": None}
    (run.folder / "plots").mkdir(exist_ok=True)
    return {
        **about,
        **_loss(loss_io.load(run.folder), run.folder / "plots" / ""),
        "summary": run.summary(),
    }


def _stem(spec: str) -> str:
    """The beginning of the names of a loss's pictures.

    A digest keeps losses apart that differ in nothing but signs, which file names do not show.
    """
    text = Path(spec).name if storage.exists(Path(spec)) else spec
    name = re.sub(r"[^\w.+-]+", "_", text).lstrip(".-_")
    # Not so `./ce` beside the published `ce`, and `b/loss` beside `a/loss`.
    alone = name == str(Path(spec)) and (name == spec or not loss_io.named(name))
    return name if alone and len(name) <= 60 else f"{name[:51] or 'loss'}-{short_digest(spec)}"


def _as_run(spec: str, out: Path) -> Run | None:
    """The run that is meant, unless a published loss has the name."""
    # A published loss wins over a run of its name; ./NAME means the path.
    if loss_io.named(spec):
        return None
    try:
        return find(spec, out)
    except SettingsError:
        return None


def _loss(loss: Any, prefix: Path) -> dict[str, Any]:
    """What a loss is and does, and where it is drawn."""
    if isinstance(loss, BatchCriterion):
        # No image has a value of its own, so there is no curve to draw.
        words = {"loss": loss.describe(), "scope": f"it {loss.loss.scope}", "latex": loss.latex()}
        return {**words, "about": loss.about, "warnings": []}
    one = loss.losses_told()
    classes = loss.classes
    # The gain changes with the number of classes: those that it was evolved on are shown, too.
    counts = (classes,) if classes else tuple(sorted({*COUNTS, *_evolved_on(loss)}))
    picture = _beside(prefix, "phenotype.png")
    name = loss.about.get("name", "evolved" if "run" in loss.about else "this loss")
    # A name from a file may hold anything, so what is drawn of it is cleaned and cut.
    plots.phenotype(one, printable(str(name))[:40], classes, picture)
    table = {
        "loss": loss.describe(),
        "about": loss.about,
        **({"clock": loss.clock_note} if loss.reads_clock else {}),
        **({"past": loss.past_note} if loss.reads_past else {}),
        **({"normalise": NORMALISED} if loss.normalise else {}),
        "gain": {c: phenotype.gain(one, c) for c in counts},
        "minimum": {c: phenotype.minimum(one, c) for c in counts},
        "classes": _evolved_on(loss),
        "warnings": phenotype.warnings(one, classes) + _masked(loss),
        "phenotype": str(picture),
    }
    if isinstance(loss, FormulaCriterion):
        drawn = _beside(prefix, "surface.png")
        plots.surface(loss.formula, drawn)
        table |= {"surface": str(drawn)}
    return table if loss.latex() is None else {**table, "latex": loss.latex()}


def _evolved_on(loss: Any) -> list[int]:
    """The numbers of classes of the tasks that a loss was evolved on, as far as it says so."""
    # The file may come from anywhere: only whole numbers are taken, and True is none.
    classes = loss.about.get("classes")
    return [n for n in classes if type(n) is int and n > 1] if isinstance(classes, list) else []


def _masked(loss: Any) -> list[str]:
    """What masked classes do to a loss, in a sentence."""
    where = "value or gradient is not finite where a class is masked by a logit of -inf"
    return [] if loss.finite_where_masked() else [f"{where}: it gives every class a share"]


def _beside(prefix: Path, name: str) -> Path:
    return prefix / name if prefix.is_dir() else prefix.with_name(prefix.name + name)


def text(table: dict[str, Any]) -> str:
    """The description as lines."""
    lines = [
        f"{key:10} {table[key]}"
        for key in ("run", "status", "loss", "scope", "latex", "clock", "past", "normalise")
        if table.get(key)
    ]
    if table.get("loss") is None:
        lines.append(f"no winner yet: metaloss evolve --resume {table['run']}")
    about = {
        key: value
        for key, value in (table.get("about") or {}).items()
        if key != "run" or "run" not in table
    }
    strings = {key: value for key, value in about.items() if isinstance(value, str)}
    lines += [f"{printable(key):10} {printable(value)}" for key, value in strings.items()]
    if "gain" in table:
        evolved = dict.fromkeys(table["classes"], " (evolved on)")
        pairs = ", ".join(
            f"{g:.3g} at {c} classes{evolved.get(c, '')}" for c, g in table["gain"].items()
        )
        lines.append(
            f"gain       {pairs}: its first pull on the true class's logit, cross-entropy's being 1"
        )
        places = ", ".join(f"{p:.3f} at {c}" for c, p in table["minimum"].items())
        lines.append(f"minimum    where the true class's probability is {places} classes")
    lines += [f"warning    {sentence}" for sentence in table.get("warnings", ())]
    lines += summary_lines(table["summary"]) if table.get("summary") else []
    lines += [f"{key:10} {table[key]}" for key in ("phenotype", "surface") if table.get(key)]
    return "\n".join(lines)
