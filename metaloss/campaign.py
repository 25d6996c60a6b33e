"""A run at work: its generations, each committed, then the election of the winner, then the test."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import torch

from metaloss import catalogue, storage
from metaloss._version import __version__
from metaloss.criterion import GenomeCriterion
from metaloss.engines.local import Local
from metaloss.errors import MetalossError
from metaloss.evolution import Scored, generation
from metaloss.families import Episodes
from metaloss.genomes import Genome
from metaloss.objectives import mean
from metaloss.population import Population
from metaloss.run import Progress, Run
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
class Campaign:
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
        loss = GenomeCriterion(self.genome, winner, about)
        card = f"# {self.run.name}\n\n{self.genome.describe(winner, 0)}, evolved on {names}.\n"
        catalogue.save(self.run.folder / "loss", loss, card)
        summary = {"choice": choice, "trainings": progress.trainings, "test": self._test(winner)}
        storage.write(self.run.folder / "loss" / "card.md", (card + _card(summary)).encode())
        self._plot(winner)
        self.run.write("summary.json", summary)  # last: it says that the run is finished

    def _elect(self, progress: Progress) -> tuple[Population, dict[str, Any]]:
        tasks = self.run.settings.winner_tasks
        # A mean over generations has less of the noise that each one's tasks brought in.
        standing = progress.finalists.cat(progress.centres[-1:]).cat(progress.centres.centre())
        score = self.trials.held_out(self.genome.losses(standing), "winner", tasks)
        # One failure among so many tasks costs what it costs in use, a wrong answer everywhere, and no more.
        fitness = mean(score.nan_to_num(nan=0.0), self.trials.numbers(tasks))
        row = int(fitness.argmax())
        if score[row].isnan().all():
            raise MetalossError(f"none of the {len(standing)} finalists trains without failing: there is no winner")
        first = progress.generation - len(progress.finalists) + 1
        names = [f"best of generation {first + i}" for i in range(len(progress.finalists))]
        origin = [*names, "the population's centre", f"the mean of the last {len(progress.centres)} centres"][row]
        choice = {"generation": progress.generation, "origin": origin, "accuracy": float(fitness[row]), "tasks": tasks}
        return standing[row : row + 1], choice

    def _test(self, winner: Population) -> dict[str, Any]:
        """The winner at the family's own rate against cross-entropy at its best, on meta-test tasks."""
        chosen, losses = self.run.settings, self.genome.losses(winner)
        strongest = self.trials.strongest(chosen.rates, chosen.baseline_tasks)
        rivals, result = {"ce": self.rivals, "ce_steps": strongest}, dict[str, Any]()
        for kind, found in self.trials.test(losses, rivals, chosen.test_tasks).items():
            for episodes, rival, versus in zip(self.trials.families, rivals[kind], found, strict=True):
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
        plots.phenotype(self.genome.losses(winner), "evolved", self.genome.classes, folder / "phenotype.png")

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
