"""How losses are scored and compared on the task families of a search.

Meta-training tasks give a search its scores. On meta-validation tasks learning rates are tuned and
the winner is chosen. Meta-test tasks are looked at once, for the final comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.gradients import TaskGradients, episodic
from metaloss.evaluation.guard import Guard
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.evaluation.tuning import Tuned
from metaloss.genomes import SearchSpace
from metaloss.losses.base import Losses
from metaloss.losses.unit_gain import UnitGain
from metaloss.tasks.opening import Mixture, OpenFamily
from metaloss.tasks.protocols import Engine


@dataclass(frozen=True)
class ScreeningBudget:
    """A short training before the full one: so many steps on so few tasks.

    Passed by those that come as far as a share of the way from chance to cross-entropy after as
    many steps.
    """

    steps: int
    tasks: int
    share: float


@dataclass(frozen=True)
class LossEvaluation:
    """Scores and compares losses on several task families at once.

    Attributes:
        engine: trains classifiers.
        families: the task families with their images.
        key: of every random draw; with a role it gives the tasks of that role.
        guard: what candidates of a search are measured by beside their score, in columns behind it.
        unit_gain: whether candidates are divided by their gains; baselines are not.
    """

    engine: Engine
    families: Sequence[OpenFamily]
    key: Stream
    guard: Guard | None = None
    unit_gain: bool = False

    def candidates(self, losses: Losses) -> Losses:
        """Candidates of a search as they train."""
        return UnitGain.of(losses) if self.unit_gain else losses

    def on(self, family: OpenFamily) -> FamilyEvaluation:
        """The evaluation on one family, with the same engine and key."""
        return FamilyEvaluation(self.engine, family, self.key)

    @property
    def each(self) -> list[FamilyEvaluation]:
        """The evaluation on each of the families."""
        return [self.on(family) for family in self.families]

    @property
    def _guarded(self) -> tuple[str, ...]:
        """The metrics of the guard."""
        return self.guard.metrics if self.guard else ()

    def search_scores(
        self, tasks: int, validation: int, losses: Losses, key: Stream
    ) -> tuple[Float[Tensor, "P T *K"], Int[Tensor, " T"]]:
        """Scores on fresh meta-training tasks of every family, and each task's kind.

        Evolution learns from them. With a guard, its columns.

        Args:
            tasks: of every family.
            validation: validation images per class.
            losses: the candidates.
            key: of the tasks.
        """
        losses = self.candidates(losses)
        scores = [
            x.scores(losses, "train", key, tasks, val=validation, beside=self._guarded)[0]
            for x in self.each
        ]
        return torch.cat(scores, 1), self.kind_index(tasks, key)

    def search_gradient(
        self,
        tasks: int,
        validation: int,
        genome: SearchSpace,
        population: Population,
        key: Stream,
        steps: int | None,
    ) -> Float[Tensor, "P D"]:
        """The gradient of cross-entropy on the validation images of the tasks that `search_scores`
        draws by this key, by the candidates' numbers: the mean over the tasks of each family, and
        that over the families.

        Args:
            tasks: of every family.
            validation: validation images per class.
            genome: the search space.
            population: the candidates.
            key: of the tasks.
            steps: of each training, from its start; None: all.

        Raises:
            SettingsError: a family's tasks are full trainings, or its classifier or optimiser lets
                no gradient through.
        """

        def losses(vectors: Float[Tensor, "P D"]) -> Losses:
            return self.candidates(genome.losses(population.from_vectors(vectors)))

        gradients = [
            TaskGradients(self.engine, episodic(family), steps, validation).mean(
                losses, population.vectors(), key, tasks
            )
            for family in self.families
        ]
        return torch.stack(gradients).mean(0)

    def baseline_scores(
        self, baselines: Sequence[Tuned], tasks: int, validation: int, key: Stream
    ) -> Float[Tensor, "T *K"]:
        """The tuned baselines' scores on the tasks that `search_scores` draws by this key.

        With a guard, its columns.

        Args:
            baselines: one for each family, and scored on its tasks.
            tasks: of every family.
            validation: validation images per class.
            key: of the tasks.
        """
        return self._of_baselines(baselines, "train", key, tasks, validation)

    def _of_baselines(
        self,
        baselines: Sequence[Tuned],
        pool: str,
        key: Stream,
        tasks: int,
        validation: int | None = None,
        first: int = 0,
    ) -> Float[Tensor, "T *K"]:
        """What the baselines, each on its family, are measured to be on tasks of a pool."""
        at: dict[str, Any] = {"val": validation, "first": first, "beside": self._guarded}
        scores = [
            x.scores(tuned.losses, pool, key, tasks, lr=tuned.lr, **at)[0, 0]
            for x, tuned, numbers in zip(
                self.each, baselines, self._numbers(tasks, first), strict=True
            )
            if numbers
        ]
        return torch.cat(scores)

    def passes_screening(
        self,
        screen: ScreeningBudget,
        baselines: Sequence[Tuned],
        validation: int,
        losses: Losses,
        key: Stream,
    ) -> Bool[Tensor, " P"]:
        """Whether losses come far enough in a short training.

        Args:
            screen: its length, and how far is enough.
            baselines: cross-entropy at each family's best rate, which is the measure.
            validation: validation images per class.
            losses: the candidates.
            key: of the tasks.
        """
        losses = self.candidates(losses)
        enough = torch.ones(len(losses), dtype=torch.bool)
        for x, baseline in zip(self.each, baselines, strict=True):
            # No more steps than the family has: a screening must not outlast the training.
            steps = (min(screen.steps, x.family.steps),)
            short = partial(x.scores, val=validation, steps=steps)
            ours = short(losses, "train", key, screen.tasks)[0].mean(1)
            theirs = short(baseline.losses, "train", key, screen.tasks, lr=baseline.lr)[0].mean()
            # Measured from chance, so that a share means the same for any number of classes.
            chance = x.family.chance
            enough &= ours >= chance + screen.share * (theirs - chance)  # a failure's NaN is not
        return enough

    def family_index(self, tasks: int) -> Int[Tensor, " T"]:
        """The family of each task, where so many are asked for of every family."""
        return torch.arange(len(self.families)).repeat_interleave(
            torch.tensor(self.task_counts(tasks))
        )

    def kind_index(self, tasks: int, key: Stream, first: int = 0) -> Int[Tensor, " T"]:
        """The kind of each task, where so many are asked for of every family.

        Families whose tasks are of one kind are a kind; the kinds of a mixture count singly.

        Args:
            tasks: of every family.
            key: of the tasks.
            first: so many of them are left out.
        """
        before = 0
        kinds = []
        for family, numbers in zip(self.families, self._numbers(tasks, first), strict=True):
            kinds.append(before + family.kinds_of(key, numbers))
            before += family.kind_count
        return torch.cat(kinds)

    def spreads(self, baselines: Sequence[Tuned]) -> list[float]:
        """The unit of differences of scores of every kind, by its number.

        Args:
            baselines: cross-entropy at its best rate, per family.
        """
        spreads: list[float] = []
        for family, baseline in zip(self.families, baselines, strict=True):
            references = family.references if isinstance(family, Mixture) else None
            spreads += references.spreads if references else [baseline.spread]
        return spreads

    def task_counts(self, tasks: int) -> list[int]:
        """How many tasks of each family there are, where so many are asked for."""
        return [family.most(tasks) for family in self.families]

    def _numbers(self, tasks: int, first: int) -> list[range]:
        """The numbers of each family's tasks, without so many of the first ones."""
        counts = zip(self.task_counts(first), self.task_counts(tasks), strict=True)
        return [range(left_out, count) for left_out, count in counts]

    def _with_tasks(self, tasks: int, first: int) -> list[FamilyEvaluation]:
        """The evaluation on each family that has such tasks; seeds of full trainings are few."""
        numbers = self._numbers(tasks, first)
        return [x for x, of_family in zip(self.each, numbers, strict=True) if of_family]

    def validation_scores(
        self,
        losses: Losses,
        role: str,
        tasks: int,
        beside: tuple[str, ...] = (),
        first: int = 0,
    ) -> Float[Tensor, "P T *K"]:
        """Scores on the meta-validation tasks of that role, family after family.

        With further metrics `beside` them these follow in columns. The `first` so many tasks are
        left out.
        """
        key = self.key.at(role)
        losses = self.candidates(losses)
        at: dict[str, Any] = {"first": first, "beside": beside}
        each = self._with_tasks(tasks, first)
        return torch.cat([x.scores(losses, "validation", key, tasks, **at)[0] for x in each], 1)

    def beside_baselines(
        self,
        losses: Losses,
        baselines: Sequence[Tuned],
        pool: str,
        role: str,
        tasks: int,
        first: int = 0,
    ) -> tuple[Float[Tensor, "P T *K"], Float[Tensor, "T *K"]]:
        """The scores of losses and of the baselines on the same tasks; with a guard, its columns.

        Args:
            losses: P of them, at each family's own rate.
            baselines: one for each family.
            pool: "validation" or "test".
            role: of the tasks.
            tasks: of every family.
            first: so many of them are left out.
        """
        key = self.key.at(role)
        losses = self.candidates(losses)
        at: dict[str, Any] = {"first": first, "beside": self._guarded}
        ours = [x.scores(losses, pool, key, tasks, **at)[0] for x in self._with_tasks(tasks, first)]
        return torch.cat(ours, 1), self._of_baselines(baselines, pool, key, tasks, first=first)

    def tune_baseline(self, rates: Sequence[float], tasks: int) -> list[Tuned]:
        """Cross-entropy at its best rate and the family's own number of steps, per family."""
        return [x.tune_baseline(rates, tasks) for x in self.each]

    def tune_baseline_steps(
        self, rates: Sequence[float], tasks: int, baseline: Sequence[Tuned]
    ) -> list[Tuned]:
        """Cross-entropy at its best rate and its best number of steps, per family.

        Full trainings and the kinds of a mixture keep their lengths.
        """
        return [
            # The first tuning was over the same settings where there is but one number of steps.
            tuned
            if x.family.step_choices() == (tuned.steps,)
            else x.tune_baseline(rates, tasks, x.family.step_choices())
            for x, tuned in zip(self.each, baseline, strict=True)
        ]

    def test(
        self, losses: Losses, baselines: Mapping[str, Sequence[Tuned]], tasks: int
    ) -> list[dict[str, PairedComparison]]:
        """One loss against each kind of baseline, on meta-test tasks; a table for every family.

        Args:
            losses: the loss, which trains at each family's own rate and steps.
            baselines: by their kind, one for each family.
            tasks: of every family.
        """
        candidates = self.candidates(losses)
        return [
            x.test_against(candidates, {kind: tuned[i] for kind, tuned in baselines.items()}, tasks)
            for i, x in enumerate(self.each)
        ]
