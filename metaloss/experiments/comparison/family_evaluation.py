"""Losses on the same tasks of one family, from the same initial weights.

They are tuned on meta-validation tasks and tested on meta-test tasks, where learning curves are
recorded, too.
"""

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

# Tasks that are trained and measured together: this bounds the memory of their predictions.
WAVE = 32
MOMENTS = 40  # points of a learning curve, at most
CURVE_IMAGES = 50  # validation images per class of a learning curve


@dataclass(frozen=True)
class Setting:
    """How a loss is used.

    Attributes:
        lr: the learning rate.
        steps: how many of them.
        accuracy: reached on the meta-validation tasks where the setting was chosen; None where it
            was not chosen.
    """

    lr: float
    steps: int
    accuracy: float | None = None


@dataclass(frozen=True)
class TunedSettings:
    """The settings of one loss.

    Attributes:
        rate: the best rate at the family's number of steps.
        steps: the best rate and number of steps; None where these were not searched for.
    """

    rate: Setting
    steps: Setting | None


@dataclass(frozen=True)
class FamilyEvaluation:
    """One family's tasks, and the engine that trains on them.

    A result of a loss does not depend, bit for bit, on which other losses there are.

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
        # One row for every rate: all rates of a loss train side by side.
        grid = [repeated(loss, len(rates)) for loss in losses]
        lr = torch.tensor(list(rates))
        # Several numbers of steps are read off one training where its rate allows that.
        scores_of_courses = [
            self._scores(grid, [lr] * len(grid), tasks, lengths)
            for lengths in training_lengths(self.inner, steps)
        ]
        return [
            _best_setting(torch.cat(loss_scores), rates, steps)
            for loss_scores in zip(*scores_of_courses, strict=True)
        ]

    def _scores(
        self, grid: Sequence[Losses], lrs: Sequence[Rate], tasks: int, steps: tuple[int, ...]
    ) -> list[Float[Tensor, "M R T"]]:
        inner = replace(self.inner, steps=steps[-1])
        waves = [
            self._observe(grid, lrs, numbers, "validation", scores, inner, steps)[1]
            for numbers in waves_of(tasks)
        ]
        # [M R T]: each wave is a part of T.
        return [torch.cat(each, 2) for each in zip(*waves, strict=True)]

    def test(
        self, losses: Sequence[Losses], settings: Sequence[Sequence[Setting]], tasks: int
    ) -> list[list[Measures]]:
        """What each loss reaches on meta-test tasks with each of its settings.

        All settings have the same number of steps.
        """
        repeated_losses = [
            repeated(loss, len(loss_settings))
            for loss, loss_settings in zip(losses, settings, strict=True)
        ]
        lrs = [torch.tensor([s.lr for s in loss_settings]) for loss_settings in settings]
        inner = replace(self.inner, steps=settings[0][0].steps)
        # Wave by wave: the predictions of all tasks at once would fill the memory.
        waves = []
        for numbers in waves_of(tasks):
            sampled, predicted = self._observe(
                repeated_losses, lrs, numbers, "test", predictions, inner
            )
            labels = sampled.val.label.cpu()
            ways = sampled.ways
            waves.append(
                [
                    [measure(row, labels, ways) for row in of_loss[0]]  # one row for each setting
                    for of_loss in predicted
                ]
            )
        # From [wave][loss][setting] to [loss][setting], with the tasks of all waves.
        return [
            [all_waves(parts) for parts in zip(*of_loss, strict=True)]
            for of_loss in zip(*waves, strict=True)
        ]

    def test_each(
        self, losses: Sequence[Losses], settings: Sequence[Setting | None], tasks: int
    ) -> list[Measures | None]:
        """What each loss reaches on meta-test tasks with its one setting, of any number of steps.

        A loss whose setting is None gives None.
        """
        measures: list[Measures | None] = [None] * len(losses)
        # Only losses with the same number of steps can train together.
        for steps in sorted({s.steps for s in settings if s}):
            rows = [i for i, s in enumerate(settings) if s and s.steps == steps]
            tested = self.test(
                [losses[i] for i in rows], [(s,) for s in settings if s and s.steps == steps], tasks
            )
            for i, (measures_of_loss,) in zip(rows, tested, strict=True):
                measures[i] = measures_of_loss
        return measures

    def rows(self, tasks: int) -> Int[Tensor, "T V"]:
        """The images that the meta-test tasks validate on."""
        # The same keys as in `_observe`, so these are the images that were validated on.
        keys = [self.key.at("test", "task", t) for t in range(tasks)]
        return self.episodes.sample(keys, "test").val.rows.cpu()

    def curves(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> tuple[tuple[int, ...], list[Float[Tensor, "M T 2"]]]:
        """The steps at which learning curves are read, and each loss's curve.

        A curve is the training and the validation accuracy on every task at every such step.
        """
        total = self.inner.steps
        # Evenly spaced from the first step to the last; fewer where there are fewer steps.
        moments = tuple(
            sorted({round(1 + i * (total - 1) / (MOMENTS - 1)) for i in range(MOMENTS)})
        )
        lrs = [s.lr for s in settings]
        waves = [
            self._observe(
                losses, lrs, numbers, "test", progress, self.inner, moments, CURVE_IMAGES
            )[1]
            for numbers in waves_of(tasks)
        ]
        # From [M 1 T 2] to [M T 2]: a loss has one row here.
        return moments, [
            torch.cat(loss_curves, 2)[:, 0] for loss_curves in zip(*waves, strict=True)
        ]

    def _observe(
        self,
        losses: Sequence[Losses],
        lrs: Sequence[Rate],
        numbers: range,
        pool: str,
        metric: Metric,
        inner: Inner,
        steps: tuple[int, ...] = (),
        val: int | None = None,
    ) -> tuple[Tasks, list[Float[Tensor, "M P T ..."]]]:
        """Tasks of a pool, and what a metric says of the losses that were trained on them.

        Args:
            losses: what trains; each one may have several rows.
            lrs: the learning rates of each loss, one for every row.
            numbers: which tasks of the pool.
            pool: "validation" or "test".
            metric: what is measured.
            inner: settings of the trainings.
            steps: after which the metric is taken; only after the last where empty.
            val: validation images per class; the family's number where None.
        """
        key = self.key.at(pool)
        # Tasks and initial weights hang on the task's number alone, so all losses meet the same.
        sampled = self.episodes.sample([key.at("task", t) for t in numbers], pool, val)
        starts = [key.at("init", t) for t in numbers]
        return sampled, self.engine.observe(
            losses, self.episodes, sampled, starts, metric, inner, lrs, steps
        )


def waves_of(tasks: int) -> list[range]:
    """The numbers of the tasks, in ranges of at most `WAVE`."""
    return [range(first, min(first + WAVE, tasks)) for first in range(0, tasks, WAVE)]


def repeated(losses: Losses, times: int) -> Losses:
    """A loss repeated, one row for each learning rate."""
    return losses[torch.zeros(times, dtype=torch.int64)]


def all_waves(parts: Sequence[Measures]) -> Measures:
    """The measures of all tasks, from those of every wave."""
    return Measures(
        **{f.name: torch.cat([getattr(x, f.name) for x in parts]) for f in fields(Measures)}
    )


def _best_setting(
    score: Float[Tensor, "M R T"], rates: Sequence[float], steps: tuple[int, ...]
) -> Setting:
    """The best setting of the grid, with the accuracy that it reached."""
    mark, rate = best_setting(score)
    return Setting(rates[rate], steps[mark], float(score[mark, rate].double().nan_to_num().mean()))
