"""One stage of an elimination: losses, and cross-entropy, on the same fresh tasks at one budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NotRequired

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.errors import SettingsError
from metaloss.evaluation.family_evaluation import BASELINE
from metaloss.evaluation.guard import Guard
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.statistics import rank_correlation
from metaloss.evaluation.tuning import Tuned
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.objectives import mean
from metaloss.storage.resuming import differing_keys
from metaloss.tasks.opening import OpenFamily

Few = Annotated[int, Field(ge=1, le=1000)]
Many = Annotated[int, Field(ge=1, le=100_000)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Stage:
    """A round's budget.

    Attributes:
        keep: how many losses are left after it.
        steps: of training, in multiples of the family's own.
        scale: width of the classifier's layers, in multiples of the family's own.
        tasks: of every family, from the meta-validation pool.
        repeats: how often, each time on other tasks; the mean counts.
        families: to play it on, by name, path or folder:PATH; those of the elimination where there
            are none.
        mean_of: how many stages' scores are averaged to rank losses: this one's, and those of
            the ones just before it, which must have the same budget.
    """

    keep: Many
    steps: Few = 1
    scale: Few = 1
    tasks: Many = 64
    repeats: Few = 1
    families: tuple[str, ...] = ()
    mean_of: Few = 1

    @property
    def budget(self) -> tuple[Any, ...]:
        """What must agree for scores to be averaged."""
        return self.families, self.steps, self.scale


class Reached(TypedDict):
    """What is needed of cross-entropy's result: as of a `StageRecord`."""

    accuracy: float
    score: NotRequired[float]


class StageRecord(TypedDict):
    """What is needed of a stage's file.

    Attributes:
        asked: all that decides it.
        accuracy: of every loss.
        score: likewise, where the families have another metric; more is better.
        worth: what losses are ranked by, accuracy or score, averaged over stages.
        excess: by how much each lies further behind cross-entropy than the guard allows; missing
            where there is none.
        kept: the losses that go on.
        tau: how alike this stage and the one before order them.
        reference: cross-entropy.
        metric_scale: how scores are shown; missing where they are accuracies.
    """

    asked: dict[str, Any]
    accuracy: list[float]
    score: NotRequired[list[float]]
    worth: list[float]
    excess: NotRequired[list[float]]
    kept: list[str]
    tau: float | None
    reference: Reached
    metric_scale: NotRequired[dict[str, Any]]


def scores_of(record: StageRecord) -> list[float]:
    """What losses are compared by: the score or, where the families have no metric, accuracy."""
    return record.get("score", record["accuracy"])


def order_of(worth: Sequence[float], excess: Sequence[float] | None) -> list[int]:
    """The places of losses, the best first and what lies outside a guard last."""
    ranks = torch.tensor(worth, dtype=torch.float64)
    if excess is not None:
        ranks = Guard.ranked(ranks, torch.tensor(excess, dtype=torch.float64))
    # The sort is stable: of equal losses the one that stood before stays before.
    order: list[int] = ranks.argsort(descending=True, stable=True).tolist()
    return order


