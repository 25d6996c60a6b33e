"""Runs, losses and plans in words and tables: what `show`, `list` and `--dry-run` print."""

import ast
import dataclasses
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from metaloss import storage
from metaloss.console.text import summary_lines
from metaloss.core import plugins, registry
from metaloss.core.devices import resolve_device
from metaloss.core.formatting import clock, printable
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion, FormulaCriterion
from metaloss.criterion.dice import Dice
from metaloss.data import datasets
from metaloss.engines.local import Local
from metaloss.errors import MetalossError, SettingsError
from metaloss.evaluation import plots
from metaloss.experiments.reproduction import published
from metaloss.genomes import Genome
from metaloss.genomes._symbolic import Symbolic
from metaloss.losses import phenotype, zoo
from metaloss.losses.base import Losses
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.search.novelty import NoveltyFilter, SeenLosses
from metaloss.search.run import Run, find, runs
from metaloss.search.settings import Settings
from metaloss.storage.folders import short_digest
from metaloss.strategies import Strategy
from metaloss.tasks import episodic, opening
from metaloss.tasks.full_training import FullTrainingTasks
from metaloss.training import models
from metaloss.training import settings as training

LISTS = (
    *(
        "tasks",
        "losses",
        "primitives",
        "genomes",
        "strategies",
        "classifiers",
        "data",
        "runs",
        "models",
        "protocols",
    ),
    "tables",
)
COUNTS = (2, 10, 100, 1000)  # of classes, for which a loss's gain is given
TIMED = 8  # candidates that an estimate is timed on
TIMED_STEPS = 10  # of a full training, likewise


def listing(kind: str, out: Path) -> list[dict[str, Any]]:
    """Name and description of everything of a kind.

    Raises:
        SettingsError: there is no such kind.
    """
    if kind not in LISTS:
        raise SettingsError(registry.unknown_message("list", kind, LISTS))
    if kind == "tasks":
        return [_family(name, path) for name, path in sorted(episodic.names().items())]
    if kind == "runs":
        return [_run(folder) for folder in runs(out)]
    if kind == "losses":
        return [*map(_shipped, loss_io.shipped()), *map(_published, zoo.ENTRIES.values())]
    if kind == "primitives":
        return [
            {"name": row.name, "about": f"{row.arity} arguments, {row.latex}"}
            for row in PRIMITIVES.values()
        ]
    if kind == "models":
        return [{"name": name, "about": models.about(name)} for name in models.names()]
    if kind == "protocols":
        return [{"name": name, "about": training.about(name)} for name in training.protocols()]
    if kind == "tables":
        return [{"name": name, "about": published.about(name)} for name in published.names()]
    package, known = (
        ("datasets", datasets.names()) if kind == "data" else (kind, registry.names(kind))
    )
    others = plugins.found(package)
    return [_plugin(others[name]) if name in others else _own(package, name) for name in known]


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
    about = {"run": str(run.folder), "status": _run(run.folder)["about"]}
    if not (run.folder / "loss" / "loss.json").exists():
        return {**about, "loss": None}
    (run.folder / "plots").mkdir(exist_ok=True)
    return {
        **about,
        **_loss(loss_io.load(run.folder), run.folder / "plots" / ""),
        "summary": run.summary(),
    }


def _stem(spec: str) -> str:
    """The beginning of a loss's pictures' names; a digest keeps two apart of which no more than signs differ."""
    text = Path(spec).name if storage.exists(Path(spec)) else spec
    name = re.sub(r"[^\w.+-]+", "_", text).lstrip(".-_")
    # Not so `./ce` beside the published `ce`, and `b/loss` beside `a/loss`.
    alone = name == str(Path(spec)) and (name == spec or not loss_io.named(name))
    return name if alone and len(name) <= 60 else f"{name[:51] or 'loss'}-{short_digest(spec)}"


def _as_run(spec: str, out: Path) -> Run | None:
    """The run that is meant, unless a published loss has the name."""
    if loss_io.named(spec):
        return None
    try:
        return find(spec, out)
    except SettingsError:
        return None


def _loss(loss: Any, prefix: Path) -> dict[str, Any]:
    """What a loss is and does, and where it is drawn."""
    if isinstance(loss, Dice):
        note = zoo.entry("dice")
        return {
            "loss": loss.describe(),
            "about": loss.about | {"formula": note.remarks, "use": f"dice {note.unavailable}"},
            "latex": loss.latex(),
            "warnings": [],
        }
    one = loss.losses()
    classes = loss.classes
    counts = (classes,) if classes else tuple(sorted({*COUNTS, *_evolved_on(loss)}))
    picture = _beside(prefix, "phenotype.png")
    name = loss.about.get("name", "evolved" if "run" in loss.about else "this loss")
    plots.phenotype(one, printable(str(name))[:40], classes, picture)
    table = {
        "loss": loss.describe(),
        "about": loss.about,
        "gain": {c: phenotype.gain(one, c) for c in counts},
        "minimum": {c: phenotype.minimum(one, c) for c in counts},
        "classes": _evolved_on(loss),
        "warnings": phenotype.warnings(one, classes) + _masked(loss),
        "phenotype": str(picture),
    }
    if isinstance(loss, FormulaCriterion):
        drawn = _beside(prefix, "surface.png")
        plots.surface(loss.formula, drawn)
        table |= {"latex": loss.formula.latex(), "surface": str(drawn)}
    return table


