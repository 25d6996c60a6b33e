"""`evolve`: a search from its settings to its winner, committed generation by generation."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from metaloss import criterion, settings, storage
from metaloss._version import __version__
from metaloss.criterion import Criterion
from metaloss.engines.local import Local
from metaloss.errors import DamagedFile, MetalossError, SettingsError
from metaloss.evolution import Scored, generation
from metaloss.families import Episodes, open_family
from metaloss.genomes import Genome
from metaloss.objectives import mean
from metaloss.population import Population
from metaloss.run import Progress, Run, conditions, create, find, provenance
from metaloss.settings import Settings
from metaloss.statistics import paired
from metaloss.strategies import Strategy
from metaloss.streams import Stream
from metaloss.trials import Trials, Tuned

BARREN = 10  # generations in a row without one candidate that trains, after which a run gives up


class Reporter(Protocol):
    """What is told of a search while it runs; the command line prints it."""

    def started(self, run: Run, engine: Local, families: Sequence[Episodes], genome: Genome) -> None:
        """Before any training."""

    def baseline(self, rivals: Sequence[Tuned], tasks: int) -> None:
        """Cross-entropy has been tuned."""

    def generation(self, record: dict[str, Any], seconds: float, trainings: int) -> None:
        """A generation has been committed."""

    def warning(self, text: str) -> None:
        """Something the user should know."""

    def finished(self, run: Run, summary: dict[str, Any]) -> None:
        """The winner has been written and tested."""


class Silent:
    """Tells nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@dataclass(frozen=True)
class Result:
    """A finished search.

    Attributes:
        best: the winner, a loss to train with.
        history: one record per generation.
        summary: how the winner was chosen and what it reached on meta-test tasks.
        folder: the run's folder.
    """

    best: Criterion
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    folder: Path


def evolve(
    tasks: str | Sequence[str] = "fashionmnist", *, genome: str | dict[str, Any] = "mln",
    strategy: str | dict[str, Any] = "mu_plus_lambda", preset: str = "quick", out: str | Path = "runs",
    time_limit: float | None = None, reporter: Reporter | None = None, stop: Callable[[], bool] = lambda: False,
    **others: Any,
) -> Result:  # fmt: skip
    """Evolve a loss and test it against tuned cross-entropy.

    Args:
        tasks: names, paths or folder:PATH of task families.
        genome: the loss's representation, by name or as a table of settings with its `kind`.
        strategy: the outer algorithm, likewise.
        preset: "smoke", "quick" or "long".
        out: the folder that the run's folder is made in.
        time_limit: seconds after which no new generation starts.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`, the run can be resumed.
        others: any further field of `Settings`, or of the families.

    Raises:
        SettingsError: a setting that cannot be.
        DataError: images that are missing or do not fit.
    """
    named = {key: {"kind": x} if isinstance(x, str) else x for key, x in (("genome", genome), ("strategy", strategy))}
    table = {"tasks": (tasks,) if isinstance(tasks, str) else tuple(tasks), **named, **others}
    chosen = settings.resolve(settings.merged(settings.preset(preset, table), table))
    return start(chosen, Path(out), time_limit=time_limit, reporter=reporter, stop=stop)


def start(chosen: Settings, out: Path, **how: Any) -> Result:
    """Make a new run with these settings and carry it through (`how`: as for `evolve`)."""
    device = pick(chosen.device)
    families = [open_family(family, device) for family in chosen.families]
    run = create(out, chosen, provenance(chosen, families, device))
    return _carry(run, families, device, **how)


def resume(
    spec: str | Path, *, changes: dict[str, Any] | None = None, out: str | Path = "runs", allow_changes: bool = False,
    **how: Any,
) -> Result:  # fmt: skip
    """Go on with a run as if it had never stopped.

    Args:
        spec: its folder, or its name under `out`.
        changes: settings given again; only `generations` may differ, and only grow.
        out: where runs are looked for by name.
        allow_changes: go on although versions, device or data are others than before; recorded in the provenance.
        how: `time_limit`, `reporter` and `stop`, as for `evolve`.

    Raises:
        SettingsError: no such run, or settings or conditions that differ, each named.
        RunInUse: another process writes it.
        DamagedFile: no state of it is sound.
    """
    run = find(spec, Path(out))
    run = replace(run, settings=_same(run.settings, changes or {}))
    device = pick(run.settings.device)
    families = [open_family(family, device) for family in run.settings.families]
    return _carry(run, families, device, allow_changes=allow_changes, **how)


