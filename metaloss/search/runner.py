"""A search at work: its generations, each committed before the next begins."""

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.core.population import Population
from metaloss.core.records import GenerationRecord
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.errors import MetalossError
from metaloss.evaluation.guard import Guard
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.tuning import Tuned
from metaloss.evolution import Objective, Scored, generation
from metaloss.genomes import Genome
from metaloss.search.cached_evaluator import CachedEvaluator, Train
from metaloss.search.held_out import held_out_record
from metaloss.search.memetic import Refiner
from metaloss.search.noise import lead_of_best
from metaloss.search.novelty import NoveltyFilter
from metaloss.search.run_folder import Progress, Run
from metaloss.search.task_course import TaskCourse
from metaloss.search.trained_losses import TrainedLosses
from metaloss.strategies import Strategy

MAX_FAILED_GENERATIONS = (
    10  # generations in a row without one candidate that trains, after which a run gives up
)


@dataclass(frozen=True)
class SearchRunner:
    """Runs what is left of a search.

    Attributes:
        run: its folder and settings.
        evaluation: trains and scores losses.
        genome: the search space.
        strategy: the outer algorithm.
        baselines: cross-entropy at its best rate, for every family.
        reporter: is told of every generation.
        trained_losses: what a search for formulas has trained; None for other genomes.
    """

    run: Run
    evaluation: LossEvaluation
    genome: Genome
    strategy: Strategy
    baselines: Sequence[Tuned]
    reporter: Reporter
    trained_losses: TrainedLosses | None

    @property
    def scale(self) -> MetricScale:
        """How scores are shown: of all families alike."""
        return self.evaluation.families[0].scale

    @property
    def objective(self) -> Objective:
        """From scores, and with a guard from its columns, to fitness."""
        spreads = self.evaluation.spreads(self.baselines)
        return self.run.settings.objective_function(spreads)

    @property
    def plain_objective(self) -> Objective:
        """From scores alone to fitness."""
        return self.run.settings.plain_objective(self.evaluation.spreads(self.baselines))

    @property
    def weighs_kinds(self) -> bool:
        """Whether the winner is chosen by the objective too, as that weighs kinds of tasks."""
        return self.run.settings.objective == "regret"

    def generations(self, progress: Progress | None, deadline: float) -> Progress:
        """Run what is left of the generations, each committed before the next begins.

        Args:
            progress: what is known after the last one; None before the first.
            deadline: the time on the monotonic clock after which no further one begins.

        Raises:
            MetalossError: every candidate failed in too many generations in a row.
        """
        settings = self.run.settings
        key = Stream(settings.seed)
        evaluator = self._evaluator()
        seen = self.trained_losses.seen if self.trained_losses else None
        novelty_filter = NoveltyFilter(self.genome, seen, settings.tries)
        novelty_filter.start_generation()
        if progress is None:
            state = self.strategy.init(novelty_filter, key.at("init"))
            none = self.strategy.mean_candidate(state)[:0]
            progress = Progress(0, state, none, none, 0, 0, 0, evaluator.snapshot())
        # Tasks hang on the seed and the epoch alone, never on what was searched before.
        epoch = self.strategy.epoch(progress.generation)
        evaluator.restore(progress.cached_scores, key.at("tasks", epoch))
        for number in range(progress.generation + 1, settings.generations + 1):
            # At least one generation runs, so that there is a winner.
            if progress.generation and time.monotonic() > deadline:
                break
            # What the first population was drawn from belongs to the first generation.
            if number > 1:
                novelty_filter.start_generation()
            progress = self._run_generation(progress, number, key, evaluator, novelty_filter)
            if progress.failed_generations >= MAX_FAILED_GENERATIONS:
                raise MetalossError(
                    "no candidate trained without failing in the last "
                    f"{MAX_FAILED_GENERATIONS} generations"
                )
        return progress

    def _run_generation(
        self,
        progress: Progress,
        number: int,
        key: Stream,
        evaluator: CachedEvaluator,
        novelty_filter: NoveltyFilter,
    ) -> Progress:
        """Run one generation, commit it and report it.

        Args:
            progress: what is known before it.
            number: of the generation: 1, 2, ...
            key: of the whole run.
            evaluator: trains what is not known yet.
            novelty_filter: the search space.

        Returns:
            What is known after it.
        """
        began = time.monotonic()
        tasks = self.course.of_generation(number)
        evaluator.train = self._train(tasks)
        state, scored = generation(
            self.strategy,
            progress.state,
            novelty_filter,
            evaluator,
            self.objective,
            key,
            number,
            self._baseline_scores(tasks),
            partial(self._gradients, tasks, getattr(self.strategy, "unroll", None)),
            self._refiner(number, tasks, key),
        )
        progress, record = self._step(progress, state, scored, number, evaluator, novelty_filter)
        if self.trained_losses:
            losses: Any = novelty_filter.losses(scored.population)
            self.trained_losses.add(record, losses.formulas)
        # Committed before it is reported: what a reporter shows is on disk.
        self.run.commit(record, progress)
        seconds = time.monotonic() - began
        trainings = record["trained"] * scored.score.shape[1]
        self._write_timing(number, seconds, trainings)
        self.reporter.on_generation(record, seconds, trainings)
        return progress

    @cached_property
    def course(self) -> TaskCourse:
        """How many tasks each generation has."""
        return self.run.settings.task_course()

    def _train(self, tasks: int) -> Train:
        """What trains candidates on so many tasks of every family."""
        return partial(self.evaluation.search_scores, tasks, self.run.settings.validation)

    def _baseline_scores(self, tasks: int) -> Callable[[Stream], Tensor] | None:
        """What scores the baselines on a generation's tasks, where the objective needs that."""
        settings = self.run.settings
        if not settings.needs_baseline:
            return None
        return partial(
            self.evaluation.baseline_scores,
            self.baselines,
            tasks,
            settings.validation,
        )

    def _gradients(
        self, tasks: int, unroll: int | None, population: Population, key: Stream
    ) -> Float[Tensor, "P D"]:
        """What candidates are refined by, on so many tasks of every family.

        Args:
            tasks: of every family.
            unroll: steps of the trainings that they go through; None: all.
            population: the candidates.
            key: of the tasks.
        """
        validation = self.run.settings.validation
        return self.evaluation.search_gradient(
            tasks, validation, self.genome, population, key, unroll
        )

    def _refiner(self, number: int, tasks: int, key: Stream) -> Refiner | None:
        """What refines the best of a generation, where its number says so."""
        stage = self.run.settings.refine
        if not stage.at(number):
            return None
        gradients = partial(self._gradients, tasks, stage.unroll)
        own = key.at("refine", number)
        return Refiner(stage, self.genome, gradients, self._train(tasks), self.objective, own)

    def _evaluator(self) -> CachedEvaluator:
        """What trains candidates: with a screening before it, where the settings ask for one."""
        settings = self.run.settings
        train = self._train(settings.tasks_per_generation)
        budget = settings.screening_budget()
        if budget is None:
            return CachedEvaluator(train)
        screen = partial(
            self.evaluation.passes_screening, budget, self.baselines, settings.validation
        )
        return CachedEvaluator(train, screen)

    def _step(
        self,
        old: Progress,
        state: Any,
        scored: Scored,
        number: int,
        evaluator: CachedEvaluator,
        novelty_filter: NoveltyFilter,
    ) -> tuple[Progress, GenerationRecord]:
        """What is known after a generation, and its line of history.

        Args:
            old: what was known before.
            state: of the strategy, after it.
            scored: the candidates with their scores [P T] and their fitness [P].
            number: of the generation.
            evaluator: has trained them.
            novelty_filter: has counted what it refused.
        """
        settings = self.run.settings
        score = scored.score.double().mean(1)  # [P]
        alive = score[scored.fitness.isfinite()]
        best = scored.fitness.argmax()
        halvings = self.evaluation.engine.halvings
        mean_candidate = self.strategy.mean_candidate(state)
        tasks = scored.score.shape[1]
        goes_on = self.strategy.epoch(number + 1) == self.strategy.epoch(number)
        progress = Progress(
            number,
            state,
            old.finalists.cat(scored.population[best[None]])[-settings.finalists :],
            old.mean_candidates.cat(mean_candidate)[-settings.finalists :],
            old.trainings + evaluator.trained * tasks,
            halvings,
            0 if len(alive) else old.failed_generations + 1,
            # Scores of an epoch that ends would be compared with those on other tasks.
            evaluator.snapshot() if goes_on else CachedEvaluator(evaluator.train).snapshot(),
        )
        record = self._record(scored, number, evaluator, progress.trainings)
        if lead := lead_of_best(scored, self.plain_objective):
            record["lead"] = lead
        if novelty_filter.seen is not None:
            self._add_formulas(record, scored, score, evaluator, novelty_filter)
        if halvings > old.halvings:
            record["events"] = [f"out of memory: chunks cut to 1/{2**halvings}"]
        # The mean candidate, not the best: that is partly luck on this generation's tasks.
        if number % settings.report_every == 0:
            record["held_out"] = held_out_record(
                self.evaluation,
                self.baselines,
                self.genome.losses(mean_candidate),
                settings.baseline_tasks,
                self.plain_objective if self.weighs_kinds else None,
            )
        return progress, record

    def _record(
        self, scored: Scored, number: int, evaluator: CachedEvaluator, trainings: int
    ) -> GenerationRecord:
        """A generation's line of history, as it is for every genome.

        Args:
            scored: the candidates with their scores and their fitness.
            number: of the generation.
            evaluator: has trained them.
            trainings: of the whole run until now.
        """
        score = scored.score.double().mean(1)
        failed = scored.score.isnan()
        alive = score[scored.fitness.isfinite()]
        value = self.scale.value
        tasks = scored.score.shape[1]
        refused = Counter(self.genome.reasons[code] for code in scored.refused.tolist() if code)
        untrained = evaluator.screened + refused.total()
        record: GenerationRecord = {
            "generation": number,
            "candidates": len(score),
            "best": value(float(score[scored.fitness.argmax()])) if len(alive) else None,
            "mean": value(float(alive.mean())) if len(alive) else None,
            # The scores of what was not trained are NaN, too, but nothing of it has diverged.
            "diverged": int(failed.any(1).sum()) - untrained,
            "failed_trainings": int(failed.sum()) - untrained * tasks,
            "tasks": tasks,
            "trained": evaluator.trained,
            "trainings": trainings,
        }
        if scored.refined:
            record["refined"] = scored.refined
        if evaluator.screened:
            record["screened"] = evaluator.screened
        if refused:
            record["refused"] = dict(sorted(refused.items()))
        if self.run.settings.guard:
            record["outside"] = int(Guard.outside(scored.fitness).sum())
        return record

    def _add_formulas(
        self,
        record: GenerationRecord,
        scored: Scored,
        score: Float[Tensor, " P"],
        evaluator: CachedEvaluator,
        novelty_filter: NoveltyFilter,
    ) -> None:
        """Say in a line of history what each formula reached, and why others were refused.

        Args:
            record: that line.
            scored: the candidates.
            score: of each.
            evaluator: knows the control's score.
            novelty_filter: has counted what it refused.
        """
        losses: Any = novelty_filter.losses(scored.population)
        # None for a failure, as the file has it: what was trained must read the same in a run that
        # is resumed.
        values = [None if math.isnan(x) else self.scale.value(x) for x in score.tolist()]
        reached = {str(formula): x for formula, x in zip(losses.formulas, values, strict=True)}
        record["refused"] = dict(sorted(novelty_filter.refused.items()))
        record["control"] = self.scale.value(evaluator.control)
        record["losses"] = list(reached.items())
        if self.run.settings.guard:
            outside = Guard.outside(scored.fitness).tolist()
            record["outside_losses"] = [
                str(formula) for formula, out in zip(losses.formulas, outside, strict=True) if out
            ]

    def _write_timing(self, number: int, seconds: float, trainings: int) -> None:
        """Wall times stand beside the history, never in it; a lost line is no loss."""
        row = {
            "generation": number,
            "seconds": round(seconds, 3),
            "trainings_per_second": round(trainings / seconds, 1),
        }
        with contextlib.suppress(OSError), (self.run.folder / "timing.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
