"""Losses on the same tasks of one family, from the same initial weights: tuned, tested and watched while they train."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.engines.local import Local
from metaloss.evaluation.protocol import best_setting
from metaloss.inner.loop import Inner
from metaloss.inner.metrics import Measures, Metric, measure, predictions, progress, scores
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.step_counts import step_grid, training_lengths

WAVE = 32  # tasks trained and looked at together: what their answers take stays bounded
MOMENTS = 40  # of a learning curve, at most
CURVE_IMAGES = 50  # per class, that a learning curve is read off


@dataclass(frozen=True)
class Setting:
    """How a loss is used.

    Attributes:
        lr: the learning rate.
        steps: how many of them.
        accuracy: what it reached on the meta-validation tasks where it was chosen; None: it was
            not.
    """

    lr: float
    steps: int
    accuracy: float | None = None


@dataclass(frozen=True)
class TunedSettings:
    """The settings of one loss: at the family's number of steps, and with the number chosen too."""

    rate: Setting
    steps: Setting | None


@dataclass(frozen=True)
class FamilyEvaluation:
    """One family's tasks, and the engine that trains on them.

    Every result of a loss is bit for bit the same whichever other losses there are.

    Attributes:
        engine: what trains.
        episodes: the family.
        key: of every draw.
    """

    engine: Local
    episodes: Episodes
    key: Stream

    @property
    def inner(self) -> Inner:
        """The family's own settings."""
        return self.episodes.family.inner

    def tune(self, losses: Sequence[Losses], rates: Sequence[float], tasks: int) -> list[Setting]:
        """Each loss's best rate at the family's number of steps."""
        return self._best(losses, rates, tasks, (self.inner.steps,))

    def tune_steps(
        self, losses: Sequence[Losses], rates: Sequence[float], tasks: int
    ) -> list[Setting]:
        """Each loss's best rate and number of steps."""
        return self._best(losses, rates, tasks, step_grid(self.inner)) if losses else []

    def _best(
        self, losses: Sequence[Losses], rates: Sequence[float], tasks: int, steps: tuple[int, ...]
    ) -> list[Setting]:
        grid = [repeated(one, len(rates)) for one in losses]
        lr = torch.tensor(list(rates))
        found = [
            self._scores(grid, [lr] * len(grid), tasks, course)
            for course in training_lengths(self.inner, steps)
        ]
        return [_chosen(torch.cat(each), rates, steps) for each in zip(*found, strict=True)]

    def _scores(
        self, grid: Sequence[Losses], lrs: Sequence[Rate], tasks: int, steps: tuple[int, ...]
    ) -> list[Float[Tensor, "M R T"]]:
        inner = replace(self.inner, steps=steps[-1])
        waves = [
            self._observe(grid, lrs, part, "validation", scores, inner, steps)[1]
            for part in waves_of(tasks)
        ]
        return [torch.cat(each, 2) for each in zip(*waves, strict=True)]

    def test(
        self, losses: Sequence[Losses], settings: Sequence[Sequence[Setting]], tasks: int
    ) -> list[list[Measures]]:
        """What each loss's trainings are worth on meta-test tasks, for as many settings of one number of steps each."""
        many = [repeated(one, len(each)) for one, each in zip(losses, settings, strict=True)]
        lrs = [torch.tensor([s.lr for s in each]) for each in settings]
        inner = replace(self.inner, steps=settings[0][0].steps)
        waves = []
        for part in waves_of(tasks):
            drawn, found = self._observe(many, lrs, part, "test", predictions, inner)
            label = drawn.val.label.cpu()
            ways = drawn.ways
            waves.append([[measure(row, label, ways) for row in each[0]] for each in found])
        return [
            [together(parts) for parts in zip(*each, strict=True)]
            for each in zip(*waves, strict=True)
        ]

    def test_each(
        self, losses: Sequence[Losses], settings: Sequence[Setting | None], tasks: int
    ) -> list[Measures | None]:
        """The same for one setting of each loss, whatever its number of steps; losses that have none are left out."""
        found: list[Measures | None] = [None] * len(losses)
        for steps in sorted({s.steps for s in settings if s}):
            some = [i for i, s in enumerate(settings) if s and s.steps == steps]
            several = self.test(
                [losses[i] for i in some], [(s,) for s in settings if s and s.steps == steps], tasks
            )
            for i, (one,) in zip(some, several, strict=True):
                found[i] = one
        return found

    def rows(self, tasks: int) -> Int[Tensor, "T V"]:
        """Which images the meta-test tasks validate on."""
        keys = [self.key.at("test", "task", t) for t in range(tasks)]
        return self.episodes.sample(keys, "test").val.rows.cpu()

    def curves(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> tuple[tuple[int, ...], list[Float[Tensor, "M T 2"]]]:
        """Training and validation accuracies on some of the meta-test tasks, and after which steps."""
        total = self.inner.steps
        moments = tuple(
            sorted({round(1 + i * (total - 1) / (MOMENTS - 1)) for i in range(MOMENTS)})
        )
        lrs = [s.lr for s in settings]
        waves = [
            self._observe(losses, lrs, part, "test", progress, self.inner, moments, CURVE_IMAGES)[1]
            for part in waves_of(tasks)
        ]
        return moments, [torch.cat(each, 2)[:, 0] for each in zip(*waves, strict=True)]

    def _observe(
        self,
        many: Sequence[Losses],
        lrs: Sequence[Rate],
        numbers: range,
        pool: str,
        metric: Metric,
        inner: Inner,
        steps: tuple[int, ...] = (),
        val: int | None = None,
    ) -> tuple[Tasks, list[Float[Tensor, "M P T ..."]]]:
        """Some of a pool's tasks, and what a metric shows of the losses on them."""
        key = self.key.at(pool)
        drawn = self.episodes.sample([key.at("task", t) for t in numbers], pool, val)
        starts = [key.at("init", t) for t in numbers]
        return drawn, self.engine.observe(
            many, self.episodes, drawn, starts, metric, inner, lrs, steps
        )


def waves_of(tasks: int) -> list[range]:
    """The numbers of so many tasks, some at a time."""
    return [range(first, min(first + WAVE, tasks)) for first in range(0, tasks, WAVE)]


def repeated(one: Losses, times: int) -> Losses:
    """A loss beside itself, for as many learning rates."""
    return one[torch.zeros(times, dtype=torch.int64)]


def together(parts: Sequence[Measures]) -> Measures:
    """The measures of all waves of tasks."""
    return Measures(
        **{f.name: torch.cat([getattr(x, f.name) for x in parts]) for f in fields(Measures)}
    )


def _chosen(
    score: Float[Tensor, "M R T"], rates: Sequence[float], steps: tuple[int, ...]
) -> Setting:
    """The best setting, and what it reached."""
    mark, rate = best_setting(score)
    return Setting(rates[rate], steps[mark], float(score[mark, rate].double().nan_to_num().mean()))