@dataclass(frozen=True)
class StageRunner:
    """Rounds played and kept in a folder; one that is there already is not played again.

    Attributes:
        folder: where they are kept.
        evaluation: what trains.
        rates: among which cross-entropy's is chosen, for every budget anew.
        baseline_tasks: meta-validation tasks for that choice.
        conditions: what else a round's result depends on.
    """

    folder: Path
    evaluation: LossEvaluation
    rates: Sequence[float]
    baseline_tasks: int
    conditions: dict[str, str]
    tuned: dict[tuple[int, int], list[Tuned]] = field(default_factory=dict)

    def play(
        self, number: int, stage: Stage, texts: Sequence[str], before: Sequence[dict[str, float]]
    ) -> StageRecord:
        """What a round finds.

        Args:
            number: of the round: 1, 2, ...
            stage: its budget.
            texts: the formulas.
            before: what each reached in the rounds before, by its text.

        Raises:
            SettingsError: it was played with other settings.
            DamagedFile: its file does not check out.
        """
        path = self.folder / f"stage-{number}.json"
        asked = self._asked(number, stage, texts)
        if storage.is_file(path):
            return _same(path, storage.read_record(path, StageRecord), asked)
        opened = [family.enlarged(stage.steps, stage.scale) for family in self.evaluation.families]
        losses = self.evaluation.candidates(Formulas.of([Formula.parse(text) for text in texts]))
        of_losses = self._measured(number, stage, [(family, losses, None) for family in opened])
        tuned = self._tuned(opened, stage)
        (of_ce,) = self._measured(number, stage, [(x, ce.losses, ce.lr) for x, ce in tuned])
        scores = self._means(stage, of_losses[..., 0])
        averaged = before[len(before) - stage.mean_of + 1 :]
        worth = [
            fmean([mine, *(x[text] for x in averaged)])
            for mine, text in zip(scores, texts, strict=True)
        ]
        excess = self._excess(stage, of_losses, of_ce)
        # τ tells whether this budget orders the losses as the one before it did.
        tau = rank_correlation([before[-1][text] for text in texts], scores) if before else None
        outcome = {
            "accuracy": self._means(stage, of_losses[..., self._accuracy]),
            **({} if self._scale.is_accuracy else {"score": scores}),
            "worth": worth,
            **({} if excess is None else {"excess": excess}),
            "kept": [texts[i] for i in order_of(worth, excess)[: stage.keep]],
            "tau": tau,
            "reference": self._reference(tuned, stage, of_ce),
            **self._scale.entry(),
        }
        storage.write_record(path, {"asked": asked, **outcome})
        # Read back, so that a stage just played and one that is resumed give the same values.
        record: StageRecord = storage.read_record(path, StageRecord)
        return record

    def _asked(self, number: int, stage: Stage, texts: Sequence[str]) -> dict[str, Any]:
        """All that decides what a round finds."""
        families = [registry.table(family.family) for family in self.evaluation.families]
        seed = self.evaluation.key.seed
        budget = asdict(
            replace(stage, tasks=max(self.evaluation.task_counts(stage.tasks)), families=())
        )
        del budget["families"]
        guard = self.evaluation.guard
        return {
            "stage": number,
            **budget,
            **({"guard": dict(guard.allowed)} if guard else {}),
            "seed": seed,
            **self.conditions,
            "families": families,
            "losses": [*texts],
        }

    @property
    def _beside(self) -> tuple[str, ...]:
        """Metrics in columns behind the score: the guard's and, last, accuracy, which is shown."""
        guard = self.evaluation.guard
        return (*(guard.metrics if guard else ()), *self._scale.beside)

    @property
    def _accuracy(self) -> int:
        """The column of accuracy."""
        return 0 if self._scale.is_accuracy else -1

    @property
    def _scale(self) -> MetricScale:
        """How scores are shown: of all families alike."""
        return self.evaluation.families[0].scale

    def _measured(
        self, number: int, stage: Stage, trained: Sequence[tuple[OpenFamily, Losses, float | None]]
    ) -> Float[Tensor, "P T K"]:
        """Score and further columns on a stage's tasks; a failed training counts as 0.

        The same keys for all that is trained: losses and cross-entropy meet the same tasks. These
        come family after family, and all of that again for every repeat.

        Args:
            number: of the stage.
            stage: its budget.
            trained: for each family P losses, and their rate; the family's own where None.
        """
        keys = [
            self.evaluation.key.at("elimination", number, repeat) for repeat in range(stage.repeats)
        ]
        found = [
            self.evaluation.on(family).scores(
                losses, "validation", key, stage.tasks, lr=lr, beside=self._beside
            )[0]
            for key in keys
            for family, losses, lr in trained
        ]
        measured = torch.cat(found, 1).nan_to_num(nan=0.0)
        return measured if self._beside else measured[..., None]

    def _family_index(self, stage: Stage) -> Int[Tensor, " T"]:
        """The family of every column of tasks."""
        return self.evaluation.family_index(stage.tasks).repeat(stage.repeats)

    def _means(self, stage: Stage, score: Float[Tensor, "P T"]) -> list[float]:
        """Of every loss the mean over the families."""
        return [float(x) for x in mean(score, self._family_index(stage))]

    def _excess(
        self, stage: Stage, of_losses: Float[Tensor, "P T K"], of_ce: Float[Tensor, "T K"]
    ) -> list[float] | None:
        """By how much every loss lies further behind cross-entropy than the guard allows."""
        guard = self.evaluation.guard
        if guard is None:
            return None
        columns = slice(0, 1 + len(guard.metrics))
        index = self._family_index(stage)
        excess: list[float] = guard.excess(
            of_losses[..., columns], of_ce[:, columns], index
        ).tolist()
        return excess

    def _reference(
        self, tuned: Sequence[tuple[OpenFamily, Tuned]], stage: Stage, of_ce: Float[Tensor, "T K"]
    ) -> dict[str, Any]:
        """Cross-entropy on the same tasks, at the rate that is best for this budget."""
        index = self._family_index(stage)
        table = {}
        for number, (family, ce) in enumerate(tuned):
            reached = of_ce[index == number].double().mean(0).tolist()
            score = {} if self._scale.is_accuracy else {"score": reached[0]}
            table[family.family.name] = {
                "lr": ce.lr,
                "accuracy": reached[self._accuracy],
                **score,
            }
        kinds = ("accuracy",) if self._scale.is_accuracy else ("accuracy", "score")
        means = {kind: sum(row[kind] for row in table.values()) / len(table) for kind in kinds}
        return {**means, "families": table}

    def _tuned(self, opened: Sequence[OpenFamily], stage: Stage) -> list[tuple[OpenFamily, Tuned]]:
        budget = (stage.steps, stage.scale)
        one = CrossEntropies.of(1)
        # Tuning costs rates times tasks, so a budget that several stages share is tuned once.
        if budget not in self.tuned:
            self.tuned[budget] = [
                self.evaluation.on(family).tune(
                    [one], self.rates, self.baseline_tasks, role=BASELINE
                )[0]
                for family in opened
            ]
        return list(zip(opened, self.tuned[budget], strict=True))


def _same(path: Path, record: StageRecord, asked: dict[str, Any]) -> StageRecord:
    """The record, if it answers what is asked."""
    old = record["asked"]
    different = [_change(key, old.get(key), asked.get(key)) for key in differing_keys(old, asked)]
    if different:
        listed = "; ".join(different)
        raise SettingsError(
            f"{path} was made with other settings ({listed}): move {path.parent} away to begin anew"
        )
    return record


def _change(key: str, old: Any, new: Any) -> str:
    return f"{key}: was {old}, is {new}" if isinstance(new, int | str) else f"other {key}"