def _evolved_on(loss: Any) -> list[int]:
    """The numbers of classes of the tasks that a loss was evolved on; none where nobody wrote them down."""
    found = loss.about.get("classes")
    return [n for n in found if type(n) is int and n > 1] if isinstance(found, list) else []


def _masked(loss: Any) -> list[str]:
    """What masked classes do to a loss, in a sentence."""
    where = "value or gradient is not finite where a class is masked by a logit of -inf"
    return [] if loss.finite_where_masked() else [f"{where}: it gives every class a share"]


def _beside(prefix: Path, name: str) -> Path:
    return prefix / name if prefix.is_dir() else prefix.with_name(prefix.name + name)


def text(table: dict[str, Any]) -> str:
    """The description as lines."""
    lines = [
        f"{key:10} {table[key]}" for key in ("run", "status", "loss", "latex") if table.get(key)
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


def estimate(chosen: Settings, trainings: int = 64) -> dict[str, Any]:
    """What a run would cost: trainings counted, time measured on a few of them, memory from the
    plan's formula.

    Of formulas all are counted; a run trains fewer, as it knows those that it has trained on the
    same tasks."""
    device = resolve_device(chosen.device)
    genome, strategy = chosen.build_parts()
    key = Stream(chosen.seed).at("estimate")
    some = examples(genome, chosen.tries, key)
    each_task = candidates(genome, strategy, chosen.generations, key)
    total = 0
    seconds = 0.0
    with Local(device, chosen.memory, tf32=chosen.tf32) as engine:
        for family in chosen.families:
            episodes = opening.open_family(family, device)
            if isinstance(episodes, FullTrainingTasks):
                count, each = full(chosen, episodes, some, each_task, key)
                total = total + each_task * episodes.most(chosen.tasks_per_generation)
                seconds = seconds + each * count
                continue
            # On two cores both must be busy, or the estimate would be twice too long.
            n = (
                max(1, min(trainings // engine.workers, chosen.tasks_per_generation))
                * engine.workers
            )
            keys = [key.at(t) for t in range(n)]
            tasks = episodes.sample(keys, val=chosen.validation)
            engine.score(some[:1], episodes, tasks, keys)
            began = time.perf_counter()
            engine.score(some, episodes, tasks, keys)
            each = (time.perf_counter() - began) / (len(some) * n)
            count = each_task * chosen.tasks_per_generation
            final = (chosen.finalists + 2) * chosen.winner_tasks + 12 * (
                len(chosen.rates) * chosen.baseline_tasks
            )
            total = total + count
            seconds = seconds + each * (count + final)
    return {
        "trainings": total,
        "seconds": round(seconds, 1),
        "memory_bytes": chosen.memory,
        "device": str(device),
    }


def full(
    chosen: Settings, e: FullTrainingTasks, some: Losses, each_task: int, key: Stream
) -> tuple[int, float]:
    """How many full trainings a run needs, and the seconds of each, by a few steps of one."""
    tuning = (len(e.rates(chosen.rates)) + 1) * e.most(chosen.baseline_tasks)
    last = (chosen.finalists + 2) * e.most(chosen.winner_tasks) + 2 * e.most(chosen.test_tasks)
    held_out = chosen.generations // chosen.report_every * e.most(chosen.baseline_tasks)
    seconds = _seconds(e, some, key) / e.family.workers
    return each_task * e.most(chosen.tasks_per_generation) + tuning + last + held_out, seconds


def _seconds(e: FullTrainingTasks, some: Losses, key: Stream) -> float:
    """A full training's: what starting and one look at the held-out images take, every epoch, and all of its steps."""
    steps, epochs = e.length
    few = min(steps, TIMED_STEPS)
    spent = []
    for n in (1, 1, few):  # the first one imports Lightning
        began = time.perf_counter()
        e.scores(some[:1], "train", [key], steps=(n,))
        spent.append(time.perf_counter() - began)
    _, look, several = spent
    return look * epochs + max(several - look, 0.0) / max(few - 1, 1) * (steps - 1)


def examples(genome: Genome, tries: int, key: Stream) -> Losses:
    """A few random candidates, of formulas such as a search would train."""
    novelty_filter = NoveltyFilter(
        genome, SeenLosses(genome.filters) if isinstance(genome, Symbolic) else None, tries
    )
    novelty_filter.start_generation()
    return novelty_filter.losses(novelty_filter.sample(TIMED, key.at("examples")))


def candidates(genome: Genome, strategy: Strategy, generations: int, key: Stream) -> int:
    """How many losses all generations have, for formulas the control of every task epoch among
    them.

    The first generation, those that begin a further epoch and all others have three sizes, and a
    strategy is played with made-up fitness until each is known."""
    begins = [
        (number == 1, strategy.epoch(number) != strategy.epoch(number - 1))
        for number in range(1, generations + 1)
    ]
    state = strategy.init(genome, key)
    sizes = dict[tuple[bool, bool], int]()
    for number, kind in enumerate(begins):
        if len(sizes) == len(set(begins)):
            break
        population, state = strategy.ask(state, genome, key.at(number))
        sizes[kind] = len(population)
        state = strategy.tell(state, population, torch.zeros(len(population)))
    epochs = len({strategy.epoch(number) for number in range(1, generations + 1)})
    return sum(sizes[kind] for kind in begins) + isinstance(genome, Symbolic) * epochs


def estimate_text(table: dict[str, Any]) -> str:
    """The estimate as one line."""
    return (
        f"{table['trainings']} trainings, about {clock(table['seconds'])} on this {table['device']} as busy as it is "
        f"now; trainings take at most {table['memory_bytes'] / 2**30:.1f} GiB at once (--set memory=BYTES)"
    )


def _family(name: str, path: Path) -> dict[str, Any]:
    try:
        family = opening.read(name)
    except MetalossError as error:
        return {"name": name, "about": f"cannot be read: {error}"}
    if isinstance(family, opening.TrainingFamily):
        chosen = family.training
        text = f"{chosen.model} on {chosen.data}, a full training, augmentation {chosen.augment.kind}  ({path})"
        return {"name": name, "about": text, **_plain(family)}
    about = (
        f"{family.ways}-way {family.shots}-shot on {family.dataset}, {family.classifier['kind']}"
    )
    return {
        "name": name,
        "about": f"{about}, {family.inner.steps} steps  ({path})",
        **_plain(family),
    }


def _shipped(name: str) -> dict[str, Any]:
    loss = loss_io.load(name)
    assert isinstance(loss, Criterion)
    return {
        "name": name,
        "about": f"{loss.describe()}, evolved on {loss.about['evolved on']}",
        "source": "metaloss",
    }


def _published(entry: zoo.Entry) -> dict[str, Any]:
    options = ", ".join(
        [
            *(f"{k}={v[0]:g}" for k, v in entry.parameters.items()),
            *(f"{k}=False" for k in entry.flags),
        ]
    )
    formula = entry.unavailable or entry.text
    notes = [note for note in (entry.remarks, entry.limits and f"Limits: {entry.limits}.") if note]
    return {
        "name": entry.name,
        "about": f"{formula}{f'  ({options})' if options else ''}  [{entry.source}]",
        "formula": entry.text or None,
        "source": entry.source,
        "reading": entry.reading,
        "verified": entry.verified,
        "remarks": notes,
    }


def _run(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "folder": str(folder)}
    try:
        run = find(folder)
        history = storage.History(folder).read()
        summary = run.summary()
    except (MetalossError, ValueError) as error:
        return {**row, "about": f"damaged: {error}"}
    about = f"{len(history)}/{run.settings.generations} generations"
    if summary is None:
        return {**row, "about": f"{about}, unfinished: metaloss evolve --resume {folder}"}
    gains = [
        f"{name} {100 * x['ce']['gain']['mean']:+.1f} ({x['ce']['verdict']})"
        for name, x in summary["test"].items()
    ]
    return {
        **row,
        "about": f"{about}; points over tuned cross-entropy: {', '.join(gains)}",
        "summary": summary,
    }


def _plain(family: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(family).items() if k != "name"}


def _own(kind: str, name: str) -> dict[str, Any]:
    spec = find_spec(f"{plugins.PACKAGES[kind]}.{name}")
    return {"name": name, "about": _headline(Path(spec.origin)) if spec and spec.origin else ""}


def _plugin(plugin: plugins.Plugin) -> dict[str, Any]:
    """A plugin's line, which also says where it comes from; a file with a mistake does not hide the others."""
    source = plugin.source()
    try:
        about = _headline(source) if source else ""
    except (OSError, ValueError, SyntaxError) as error:
        about = f"cannot be read: {error}"
    return {
        "name": plugin.name,
        "about": f"{about}  ({plugin.origin})".strip(),
        "origin": plugin.origin,
    }


def _headline(path: Path) -> str:
    """The first line of a module's docstring, read and not imported."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
