"""A search at work: generations, each committed, the choice of the winner, the test."""

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metaloss import storage
from metaloss._version import __version__
from metaloss.core.formatting import near_chance, percent, verdict_text
from metaloss.core.population import Population
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.data import image_record
from metaloss.errors import MetalossError
from metaloss.evaluation.protocol import LossEvaluation, Tuned
from metaloss.evaluation.statistics import paired
from metaloss.evolution import Scored, generation
from metaloss.genomes import Genome
from metaloss.losses.base import Losses
from metaloss.search.cached_evaluator import CachedEvaluator
from metaloss.search.finalists import choose_finalists, choose_winner, size_front
from metaloss.search.novelty import NoveltyFilter
from metaloss.search.objectives import NEEDS_BASELINE
from metaloss.search.run import Progress, Run
from metaloss.search.trained_losses import TrainedLosses
from metaloss.strategies import Strategy

MAX_FAILED_GENERATIONS = (
    10  # generations in a row without one candidate that trains, after which a run gives up
)


@dataclass(frozen=True)
class SearchRunner:
    """A run at work: its parts, and the rivals it is measured against."""

    run: Run
    trials: LossEvaluation
    genome: Genome
    strategy: Strategy
    rivals: Sequence[Tuned]
    reporter: Reporter
    ledger: TrainedLosses | None

    def generations(self, progress: Progress | None, deadline: float) -> Progress:
        """Run what is left of the generations, each committed before the next begins."""
        chosen = self.run.settings
        key = Stream(self.run.settings.seed)
        ledger = self.ledger
        stages = self._stages()
        novelty_filter = NoveltyFilter(self.genome, ledger.seen if ledger else None, chosen.tries)
        novelty_filter.start_generation()
        if progress is None:
            state = self.strategy.init(novelty_filter, key.at("init"))
            none = self.strategy.mean_candidate(state)[:0]
            progress = Progress(0, state, none, none, 0, 0, 0, stages.known())
        baseline = partial(
            self.trials.baseline_scores, self.rivals, chosen.tasks_per_generation, chosen.validation
        )
        versus = baseline if chosen.objective in NEEDS_BASELINE else None
        stages.restore(progress.known, key.at("tasks", self.strategy.epoch(progress.generation)))
        for number in range(progress.generation + 1, chosen.generations + 1):
            if progress.generation and time.monotonic() > deadline:
                break
            began = time.monotonic()
            # What the first population was drawn from belongs to the first generation.
            if number > 1:
                novelty_filter.start_generation()
            state, scored = generation(
                self.strategy,
                progress.state,
                novelty_filter,
                stages,
                chosen.objective_function(),
                key,
                number,
                versus,
            )
            progress, record = self._step(progress, state, scored, number, stages, novelty_filter)
            if ledger:
                ledger.add(record, novelty_filter.losses(scored.population).formulas)  # type: ignore[attr-defined]
            self.run.commit(record, progress)
            seconds = time.monotonic() - began
            trainings = record["trained"] * scored.score.shape[1]
            self._time(number, seconds, trainings)
            self.reporter.on_generation(record, seconds, trainings)
            if progress.failed_generations >= MAX_FAILED_GENERATIONS:
                raise MetalossError(
                    "no candidate trained without failing in the last "
                    f"{MAX_FAILED_GENERATIONS} generations"
                )
        return progress

    def _stages(self) -> CachedEvaluator:
        chosen = self.run.settings
        full = partial(self.trials.search_scores, chosen.tasks_per_generation, chosen.validation)
        screen = chosen.screening_budget()
        passes = (
            partial(self.trials.passes_screening, screen, self.rivals, chosen.validation)
            if screen
            else None
        )
        return CachedEvaluator(full, passes)

    def _step(
        self,
        old: Progress,
        state: Any,
        scored: Scored,
        number: int,
        stages: CachedEvaluator,
        novelty_filter: NoveltyFilter,
    ) -> tuple[Progress, dict[str, Any]]:
        """What is known after a generation, and its line of history."""
        accuracy = scored.score.double().mean(1)
        failed = scored.score.isnan()
        alive = accuracy[scored.fitness.isfinite()]
        top = scored.fitness.argmax()
        halvings = self.trials.engine.halvings
        last = self.run.settings.finalists
        centre = self.strategy.mean_candidate(state)
        tasks = scored.score.shape[1]
        goes_on = self.strategy.epoch(number + 1) == self.strategy.epoch(number)
        progress = Progress(
            number,
            state,
            old.finalists.cat(scored.population[top[None]])[-last:],
            old.centres.cat(centre)[-last:],
            old.trainings + stages.trained * tasks,
            halvings,
            0 if len(alive) else old.failed_generations + 1,
            stages.known() if goes_on else CachedEvaluator(stages.full).known(),
        )
        record: dict[str, Any] = {
            "generation": number,
            "candidates": len(accuracy),
            "best": float(accuracy[top]) if len(alive) else None,
            "mean": float(alive.mean()) if len(alive) else None,
            "diverged": int(failed.any(1).sum()) - stages.screened,
            "failed_trainings": int(failed.sum()) - stages.screened * tasks,
            "trained": stages.trained,
            "trainings": progress.trainings,
        }
        if stages.screened:
            record["screened"] = stages.screened
        if novelty_filter.seen is not None:
            record |= self._told(scored, accuracy, stages, novelty_filter)
        if halvings > old.halvings:
            record["events"] = [f"out of memory: chunks cut to 1/{2**halvings}"]
        if number % self.run.settings.report_every == 0:
            record["held_out"] = self._held_out(centre)
        return progress, record

    def _told(
        self,
        scored: Scored,
        accuracy: Tensor,
        stages: CachedEvaluator,
        novelty_filter: NoveltyFilter,
    ) -> dict[str, Any]:
        """What the history says of formulas: the accuracy of each, and why others were refused."""
        formulas = novelty_filter.losses(scored.population).formulas  # type: ignore[attr-defined]
        # None for a failure, as the file has it: the ledger must read the same in a run that is
        # resumed.
        each = [None if math.isnan(x) else x for x in accuracy.tolist()]
        reached = {str(f): x for f, x in zip(formulas, each, strict=True)}
        return {
            "refused": dict(sorted(novelty_filter.refused.items())),
            "control": stages.control,
            "losses": list(reached.items()),
        }

    def _held_out(self, centre: Population) -> dict[str, float]:
        """The population's centre on the meta-validation tasks that cross-entropy was tuned on."""
        score = self.trials.validation_scores(
            self.genome.losses(centre), "baseline", self.run.settings.baseline_tasks
        )[0]
        gain = paired(
            score,
            torch.cat([rival.score for rival in self.rivals]),
            Stream(0).at("bootstrap"),
            resamples=2,
        )
        return {
            "accuracy": float(score.double().nan_to_num().mean()),
            "gain": gain.mean,
            "error": gain.error,
        }

    def finish(self, progress: Progress) -> None:
        """Choose the winner on meta-validation tasks, write it, and only then test it."""
        tasks = self.run.settings.winner_tasks
        self.reporter.on_work(f"choosing the winner on {tasks} tasks, and testing it")
        stands = choose_finalists(self.genome, progress, self.ledger)
        row, reached = choose_winner(stands, self.trials, tasks)
        choice = {
            "generation": progress.generation,
            "origin": stands.origins[row],
            "accuracy": float(reached[row]),
            "tasks": max(self.trials.task_counts(tasks)),
        }
        # Not paths: a loss is shared.
        names = ", ".join(family.name for family in self.run.settings.families)
        classes = sorted({e.ways for e in self.trials.families})
        about = {
            "evolved on": names,
            "classes": classes,
            "run": self.run.name,
            "choice": choice,
            "metaloss": __version__,
        }
        loss = stands.criterion(row, about)
        card = f"# {self.run.name}\n\n{loss.describe()}, evolved on {names}.\n"
        loss_io.save(self.run.folder / "loss", loss, card, image_record.read(self.run.folder))
        test = self._test(loss.losses())
        sizes = size_front(stands, reached) if self.ledger else []
        summary = {
            "choice": choice,
            "trainings": progress.trainings,
            **self._spared(),
            "front": sizes,
            "test": test,
        }
        if sizes:
            self.run.write("front.json", {"front": sizes})
        if stands.formulas:
            summary["formula"] = loss.describe()
        storage.write(self.run.folder / "loss" / "card.md", (card + _card(summary)).encode())
        self._plot(loss.losses(), sizes)
        self.run.write("summary.json", summary)  # last: it says that the run is finished

    def _spared(self) -> dict[str, Any]:
        """What was not trained.

        How often each filter refused a formula, and how many trainings the screening saved.
        """
        history = self.run.history()
        tasks = sum(self.trials.task_counts(self.run.settings.tasks_per_generation))
        refused = sum((Counter(record.get("refused", {})) for record in history), Counter[str]())
        screened = sum(record.get("screened", 0) for record in history)
        return {"refused": dict(refused.most_common()), "screened_trainings": screened * tasks}

    def _test(self, losses: Losses) -> dict[str, Any]:
        """The winner at the family's own rate against tuned cross-entropy, on meta-test tasks."""
        chosen = self.run.settings
        strongest = self.trials.tune_baseline_steps(
            chosen.rates, chosen.baseline_tasks, self.rivals
        )
        rivals = {"ce": self.rivals, "ce_steps": strongest}
        result = dict[str, Any]()
        for kind, found in self.trials.test(losses, rivals, chosen.test_tasks).items():
            for episodes, rival, versus in zip(
                self.trials.families, rivals[kind], found, strict=True
            ):
                same = {
                    "accuracy": versus.accuracy,
                    "tasks": versus.gain.tasks,
                    "classes": episodes.ways,
                }
                row = result.setdefault(episodes.family.name, same)
                own = {
                    key: value
                    for key, value in asdict(versus).items()
                    if key not in ("accuracy", "baseline_accuracy")
                }
                row[kind] = {
                    "lr": rival.lr,
                    "steps": rival.steps,
                    "accuracy": versus.baseline_accuracy,
                    **own,
                }
        return result

    def _plot(self, loss: Losses, front: list[dict[str, Any]]) -> None:
        from metaloss.evaluation import plots

        folder = self.run.folder / "plots"
        folder.mkdir(exist_ok=True)
        plots.fitness(self.run.history(), folder / "fitness.png")
        plots.phenotype(loss, "evolved", self.genome.classes, folder / "phenotype.png")
        if front:
            plots.front(front, folder / "front.png")

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
    lines = [
        f"\nChosen on {summary['choice']['tasks']} fresh meta-validation tasks "
        f"({summary['choice']['origin']})."
    ]
    for name, row in summary["test"].items():
        for kind in ("ce", "ce_steps"):
            rival = row[kind]
            near = near_chance(row["accuracy"], row["classes"])
            lines.append(
                f"{name}, {row['tasks']} meta-test tasks: {percent(row['accuracy'])}{near}; "
                f"cross-entropy at lr {rival['lr']} and {rival['steps']} steps "
                f"{percent(rival['accuracy'])}: {verdict_text(rival)} points "
                "(95 % bootstrap over tasks and images)."
            )
    return "\n\n".join(lines) + "\n"
