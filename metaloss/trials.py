"""Losses on tasks of the three pools: the search's evaluator, cross-entropy's tuning, the election, the final test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.engines.local import Local
from metaloss.families import Episodes
from metaloss.inner import Inner
from metaloss.losses import CrossEntropies, Losses
from metaloss.statistics import Paired, paired
from metaloss.streams import Stream

STEPS = (20, 30, 40, 60, 80, 120, 160, 200)  # numbers of steps among which the strongest cross-entropy is chosen


@dataclass(frozen=True)
class Tuned:
    """Cross-entropy at the best of the settings tried on meta-validation tasks of one family."""

    lr: float
    steps: int
    score: Float[Tensor, " T"]  # on those tasks

    @property
    def accuracy(self) -> float:
        """The mean over the tasks."""
        return float(self.score.double().mean())


@dataclass(frozen=True)
class Versus:
    """A loss and its rival on the same tasks from the same initial weights."""

    accuracy: float
    rival: float
    gain: Paired


@dataclass(frozen=True)
class Trials:
    """Families, and the engine that trains on them."""

    engine: Local
    families: Sequence[Episodes]
    key: Stream

    def evaluator(self, tasks: int, validation: int, losses: Losses, key: Stream) -> tuple[Tensor, Int[Tensor, " T"]]:
        """Scores on fresh meta-training tasks of every family, and each task's family: what evolution learns from."""
        scores = [self._score(e, losses, "train", key, tasks, val=validation) for e in self.families]
        return torch.cat(scores, 1), self.numbers(tasks)

    def numbers(self, tasks: int) -> Int[Tensor, " T"]:
        """The family of each task, where every family has as many."""
        return torch.arange(len(self.families)).repeat_interleave(tasks)

    def held_out(self, losses: Losses, role: str, tasks: int) -> Float[Tensor, "P T"]:
        """Scores on the meta-validation tasks of that role, family after family."""
        key = self.key.at(role)
        return torch.cat([self._score(e, losses, "validation", key, tasks) for e in self.families], 1)

    def baseline(self, rates: Sequence[float], tasks: int) -> list[Tuned]:
        """Cross-entropy at its best rate and the family's own number of steps, per family."""
        return [self._tune(e, rates, tasks, (e.family.inner.steps,)) for e in self.families]

    def strongest(self, rates: Sequence[float], tasks: int) -> list[Tuned]:
        """Cross-entropy at its best rate and its best number of steps, per family."""
        return [self._tune(e, rates, tasks, marks(e.family.inner)) for e in self.families]

    def test(self, losses: Losses, rivals: Sequence[Tuned], tasks: int) -> list[Versus]:
        """One loss, at each family's own rate and steps, against tuned cross-entropy on meta-test tasks."""
        key, results = self.key.at("test"), []
        for episodes, rival in zip(self.families, rivals, strict=True):
            score = self._score(episodes, losses, "test", key, tasks)[0]
            inner = replace(episodes.family.inner, steps=rival.steps)
            other = self._score(episodes, CrossEntropies.of(1), "test", key, tasks, inner=inner, lr=rival.lr)[0]
            gain = paired(score, other, key.at("bootstrap"))
            results.append(Versus(float(score.double().nan_to_num().mean()), float(other.double().mean()), gain))
        return results

    def _score(
        self, episodes: Episodes, losses: Losses, pool: str, key: Stream, tasks: int,
        val: int | None = None, inner: Inner | None = None, lr: float | None = None,
    ) -> Float[Tensor, "P T"]:  # fmt: skip
        drawn = episodes.sample([key.at("task", t) for t in range(tasks)], pool, val)
        starts = [key.at("init", t) for t in range(tasks)]
        return self.engine.score(losses, episodes, drawn, starts, inner, lr)

    def _tune(self, episodes: Episodes, rates: Sequence[float], tasks: int, steps: tuple[int, ...]) -> Tuned:
        key = self.key.at("baseline")
        drawn = episodes.sample([key.at("task", t) for t in range(tasks)], "validation")
        starts = [key.at("init", t) for t in range(tasks)]
        inner = replace(episodes.family.inner, steps=steps[-1])
        grid = CrossEntropies.of(len(rates))
        score = self.engine.curve(grid, episodes, drawn, starts, inner, torch.tensor(list(rates)), steps)  # [M P T]
        mean = score.double().mean(2).nan_to_num(nan=-torch.inf)
        mark, rate = divmod(int(mean.argmax()), len(rates))
        return Tuned(rates[rate], steps[mark], score[mark, rate])


def marks(inner: Inner) -> tuple[int, ...]:
    """The numbers of steps that the strongest cross-entropy may have, the family's own among them."""
    return tuple(sorted({*STEPS, inner.steps}))
