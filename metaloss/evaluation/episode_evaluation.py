"""All measures and learning curves of losses on episodes, for reports that compare them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.statistics import Draws, Resamples
from metaloss.evaluation.tuning import Setting, Tuned, repeated
from metaloss.inner.loop import Inner
from metaloss.inner.metrics import classes_of, logits, progress_by, scores_of
from metaloss.inner.observers import (
    Measures,
    Observer,
    measure,
    predicted_by,
    predictions,
    progress,
)
from metaloss.losses.base import Losses, reads_clock
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.protocols import EpisodeTrainings
from metaloss.tasks.step_counts import observe_shared

# Tasks that are trained and measured together: this bounds the memory of their predictions.
WAVE = 32
MOMENTS = 40  # points of a learning curve, at most
CURVE_IMAGES = 50  # validation images per class of a learning curve


@dataclass(frozen=True)
class EpisodeEvaluation(FamilyEvaluation):
    """Tunes losses on episodes, and measures more than their scores."""

    family: Episodes

    @property
    def inner(self) -> Inner:
        """The family's own settings of a training."""
        return self.family.family.inner

    @property
    def own_setting(self) -> Setting:
        """The family's own rate and number of steps."""
        return Setting(self.inner.lr, self.inner.steps)

    @property
    def own_steps(self) -> int:
        """Steps of a training."""
        return self.inner.steps

    @property
    def test_observer(self) -> Observer:
        """What is seen of classifiers in a test, and measures come from."""
        return logits if self.family.metric else predictions

    def tune_steps(
        self, losses: Sequence[Losses], rates: Sequence[float], tasks: int
    ) -> list[Tuned]:
        """Each loss at its best rate and number of steps."""
        return self.tune(losses, rates, tasks, self.family.step_choices())

    def test_tuned(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> list[tuple[Measures, Measures]]:
        """What each loss reaches on meta-test tasks at its own rate, and at the family's."""
        own = self.own_setting
        tested = self.test(losses, [(setting, own) for setting in settings], tasks)
        return [(tuned, at_own) for tuned, at_own in tested]

    def test(
        self, losses: Sequence[Losses], settings: Sequence[Sequence[Setting]], tasks: int
    ) -> list[list[Measures]]:
        """What each loss reaches on meta-test tasks with each of its settings.

        All settings have the same number of steps.
        """
        pairs = zip(losses, settings, strict=True)
        populations = [repeated(loss, len(of_loss)) for loss, of_loss in pairs]
        rates = [torch.tensor([setting.lr for setting in of_loss]) for of_loss in settings]
        # Wave by wave: the predictions of all tasks at once would fill the memory.
        waves = []
        for numbers in waves_of(tasks):
            predicted = self.family.evaluate(
                self.engine,
                populations,
                "test",
                self.key.at("test"),
                numbers,
                rates=rates,
                steps=(settings[0][0].steps,),
                metric=self.test_observer,
            )
            drawn = self.test_tasks(numbers)
            waves.append(
                [
                    [self.measures_of(row, drawn) for row in of_loss[0]]  # per setting
                    for of_loss in predicted
                ]
            )
        # From [wave][loss][setting] to [loss][setting], with the tasks of all waves.
        return [
            [all_waves(parts) for parts in zip(*of_loss, strict=True)]
            for of_loss in zip(*waves, strict=True)
        ]

    def measures_by(self, seen: Float[Tensor, "T V C"], tasks: Tasks) -> Measures:
        """The measures of classifiers by their logits on the validation images of some tasks."""
        if self.family.metric:
            return self.measures_of(seen, tasks)
        return self.measures_of(predicted_by(seen[None], tasks.val.label.cpu())[0], tasks)

    def measures_of(self, seen: Float[Tensor, "T V _"], tasks: Tasks) -> Measures:
        """The measures of one loss from its predictions; from its logits where there is a metric.

        Args:
            seen: on the test's images.
            tasks: of the test.
        """
        label = tasks.val.label.cpu()
        metric = self.family.metric
        if metric is None:
            return measure(seen, label, self.family.ways)
        measures = measure(predicted_by(seen[None], label)[0], label, self.family.ways)
        values = metric.measure(seen[None], label, classes_of(tasks, metric).cpu())[0]
        return replace(measures, by_metric=scores_of(self.family.scale, values), logits=seen)

    def resamples(self, tasks: int, key: Stream) -> Resamples:
        """Resamples of the meta-test tasks and their images."""
        drawn = self.test_tasks(range(tasks))
        groups = self.family.dataset.groups
        if self.family.metric:
            return MetricResamples.of(
                self.family.metric, self.family.scale, drawn, key, groups=groups
            )
        return Draws.of(drawn.val.rows.cpu(), drawn.val_classes.cpu(), key, groups=groups)

    def test_each(
        self, losses: Sequence[Losses], settings: Sequence[Setting | None], tasks: int
    ) -> list[Measures | None]:
        """What each loss reaches on meta-test tasks with its one setting, of any number of steps.

        A loss whose setting is None gives None.
        """
        measures: list[Measures | None] = [None] * len(losses)
        # Only losses with the same number of steps can train together.
        for steps in sorted({setting.steps for setting in settings if setting}):
            rows = [i for i, setting in enumerate(settings) if setting and setting.steps == steps]
            tested = self.test(
                [losses[i] for i in rows],
                [(setting,) for setting in settings if setting and setting.steps == steps],
                tasks,
            )
            for i, (measures_of_loss,) in zip(rows, tested, strict=True):
                measures[i] = measures_of_loss
        return measures

    def curves(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> tuple[tuple[int, ...], list[Float[Tensor, "M T 2"]]]:
        """The steps at which learning curves are read, and each loss's curve.

        A curve is the score on the training and on the validation images of every task at every
        such step of one training. Of a loss that sees how far the training is, each number of steps
        is a training of its own: what it reaches there is not what a longer one passes.
        """
        moments = curve_moments(self.inner.steps)
        metric = self.family.metric

        def trainings(places: list[int], marks: tuple[int, ...]) -> EpisodeTrainings:
            return self.family.trainings(
                [losses[i] for i in places],
                "test",
                self.key.at("test"),
                range(tasks),
                progress_by(metric, self.family.scale) if metric else progress,
                rates=[settings[i].lr for i in places],
                steps=marks,
                val=CURVE_IMAGES,
            )

        lengths = [[(n,) for n in moments] if reads_clock(x) else [moments] for x in losses]
        curves = observe_shared(self.engine, lengths, trainings)
        # From [M 1 T 2] to [M T 2]: a loss has one row here.
        return moments, [curve[:, 0] for curve in curves]

    def test_tasks(self, numbers: Sequence[int]) -> Tasks:
        """The meta-test tasks of these numbers, the same that losses are tested on."""
        keys = [self.key.at("test", "task", t) for t in numbers]
        return self.family.sample(keys, "test")


def curve_moments(steps: int) -> tuple[int, ...]:
    """The steps at which learning curves are read: evenly spaced from the first to the last."""
    last = steps - 1
    return tuple(sorted({round(1 + i * last / (MOMENTS - 1)) for i in range(MOMENTS)}))


def waves_of(tasks: int) -> list[range]:
    """The numbers of the tasks, in ranges of at most `WAVE`."""
    return [range(first, min(first + WAVE, tasks)) for first in range(0, tasks, WAVE)]


def all_waves(parts: Sequence[Measures]) -> Measures:
    """The measures of all tasks, from those of every wave."""
    values: dict[str, Any] = {f.name: [getattr(x, f.name) for x in parts] for f in fields(Measures)}
    joined: Any = {k: None if x[0] is None else torch.cat(x) for k, x in values.items()}
    return Measures(**joined)