def pick(device: str) -> torch.device:
    """The device a setting means; "auto": a GPU where there is one.

    Raises:
        SettingsError: there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device 'cuda' was asked for and no GPU is to be seen  (metaloss doctor)")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _same(old: Settings, changes: dict[str, Any]) -> Settings:
    new = settings.resolve(settings.merged(old.table(), changes))
    before, after = _flat(old.table()), _flat(new.table())
    if new.generations < old.generations:
        raise SettingsError(f"generations: the run has {old.generations}, {new.generations} is less")
    different = [k for k in {**before, **after} if k != "generations" and before.get(k) != after.get(k)]
    if different:
        listed = "; ".join(f"{k}: the run has {before.get(k)}, given {after.get(k)}" for k in different)
        raise SettingsError(f"a resumed run keeps its settings: {listed}")
    return new


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table's values under their dotted paths; a family goes by its name."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        if key == "families":
            value = {family["name"]: family for family in value}
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def _carry(
    run: Run, families: list[Episodes], device: torch.device, *, time_limit: float | None = None,
    reporter: Reporter | None = None, stop: Callable[[], bool] = lambda: False, allow_changes: bool = False,
) -> Result:  # fmt: skip
    chosen, reporter = run.settings, reporter or Silent()
    genome, strategy = chosen.parts()
    with storage.Lock(run.folder), Local(device, chosen.memory, stop=stop) as engine:
        _recognise(run, families, device, allow_changes, reporter)
        trials = Trials(engine, families, Stream(chosen.seed))
        reporter.started(run, engine, families, genome)
        progress, warnings = run.recover((*strategy.states, *genome.populations))
        for text in warnings:
            reporter.warning(text)
        # Generations may have been raised: a run that is interrupted again must still know it.
        storage.write(run.folder / "config.toml", settings.toml(chosen))
        if progress and run.finished(progress):
            return _told(run, reporter)
        engine.halvings = progress.halvings if progress else 0
        rivals = trials.baseline(chosen.rates, chosen.baseline_tasks)
        reporter.baseline(rivals, chosen.baseline_tasks)
        search = Search(run, trials, genome, strategy, rivals, reporter)
        progress = search.generations(progress, time.monotonic() + (float("inf") if time_limit is None else time_limit))
        search.finish(progress)
        return _told(run, reporter)


def _told(run: Run, reporter: Reporter) -> Result:
    """A finished run's result, read back from its folder."""
    loss, summary = criterion.load(run.folder), run.summary()
    assert isinstance(loss, Criterion) and summary is not None
    reporter.finished(run, summary)
    return Result(loss, run.history(), summary, run.folder)


def _recognise(run: Run, families: list[Episodes], device: torch.device, allow: bool, reporter: Any) -> None:
    """Refuse to go on elsewhere than the run began, unless told to; then put it on record."""
    path = run.folder / "provenance.json"
    try:
        table = json.loads(path.read_bytes())
        old = {**table["conditions"], **(table["resumed"][-1] if table.get("resumed") else {})}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path}: not the provenance of a run: {error}") from None
    now = conditions(families, device)
    different = [f"{k}: was {old.get(k)}, is {now[k]}" for k in now if old.get(k) != now[k]]
    if not different:
        return
    if not allow:
        raise SettingsError(f"this run began elsewhere ({'; '.join(different)}); --allow-changes goes on all the same")
    reporter.warning(f"goes on under other conditions: {'; '.join(different)}")
    run.write("provenance.json", {**table, "resumed": [*table.get("resumed", []), now]})


