"""How losses are tuned, scored and compared on tasks of one family.

On meta-validation tasks learning rates are tuned and the winner is chosen. Meta-test tasks are
looked at once, for the final comparison. What a score is says the family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.evaluation.kind_resamples import KindResamples
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.evaluation.statistics import Draws, Resamples
from metaloss.evaluation.tuning import Tuned, repeated
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.tasks.opening import Mixture, OpenFamily
from metaloss.tasks.protocols import Engine

BASELINE = "baseline"  # the role of the tasks that cross-entropy is tuned on
OWN_RATES = "ce_own"  # cross-entropy at the rates of a mixture's kinds, among the baselines


@dataclass(frozen=True)
class FamilyEvaluation:
    """Tunes, scores and compares losses on the tasks of one family.

    A result of a loss does not depend, bit for bit, on which other losses there are.

    Attributes:
        engine: trains classifiers.
        family: the task family with its images.
        key: of every random draw; with a role it gives the tasks of that role.
    """

    engine: Engine
    family: OpenFamily
    key: Stream

    def scores(
        self,
        losses: Losses,
        pool: str,
        key: Stream,
        tasks: int,
        *,
        first: int = 0,
        val: int | None = None,
        lr: Rate | None = None,
        steps: tuple[int, ...] = (),
        beside: tuple[str, ...] = (),
    ) -> Float[Tensor, "M P T *K"]:
        """Scores of a population on tasks drawn from a pool by a key.

        Args:
            losses: P of them.
            pool: "train" (meta-training), "validation" or "test".
            key: of the tasks, the initial weights and the batches.
            tasks: how many.
            first: so many of them are left out.
            val: validation images per class; the family's own number where None.
            lr: a learning rate for all, or one per loss; the family's own where None.
            steps: the M numbers of steps, ascending; the family's own number where there are none.
            beside: further metrics, in columns behind the score; where empty, there are no columns.
        """
        (scores,) = self.family.evaluate(
            self.engine,
            [losses],
            pool,
            key,
            range(first, tasks),
            val=val,
            rates=[lr],
            steps=steps,
            beside=beside,
        )
        return scores

    def tune(
        self,
        losses: Sequence[Losses],
        rates: Sequence[float],
        tasks: int,
        steps: tuple[int, ...] = (),
        role: str = "validation",
    ) -> list[Tuned]:
        """Each loss at its best setting, found on meta-validation tasks.

        Args:
            losses: single ones.
            rates: learning rates to choose from, where the family has none of its own.
            tasks: how many decide.
            steps: numbers of steps to choose from, ascending; the family's own where there are
                none.
            role: of the tasks.
        """
        return self._best(losses, self.family.rates(rates), tasks, steps, role)

    def tune_baseline(
        self, rates: Sequence[float], tasks: int, steps: tuple[int, ...] = (), role: str = BASELINE
    ) -> Tuned:
        """Cross-entropy at its best setting, likewise; at each kind of a mixture at its own."""
        one = CrossEntropies.of(1)
        rates = self.family.baseline_rates(rates)
        return self._best([one], rates, tasks, steps, role)[0]

    def _best(
        self,
        losses: Sequence[Losses],
        rates: Sequence[float],
        tasks: int,
        steps: tuple[int, ...],
        role: str,
    ) -> list[Tuned]:
        """Each loss at the best of some settings; arguments as for `tune`."""
        if not losses:
            return []
        steps = steps or (self.family.steps,)
        grid = [repeated(loss, len(rates)) for loss in losses]
        scores = self.family.evaluate(
            self.engine,
            grid,
            "validation",
            self.key.at(role),
            range(tasks),
            rates=[torch.tensor(list(rates))] * len(grid),
            steps=steps,
        )
        pairs = zip(losses, scores, strict=True)
        negligible = self.family.scale.negligible
        tuned = [Tuned.best(loss, x, rates, steps, negligible) for loss, x in pairs]
        relative = isinstance(self.family, Mixture)
        return [replace(x, relative=relative) for x in tuned]

    def test_scores(self, tuned: Tuned, tasks: int) -> Float[Tensor, " T"]:
        """A tuned loss's scores on meta-test tasks."""
        key = self.key.at("test")
        steps = (tuned.steps,)
        return self.scores(tuned.losses, "test", key, tasks, lr=tuned.lr, steps=steps)[0, 0]

    def test_answers(
        self, losses: Losses, tasks: int, lr: float | None = None, steps: tuple[int, ...] = ()
    ) -> Float[Tensor, "T *V"]:
        """What the score of one loss is computed from: which images of the meta-test tasks it gets
        right, or its logits where the family names a metric; of a full training, and of tasks of
        many kinds, the score itself.

        Args:
            losses: a single one.
            tasks: how many.
            lr: the learning rate; the family's own where None.
            steps: one number; the family's own where there is none.
        """
        answers = self.family.evaluate(
            self.engine,
            [losses],
            "test",
            self.key.at("test"),
            range(tasks),
            rates=[lr],
            steps=steps,
            metric=self.family.answers,
        )
        return answers[0][0, 0]

    def test_resamples(self, tasks: int) -> Resamples | None:
        """Resamples of the meta-test tasks and their images; of tasks of many kinds, of the kinds.

        None for full trainings, which differ in nothing but their seeds.
        """
        if isinstance(self.family, Mixture):
            return KindResamples(self.family.kinds_of(self.key.at("test"), range(tasks)))
        keys = [self.key.at("test", "task", t) for t in range(tasks)]
        key = self.key.at("test", "bootstrap")
        tasks_drawn = self.family.sample(keys, "test")
        if tasks_drawn is None:
            return None
        groups = getattr(self.family.dataset, "groups", None)
        if self.family.metric:
            return MetricResamples.of(
                self.family.metric, self.family.scale, tasks_drawn, key, groups=groups
            )
        rows = tasks_drawn.val.rows.cpu()
        return Draws.of(rows, tasks_drawn.val_classes.cpu(), key, groups=groups)

    def test_against(
        self, losses: Losses, baselines: Mapping[str, Tuned], tasks: int
    ) -> dict[str, PairedComparison]:
        """One loss, at the family's own rate and steps, against baselines on meta-test tasks.

        A mixture adds cross-entropy at the kinds' own rates, which are the loss's: `OWN_RATES`.

        Args:
            losses: a single one.
            baselines: by their kind.
            tasks: how many.
        """
        ours = self.test_answers(losses, tasks)
        # One baseline may be of several kinds, and is trained once.
        once = {id(x): x for x in baselines.values()}
        answers = {
            number: self.test_answers(x.losses, tasks, x.lr, (x.steps,))
            for number, x in once.items()
        }
        theirs = {kind: answers[id(x)] for kind, x in baselines.items()}
        if isinstance(self.family, Mixture):
            theirs[OWN_RATES] = self.test_answers(CrossEntropies.of(1), tasks)
        # The same resamples for every baseline, so that their intervals compare.
        resamples = self.test_resamples(tasks)
        return {kind: self.compare(ours, x, resamples) for kind, x in theirs.items()}

    def compare(
        self,
        ours: Float[Tensor, "T *V"],
        theirs: Float[Tensor, "T *V"],
        resamples: Resamples | None = None,
    ) -> PairedComparison:
        """Compare a loss with its baseline on the same tasks.

        Args:
            ours: the loss's scores; with resamples, its answers (`test_answers`).
            theirs: the baseline's, likewise.
            resamples: of the tasks and their images, for an interval over both.
        """
        return PairedComparison.of(
            ours,
            theirs,
            self.key.at("test", "bootstrap"),
            resamples,
            self.family.scale.negligible,
        )
