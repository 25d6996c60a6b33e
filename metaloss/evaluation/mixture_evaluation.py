"""All measures of losses on a mixture of kinds of tasks, for reports that compare them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation, waves_of
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.kind_resamples import KindResamples
from metaloss.evaluation.tuning import Setting, Tuned
from metaloss.inner.observers import Measures
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.mixture import Mixture

PER_IMAGE = ("right", "logits", "predicted")  # measures that differ in size between kinds


@dataclass(frozen=True)
class KindMeasures(Measures):
    """What classifiers on tasks of several kinds are worth; of single images nothing is kept."""

    @property
    def answers(self) -> Float[Tensor, " T"]:
        """What resamples of kinds recompute the score from: itself."""
        return self.score


@dataclass(frozen=True)
class MixtureEvaluation(FamilyEvaluation):
    """Tunes losses on a mixture, and measures more than their scores.

    Rates are in units of cross-entropy's best one at each kind. Numbers of steps are the kinds'
    own: none is tuned, and no learning curve is drawn over them.
    """

    family: Mixture

    @property
    def own_steps(self) -> int:
        """Steps of a training, on average."""
        return round(sum(kind.steps for kind in self.family.kinds) / self.family.kind_count)

    def tune_steps(
        self, losses: Sequence[Losses], rates: Sequence[float], tasks: int
    ) -> list[Tuned]:
        """Each loss at its best rate, at the kinds' own numbers of steps."""
        return self.tune(losses, rates, tasks)

    def test_tuned(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> list[tuple[Measures, Measures]]:
        """What each loss reaches on meta-test tasks at its own rate, and at the kinds'."""
        tuned = self._test(losses, [setting.lr for setting in settings], tasks)
        own = self._test(losses, [None] * len(losses), tasks)
        return list(zip(tuned, own, strict=True))

    def test_each(
        self, losses: Sequence[Losses], settings: Sequence[Setting | None], tasks: int
    ) -> list[Measures | None]:
        """What each loss reaches on meta-test tasks with its one setting; None gives None."""
        rows = [i for i, setting in enumerate(settings) if setting]
        rates: list[Rate | None] = [setting.lr for setting in settings if setting]
        tested = iter(self._test([losses[i] for i in rows], rates, tasks))
        return [next(tested) if setting else None for setting in settings]

    def curves(
        self, losses: Sequence[Losses], settings: Sequence[Setting], tasks: int
    ) -> tuple[tuple[int, ...], list[Float[Tensor, "0 T 2"]]]:
        """No steps, and no curve of any loss: kinds are of unlike lengths."""
        return (), [torch.empty(0, tasks, 2) for _ in losses]

    def resamples(self, tasks: int, key: Stream) -> KindResamples:
        """What gives intervals over kinds and tasks."""
        return KindResamples(self.family.kinds_of(self.key.at("test"), range(tasks)))

    def _test(
        self, losses: Sequence[Losses], rates: Sequence[Rate | None], tasks: int
    ) -> list[Measures]:
        """What each loss reaches on meta-test tasks at a rate; at the kinds' own where None."""
        if not losses:
            return []
        waves = [self._test_wave(losses, rates, numbers) for numbers in waves_of(tasks)]
        return [_joined(parts) for parts in zip(*waves, strict=True)]

    def _test_wave(
        self, losses: Sequence[Losses], rates: Sequence[Rate | None], numbers: range
    ) -> list[Measures]:
        """The same on some of the tasks."""
        key = self.key.at("test")
        by_kind = self.family.by_kind(
            self.engine,
            losses,
            "test",
            key,
            numbers,
            rates=rates,
            metric=lambda kind: EpisodeEvaluation(self.engine, kind, self.key).test_observer,
        )
        order = torch.cat([places for _, places, _ in by_kind]).argsort()
        of_losses = []
        for number in range(len(losses)):
            parts = []
            for kind, places, seen in by_kind:
                evaluation = EpisodeEvaluation(self.engine, kind, self.key)
                drawn = evaluation.test_tasks([numbers[t] for t in places.tolist()])
                parts.append(evaluation.measures_of(seen[number][0, 0], drawn))
            of_losses.append(_in_order(_joined(parts), order))
        return of_losses


def _joined(parts: Sequence[Measures]) -> Measures:
    """The measures of tasks one after another."""
    values: dict[str, Any] = {}
    for field in fields(Measures):
        of_parts = [getattr(x, field.name) for x in parts]
        kept = field.name not in PER_IMAGE and of_parts[0] is not None
        values[field.name] = torch.cat(of_parts) if kept else None
    return KindMeasures(**{**values, "right": torch.zeros(len(values["accuracy"]), 0).bool()})


def _in_order(measures: Measures, order: Tensor) -> Measures:
    """The measures of the tasks at these places."""
    values = {field.name: getattr(measures, field.name) for field in fields(Measures)}
    return replace(measures, **{k: v[order] for k, v in values.items() if v is not None})