@dataclass(frozen=True)
class Search:
    """A run at work: its parts, and the rivals it is measured against."""

    run: Run
    trials: Trials
    genome: Genome
    strategy: Strategy
    rivals: Sequence[Tuned]
    reporter: Reporter

    def generations(self, progress: Progress | None, deadline: float) -> Progress:
        """Run what is left of the generations, each committed before the next begins."""
        chosen, key = self.run.settings, Stream(self.run.settings.seed)
        if progress is None:
            state = self.strategy.init(self.genome, key.at("init"))
            none = self.strategy.centre(state)[:0]
            progress = Progress(0, state, none, none, 0, 0, 0)
        evaluator = partial(self.trials.evaluator, chosen.tasks_per_generation, chosen.validation)
        for number in range(progress.generation + 1, chosen.generations + 1):
            if progress.generation and time.monotonic() > deadline:
                break
            began = time.monotonic()
            state, scored = generation(self.strategy, progress.state, self.genome, evaluator, mean, key, number)
            progress, record = self._step(progress, state, scored, number)
            self.run.commit(record, progress)
            seconds, trainings = time.monotonic() - began, scored.score.numel()
            self._time(number, seconds, trainings)
            self.reporter.generation(record, seconds, trainings)
            if progress.barren >= BARREN:
                raise MetalossError(f"no candidate trained without failing in the last {BARREN} generations")
        return progress

    def _step(self, old: Progress, state: Any, scored: Scored, number: int) -> tuple[Progress, dict[str, Any]]:
        """What is known after a generation, and its line of history."""
        fitness, failed = scored.fitness, scored.score.isnan()
        alive = fitness[fitness.isfinite()].double()
        best = scored.population[fitness.argmax()[None]]
        halvings, last, centre = self.trials.engine.halvings, self.run.settings.finalists, self.strategy.centre(state)
        progress = Progress(
            number, state, old.finalists.cat(best)[-last:], old.centres.cat(centre)[-last:],
            old.trainings + scored.score.numel(), halvings, 0 if len(alive) else old.barren + 1,
        )  # fmt: skip
        record: dict[str, Any] = {
            "generation": number,
            "candidates": len(fitness),
            "best": float(alive.max()) if len(alive) else None,
            "mean": float(alive.mean()) if len(alive) else None,
            "diverged": int(failed.any(1).sum()),
            "failed_trainings": int(failed.sum()),
            "trainings": progress.trainings,
        }
        if halvings > old.halvings:
            record["events"] = [f"out of memory: chunks cut to 1/{2**halvings}"]
        if number % self.run.settings.report_every == 0:
            record["held_out"] = self._held_out(centre)
        return progress, record

    def _held_out(self, centre: Population) -> dict[str, float]:
        """The population's centre on the meta-validation tasks that cross-entropy was tuned on."""
        score = self.trials.held_out(self.genome.losses(centre), "baseline", self.run.settings.baseline_tasks)[0]
        gain = paired(score, torch.cat([rival.score for rival in self.rivals]), Stream(0).at("bootstrap"), resamples=2)
        return {"accuracy": float(score.double().nan_to_num().mean()), "gain": gain.mean, "error": gain.error}

    def finish(self, progress: Progress) -> None:
        """Choose the winner on meta-validation tasks, write it, and only then look at the meta-test tasks."""
        chosen = self.run.settings
        winner, choice = self._elect(progress)
        names = ", ".join(family.name for family in chosen.families)  # not paths: a loss is shared
        about = {"evolved on": names, "run": self.run.name, "choice": choice, "metaloss": __version__}
        loss = Criterion(self.genome, winner, about)
        card = f"# {self.run.name}\n\n{self.genome.describe(winner, 0)}, evolved on {names}.\n"
        table = {k: v for k, v in chosen.genome.items() if k != "kind"}
        criterion.save(self.run.folder / "loss", loss, chosen.genome["kind"], table, card)
        summary = {"choice": choice, "trainings": progress.trainings, "test": self._test(winner)}
        storage.write(self.run.folder / "loss" / "card.md", (card + _card(summary)).encode())
        self.run.write("summary.json", summary)
        self._plot(winner)

    def _elect(self, progress: Progress) -> tuple[Population, dict[str, Any]]:
        tasks = self.run.settings.winner_tasks
        # A mean over generations has less of the noise that each one's tasks brought in.
        standing = progress.finalists.cat(progress.centres[-1:]).cat(progress.centres.centre())
        score = self.trials.held_out(self.genome.losses(standing), "winner", tasks)
        fitness = mean(score, self.trials.numbers(tasks))
        row = int(fitness.argmax())
        first = progress.generation - len(progress.finalists) + 1
        names = [f"best of generation {first + i}" for i in range(len(progress.finalists))]
        origin = [*names, "the population's centre", f"the mean of the last {len(progress.centres)} centres"][row]
        choice = {"generation": progress.generation, "origin": origin, "accuracy": float(fitness[row]), "tasks": tasks}
        return standing[row : row + 1], choice

    def _test(self, winner: Population) -> dict[str, Any]:
        """The winner at the family's own rate against cross-entropy at its best, on meta-test tasks."""
        chosen, losses = self.run.settings, self.genome.losses(winner)
        strongest = self.trials.strongest(chosen.rates, chosen.baseline_tasks)
        result: dict[str, Any] = {}
        for kind, rivals in (("ce", self.rivals), ("ce_steps", strongest)):
            for episodes, rival, versus in zip(
                self.trials.families, rivals, self.trials.test(losses, rivals, chosen.test_tasks), strict=True
            ):
                row = result.setdefault(episodes.family.name, {"accuracy": versus.accuracy, "tasks": chosen.test_tasks})
                row[kind] = {
                    "lr": rival.lr, "steps": rival.steps, "accuracy": versus.rival, "gain": asdict(versus.gain)
                }  # fmt: skip
        return result

    def _plot(self, winner: Population) -> None:
        from metaloss import plots

        folder = self.run.folder / "plots"
        folder.mkdir(exist_ok=True)
        plots.fitness(self.run.history(), folder / "fitness.png")
        plots.phenotype(self.genome.losses(winner), self.genome.classes, folder / "phenotype.png")

    def _time(self, number: int, seconds: float, trainings: int) -> None:
        """Wall times stand beside the history, never in it; a lost line is no loss."""
        row = {
            "generation": number,
            "seconds": round(seconds, 3),
            "trainings_per_second": round(trainings / seconds, 1),
        }
        with contextlib.suppress(OSError), (self.run.folder / "timing.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _card(summary: dict[str, Any]) -> str:
    lines = [f"\nChosen on {summary['choice']['tasks']} fresh meta-validation tasks ({summary['choice']['origin']})."]
    for name, row in summary["test"].items():
        for kind in ("ce", "ce_steps"):
            rival, gain = row[kind], row[kind]["gain"]
            lines.append(
                f"{name}, {row['tasks']} meta-test tasks: {row['accuracy']:.1%}; cross-entropy at lr {rival['lr']} and "
                f"{rival['steps']} steps {rival['accuracy']:.1%}: paired difference {100 * gain['mean']:+.1f} points "
                f"[{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}] (95 % bootstrap over tasks)."
            )
    return "\n\n".join(lines) + "\n"
