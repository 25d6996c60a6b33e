"""How losses are tuned, scored and compared on tasks of the three pools.

Meta-training tasks give a search its scores. On meta-validation tasks learning rates are tuned and
the winner is chosen. Meta-test tasks are looked at once, for the final comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.engines.local import Local
from metaloss.evaluation.statistics import Draws, Paired, paired, rank_test, verdict
from metaloss.inner.metrics import Metric, right_answers
from metaloss.inner.metrics import scores as accuracies
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.tasks.opening import OpenFamily


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
class Tuned:
    """A loss at the best of the settings tried on meta-validation tasks of one family."""

    losses: Losses  # a single one
    lr: float
    steps: int
    score: Float[Tensor, " T"]  # on those tasks

    @property
    def accuracy(self) -> float:
        """The mean over the tasks."""
        return float(self.score.double().mean())


@dataclass(frozen=True)
class PairedComparison:
    """A loss and its baseline on the same tasks from the same initial weights.

    Attributes:
        accuracy: of the loss.
        baseline_accuracy: of the other one.
        gain: the difference, its interval over tasks.
        low, high: the interval that decides: the wider of that one and, where images are known, of
            that over tasks and images.
        p: of a rank test.
        verdict: in words.
    """

    accuracy: float
    baseline_accuracy: float
    gain: Paired
    low: float
    high: float
    p: float
    verdict: str


@dataclass(frozen=True)
class LossEvaluation:
    """Tunes, scores and compares losses on task families.

    Attributes:
        engine: trains classifiers.
        families: the task families with their images.
        key: of every random draw; with a role it gives the tasks of that role.
    """

    engine: Local
    families: Sequence[OpenFamily]
    key: Stream

    def search_scores(
        self, tasks: int, validation: int, losses: Losses, key: Stream
    ) -> tuple[Tensor, Int[Tensor, " T"]]:
        """Scores on fresh meta-training tasks of every family, and each task's family.

        Evolution learns from them.
        """
        scores = [
            self.scores(e, losses, "train", key, tasks, val=validation)[0] for e in self.families
        ]
        return torch.cat(scores, 1), self.family_index(tasks)

    def baseline_scores(
        self, baselines: Sequence["Tuned"], tasks: int, validation: int, key: Stream
    ) -> Float[Tensor, " T"]:
        """The tuned baselines' scores on the tasks that `search_scores` draws by this key.

        Args:
            baselines: one for each family, and scored on its tasks.
            tasks: of every family.
            validation: validation images per class.
            key: of the tasks.
        """
        pairs = zip(self.families, baselines, strict=True)
        scores = [
            self.scores(e, r.losses, "train", key, tasks, val=validation, lr=r.lr)[0, 0]
            for e, r in pairs
        ]
        return torch.cat(scores)

    def passes_screening(
        self,
        screen: ScreeningBudget,
        baselines: Sequence["Tuned"],
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
        enough = torch.ones(len(losses), dtype=torch.bool)
        for e, baseline in zip(self.families, baselines, strict=True):
            # No more steps than the family has: a screening must not outlast the training.
            short = partial(self.scores, e, val=validation, steps=(min(screen.steps, e.steps),))
            ours = short(losses, "train", key, screen.tasks)[0].mean(1)
            theirs = short(baseline.losses, "train", key, screen.tasks, lr=baseline.lr)[0].mean()
            # Measured from chance, so that a share means the same for any number of classes.
            chance = 1 / e.ways
            enough &= ours >= chance + screen.share * (theirs - chance)  # a failure's NaN is not
        return enough

    def family_index(self, tasks: int) -> Int[Tensor, " T"]:
        """The family of each task, where so many are asked for of every family."""
        return torch.arange(len(self.families)).repeat_interleave(
            torch.tensor(self.task_counts(tasks))
        )

    def task_counts(self, tasks: int) -> list[int]:
        """How many tasks of each family there are, where so many are asked for."""
        return [e.most(tasks) for e in self.families]

    def validation_scores(self, losses: Losses, role: str, tasks: int) -> Float[Tensor, "P T"]:
        """Scores on the meta-validation tasks of that role, family after family."""
        key = self.key.at(role)
        return torch.cat(
            [self.scores(e, losses, "validation", key, tasks)[0] for e in self.families], 1
        )

    def tune_baseline(self, rates: Sequence[float], tasks: int) -> list[Tuned]:
        """Cross-entropy at its best rate and the family's own number of steps, per family."""
        loss = CrossEntropies.of(1)
        return [self.tune(e, loss, rates, tasks, (e.steps,)) for e in self.families]

    def tune_baseline_steps(
        self, rates: Sequence[float], tasks: int, baseline: Sequence[Tuned]
    ) -> list[Tuned]:
        """Cross-entropy at its best rate and its best number of steps, per family.

        A full training keeps its length.
        """
        loss = CrossEntropies.of(1)
        return [
            # The first tuning was over the same settings where there is but one number of steps.
            tuned
            if e.step_choices() == (tuned.steps,)
            else self.tune(e, loss, rates, tasks, e.step_choices())
            for e, tuned in zip(self.families, baseline, strict=True)
        ]

    def tune(
        self,
        episodes: OpenFamily,
        loss: Losses,
        rates: Sequence[float],
        tasks: int,
        steps: tuple[int, ...],
    ) -> Tuned:
        """One loss at its best setting, found on meta-validation tasks.

        Args:
            episodes: the family.
            loss: the one to tune.
            rates: learning rates to choose from.
            tasks: how many decide.
            steps: numbers of steps to choose from, in ascending order.
        """
        rates = episodes.rates(rates)
        # One row of the same loss for each rate: all of them train side by side.
        grid = loss[torch.zeros(len(rates), dtype=torch.int64)]
        lr = torch.tensor(list(rates))
        score = self.scores(
            episodes, grid, "validation", self.key.at("baseline"), tasks, lr=lr, steps=steps
        )
        mark, rate = best_setting(score)
        return Tuned(loss, rates[rate], steps[mark], score[mark, rate])

    def test(
        self, losses: Losses, baselines: Mapping[str, Sequence[Tuned]], tasks: int
    ) -> dict[str, list[PairedComparison]]:
        """One loss against each kind of tuned baseline, on meta-test tasks.

        Args:
            losses: the loss, which trains at each family's own rate and steps.
            baselines: by their kind, one for each family.
            tasks: of every family.
        """
        correct = [self._correct(e, losses, tasks) for e in self.families]
        # The same resamples for every baseline, so that their intervals compare.
        resamples = [self._resamples(e, tasks) for e in self.families]
        known: dict[int, Tensor] = {}  # one baseline may be of several kinds, and is trained once
        for tuned in baselines.values():
            for e, baseline in zip(self.families, tuned, strict=True):
                if id(baseline) not in known:
                    known[id(baseline)] = self._correct(
                        e, baseline.losses, tasks, baseline.lr, (baseline.steps,)
                    )
        return {
            kind: [
                self.compare(x, known[id(y)], z)
                for x, y, z in zip(correct, tuned, resamples, strict=True)
            ]
            for kind, tuned in baselines.items()
        }

    def _correct(
        self,
        e: OpenFamily,
        losses: Losses,
        tasks: int,
        lr: float | None = None,
        steps: tuple[int, ...] = (),
    ) -> Float[Tensor, "T *V"]:
        """Which images of the meta-test tasks one loss gets right; of a full training its score."""
        return self.scores(
            e, losses, "test", self.key.at("test"), tasks, lr=lr, steps=steps, metric=right_answers
        )[0, 0]

    def _resamples(self, e: OpenFamily, tasks: int) -> Draws | None:
        """Resamples of the meta-test tasks and their images.

        None for full trainings, which differ in nothing but their seeds.
        """
        rows = e.validation_rows([self.key.at("test", "task", t) for t in range(tasks)], "test")
        return None if rows is None else Draws.of(rows.cpu(), self.key.at("test", "bootstrap"))

    def test_scores(self, episodes: OpenFamily, tuned: Tuned, tasks: int) -> Float[Tensor, " T"]:
        """A tuned loss's scores on meta-test tasks."""
        key = self.key.at("test")
        steps = (tuned.steps,)
        return self.scores(episodes, tuned.losses, "test", key, tasks, lr=tuned.lr, steps=steps)[
            0, 0
        ]

    def compare(
        self,
        ours: Float[Tensor, "T *V"],
        theirs: Float[Tensor, "T *V"],
        resamples: Draws | None = None,
    ) -> PairedComparison:
        """Compare a loss with its baseline on the same tasks.

        Args:
            ours: the loss's scores; with resamples, which of its predictions are right.
            theirs: the baseline's, likewise.
            resamples: of the tasks and their images, for an interval over both.
        """
        if resamples is None:
            our_score, their_score = ours.double(), theirs.double()
        else:
            our_score, their_score = ours.double().mean(1), theirs.double().mean(1)
        gain = paired(our_score, their_score, self.key.at("test", "bootstrap"))
        p = rank_test(our_score, their_score).p
        # Tasks share the images of one pool: an interval over tasks alone may be too narrow.
        intervals = [(gain.low, gain.high)]
        if resamples is not None:
            # A training that diverged has no right predictions.
            our_right = ours.where(our_score.isfinite()[:, None], 0) > 0
            their_right = theirs.where(their_score.isfinite()[:, None], 0) > 0
            intervals.append(resamples.interval(our_right, their_right))
        return PairedComparison(
            accuracy=float(our_score.nan_to_num(nan=0.0).mean()),
            baseline_accuracy=float(their_score.nan_to_num(nan=0.0).mean()),
            gain=gain,
            low=min(low for low, _ in intervals),
            high=max(high for _, high in intervals),
            p=p,
            verdict=verdict(p, *intervals),
        )

    def scores(
        self,
        episodes: OpenFamily,
        losses: Losses,
        pool: str,
        key: Stream,
        tasks: int,
        *,
        val: int | None = None,
        lr: float | Float[Tensor, " P"] | None = None,
        steps: tuple[int, ...] = (),
        metric: Metric = accuracies,
    ) -> Float[Tensor, "M P T ..."]:
        """Scores on tasks drawn from a pool by a key, after M numbers of steps (the family's own by
        default).

        A metric may show something else of classifiers of episodes; full trainings have their score
        alone.
        """
        return episodes.evaluate(
            self.engine, losses, pool, key, tasks, val=val, lr=lr, steps=steps, metric=metric
        )


def best_setting(score: Float[Tensor, "M R T"]) -> tuple[int, int]:
    """Which number of steps and which rate has the highest mean.

    A setting with a failed training cannot win against one without.
    """
    mean = score.double().mean(2).nan_to_num(nan=-torch.inf)
    return divmod(int(mean.argmax()), score.shape[1])
