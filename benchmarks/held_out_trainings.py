"""How `held_out_kinds.py` tunes and tests losses at many numbers of steps of one kind of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from held_out_tasks import Kind
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.tuning import Setting, repeated
from metaloss.inner.observers import Observer
from metaloss.losses.base import Losses, reads_clock
from metaloss.tasks.episodic import open_episodes

SEED = 2_021  # of the tasks
KEPT = 3  # settings of a number of steps that all tuning tasks decide between
FIRST = 4  # one of so many tuning tasks is looked at with every setting

# A loss with each choice of its own parameters, by how it is written.
Variants = Mapping[str, Losses]
# Settings by their number of steps.
Wanted = Mapping[int, Sequence[Setting]]
Seen = dict[Setting, Tensor]


@dataclass(frozen=True)
class KindTrainings:
    """Trainings on tasks of one kind.

    A loss that reads no clock shows all numbers of steps in one training; of one that does each
    number of steps is a training by itself.

    Attributes:
        kind: of the tasks.
        evaluation: what trains.
    """

    kind: Kind
    evaluation: FamilyEvaluation

    @classmethod
    def of(cls, kind: Kind, engine: Local) -> "KindTrainings":
        """Open the images of a kind."""
        return cls(kind, FamilyEvaluation(engine, open_episodes(kind.family), Stream(SEED)))

    def tune(self, variants: Variants, steps: Sequence[int]) -> dict[int, Setting]:
        """The best rate and variant at each number of steps, on meta-validation tasks.

        All settings are tried on a quarter of the tasks, the best few of each number of steps on
        the others.
        """
        few = max(2, self.kind.tuning // FIRST)
        grid = {
            n: [Setting(lr, n, spec=spec) for spec in variants for lr in self.kind.rates]
            for n in steps
        }
        seen = self._scores(variants, grid, range(few))
        kept = {n: sorted(grid[n], key=lambda x: -_mean(seen[x]))[:KEPT] for n in steps}
        if few < self.kind.tuning:
            more = self._scores(variants, kept, range(few, self.kind.tuning))
            seen = {x: torch.cat([seen[x], scores]) for x, scores in more.items()}
        best = {n: max(kept[n], key=lambda x: _mean(seen[x])) for n in steps}
        return {n: replace(x, score=_mean(seen[x])) for n, x in best.items()}

    def answers(
        self, variants: Variants, settings: Sequence[Setting]
    ) -> list[Float[Tensor, "T V"]]:
        """Which images of the meta-test tasks are answered right with each of some settings."""
        wanted: dict[int, list[Setting]] = {}
        for x in settings:
            wanted.setdefault(x.steps, []).append(_plain(x))
        episodes = self.evaluation.family
        seen = self._trained(variants, wanted, "test", range(self.kind.tasks), episodes.answers)
        # What diverged has no right answers.
        return [seen[_plain(x)].nan_to_num(nan=0.0) for x in settings]

    def _scores(self, variants: Variants, wanted: Wanted, tasks: range) -> Seen:
        observer = self.evaluation.family.observer()
        return self._trained(variants, wanted, "validation", tasks, observer)

    def _trained(
        self, variants: Variants, wanted: Wanted, pool: str, tasks: range, observer: Observer
    ) -> Seen:
        """What is seen of the trainings with the wanted settings."""
        seen: Seen = {}
        for steps, settings in _shared(variants, wanted).items():
            by_spec: dict[str, list[float]] = {}
            for spec, lr in settings:
                by_spec.setdefault(spec, []).append(lr)
            found = self.evaluation.family.evaluate(
                self.evaluation.engine,
                [repeated(variants[spec], len(rates)) for spec, rates in by_spec.items()],
                pool,
                self.evaluation.key.at(pool),
                tasks,
                rates=[torch.tensor(rates) for rates in by_spec.values()],
                steps=steps,
                metric=observer,
            )
            for (spec, rates), of_spec in zip(by_spec.items(), found, strict=True):
                for n, at_mark in zip(steps, of_spec, strict=True):
                    for lr, values in zip(rates, at_mark, strict=True):
                        seen[Setting(lr, n, spec=spec)] = values
        return seen


def _shared(variants: Variants, wanted: Wanted) -> dict[tuple[int, ...], list[tuple[str, float]]]:
    """The trainings that show what is wanted: by their numbers of steps, variants and rates."""
    marks: dict[tuple[str, float], set[int]] = {}
    for n, settings in wanted.items():
        for x in settings:
            marks.setdefault((x.spec, x.lr), set()).add(n)
    shared: dict[tuple[int, ...], list[tuple[str, float]]] = {}
    for (spec, lr), steps in marks.items():
        ascending = tuple(sorted(steps))
        apart = reads_clock(variants[spec])
        for each in [(n,) for n in ascending] if apart else [ascending]:
            shared.setdefault(each, []).append((spec, lr))
    return shared


def _plain(setting: Setting) -> Setting:
    return replace(setting, score=None)


def _mean(scores: Float[Tensor, " T"]) -> float:
    """The mean score; lower than any other where a training failed, so that it cannot win."""
    return float(scores.double().mean().nan_to_num(nan=-1.0))


def trainings_of_tuning(kind: Kind, variants: int) -> int:
    """How many trainings it takes to tune so many variants, about."""
    few = max(2, kind.tuning // FIRST)
    # The best few of one number of steps are often those of another.
    return variants * len(kind.rates) * few + 2 * KEPT * max(0, kind.tuning - few)


def best_until(settings: Mapping[int, Setting], steps: int) -> Setting:
    """The setting with the best score of those with at most so many steps."""
    return max((x for n, x in settings.items() if n <= steps), key=lambda x: x.score or 0.0)
