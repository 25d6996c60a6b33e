"""Runs, losses and plans in words and tables: what `show`, `list` and `--dry-run` print."""

import ast
import dataclasses
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metaloss import criterion, datasets, families, plots, registry, storage
from metaloss.console import clock, summary_lines
from metaloss.engines.local import Local
from metaloss.errors import MetalossError, SettingsError
from metaloss.run import Run, find, runs
from metaloss.search import pick
from metaloss.settings import Settings
from metaloss.streams import Stream

LISTS = ("tasks", "genomes", "strategies", "classifiers", "data", "runs")


def listing(kind: str, out: Path) -> list[dict[str, Any]]:
    """Name and description of everything of a kind.

    Raises:
        SettingsError: there is no such kind.
    """
    if kind not in LISTS:
        raise SettingsError(registry.unknown("list", kind, LISTS))
    if kind == "tasks":
        return [_family(name, path) for name, path in sorted(families.names().items())]
    if kind == "runs":
        return [_run(folder) for folder in runs(out)]
    package, known = ("datasets", datasets.names()) if kind == "data" else (kind, registry.names(kind))
    return [{"name": name, "about": _headline(f"metaloss.{package}.{name}")} for name in known]


def describe(spec: str, out: Path) -> dict[str, Any]:
    """A run's or a loss's description; draws the phenotype beside it.

    Raises:
        SettingsError: there is no such run or loss.
    """
    loss: Any = None
    try:
        run: Run | None = find(spec, out)
    except SettingsError:
        run, loss = None, criterion.load(spec, out)
    if run is not None and not (run.folder / "loss" / "loss.json").exists():
        return {"run": str(run.folder), "status": _run(run.folder)["about"], "loss": None}
    loss = loss if run is None else criterion.load(run.folder)
    folder = (run.folder / "plots") if run else Path()
    picture = folder / "phenotype.png" if run else Path(f"{Path(spec).resolve().name}-phenotype.png")
    folder.mkdir(exist_ok=True)
    plots.phenotype(loss.genome.losses(loss.candidate), loss.genome.classes, picture)
    table = {"loss": loss.genome.describe(loss.candidate, 0), "about": loss.about, "phenotype": str(picture)}
    if run is None:
        return table
    return {"run": str(run.folder), "status": _run(run.folder)["about"], **table, "summary": run.summary()}


def text(table: dict[str, Any]) -> str:
    """The description as lines."""
    lines = [f"{key:9}  {table[key]}" for key in ("run", "status", "loss") if table.get(key)]
    if table.get("loss") is None:
        lines.append(f"no winner yet: metaloss evolve --resume {table['run']}")
    about = {key: value for key, value in (table.get("about") or {}).items() if key != "run" or "run" not in table}
    strings = {key: value for key, value in about.items() if isinstance(value, str)}
    lines += [f"{criterion.printable(key):9}  {criterion.printable(value)}" for key, value in strings.items()]
    lines += summary_lines(table["summary"]) if table.get("summary") else []
    lines += [f"phenotype  {table['phenotype']}"] if table.get("phenotype") else []
    return "\n".join(lines)


def estimate(chosen: Settings, trainings: int = 64) -> dict[str, Any]:
    """What a run would cost: trainings counted, time measured on a few of them, memory from the plan's formula."""
    device = pick(chosen.device)
    genome, strategy = chosen.parts()
    key = Stream(chosen.seed).at("estimate")
    population, _ = strategy.ask(strategy.init(genome, key), genome, key)
    total, seconds = 0, 0.0
    with Local(device, chosen.memory, tf32=chosen.tf32) as engine:
        for family in chosen.families:
            episodes = families.open_family(family, device)
            # On two cores both must be busy, or the estimate would be twice too long.
            n = max(1, min(trainings // engine.workers, chosen.tasks_per_generation)) * engine.workers
            keys = [key.at(t) for t in range(n)]
            tasks, some = episodes.sample(keys, val=chosen.validation), genome.losses(population)[:8]
            engine.score(some[:1], episodes, tasks, keys)
            began = time.perf_counter()
            engine.score(some, episodes, tasks, keys)
            each = (time.perf_counter() - began) / (len(some) * n)
            count = len(population) * chosen.tasks_per_generation * chosen.generations
            final = (chosen.finalists + 2) * chosen.winner_tasks + 12 * (len(chosen.rates) * chosen.baseline_tasks)
            total, seconds = total + count, seconds + each * (count + final)
    return {"trainings": total, "seconds": round(seconds, 1), "memory_bytes": chosen.memory, "device": str(device)}


def estimate_text(table: dict[str, Any]) -> str:
    """The estimate as one line."""
    return (
        f"{table['trainings']} trainings, about {clock(table['seconds'])} on this {table['device']} as busy as it is "
        f"now; trainings take at most {table['memory_bytes'] / 2**30:.1f} GiB at once (--set memory=BYTES)"
    )


def _family(name: str, path: Path) -> dict[str, Any]:
    try:
        family = families.read(name)
    except MetalossError as error:
        return {"name": name, "about": f"cannot be read: {error}"}
    about = f"{family.ways}-way {family.shots}-shot on {family.dataset}, {family.classifier['kind']}"
    return {"name": name, "about": f"{about}, {family.inner.steps} steps  ({path})", **_plain(family)}


def _run(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "folder": str(folder)}
    try:
        run = find(folder)
        history, summary = storage.History(folder).read(), run.summary()
    except (MetalossError, ValueError) as error:
        return {**row, "about": f"damaged: {error}"}
    about = f"{len(history)}/{run.settings.generations} generations"
    if summary is None:
        return {**row, "about": f"{about}, unfinished: metaloss evolve --resume {folder}"}
    gains = [f"{name} {100 * x['ce']['gain']['mean']:+.1f}" for name, x in summary["test"].items()]
    return {**row, "about": f"{about}; points over tuned cross-entropy: {', '.join(gains)}", "summary": summary}


def _plain(family: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(family).items() if k != "name"}


def _headline(module: str) -> str:
    """The first line of a module's docstring, read and not imported."""
    spec = find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
