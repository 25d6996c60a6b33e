"""One stage of an elimination: losses, and cross-entropy, on the same fresh tasks at one budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NotRequired

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.evaluation.protocol import BASELINE, LossEvaluation
from metaloss.evaluation.statistics import rank_correlation
from metaloss.evaluation.tuning import Tuned
from metaloss.losses.base import CrossEntropies
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


class StageReference(TypedDict):
    """What is needed of cross-entropy's result."""

    accuracy: float


class StageRecord(TypedDict):
    """What is needed of a stage's file.

    Attributes:
        asked: all that decides it.
        accuracy: of every loss; the score where the families have another metric.
        worth: what losses are ranked by: the same, averaged over stages.
        kept: the losses that go on.
        tau: how alike this stage and the one before order them.
        reference: cross-entropy.
        metric_scale: how scores are shown; missing where they are accuracies.
    """

    asked: dict[str, Any]
    accuracy: list[float]
    worth: list[float]
    kept: list[str]
    tau: float | None
    reference: StageReference
    metric_scale: NotRequired[dict[str, Any]]


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
        scores = self._scores(opened, number, stage, [Formula.parse(text) for text in texts])
        averaged = before[len(before) - stage.mean_of + 1 :]
        worth = [
            fmean([mine, *(x[text] for x in averaged)])
            for mine, text in zip(scores, texts, strict=True)
        ]
        # The sort is stable: of equal losses the one that stood before stays before.
        order = sorted(range(len(texts)), key=lambda i: -worth[i])
        # τ tells whether this budget orders the losses as the one before it did.
        tau = rank_correlation([before[-1][text] for text in texts], scores) if before else None
        outcome = {
            "accuracy": scores,
            "worth": worth,
            "kept": [texts[i] for i in order[: stage.keep]],
            "tau": tau,
            "reference": self._reference(opened, number, stage),
            **opened[0].scale.entry(),
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
        return {
            "stage": number,
            **budget,
            "seed": seed,
            **self.conditions,
            "families": families,
            "losses": [*texts],
        }

    def _scores(
        self, opened: Sequence[OpenFamily], number: int, stage: Stage, formulas: Sequence[Formula]
    ) -> list[float]:
        """The score of every loss at the families' own rates; a failed training counts as 0."""
        pairs = [(family, key) for key in self._keys(number, stage) for family in opened]
        losses = Formulas.of(formulas)
        score = [
            self.evaluation.on(family).scores(losses, "validation", key, stage.tasks)[0]
            for family, key in pairs
        ]
        # Columns come family after family, and all of that again for every repeat.
        numbers = self.evaluation.family_index(stage.tasks).repeat(stage.repeats)
        return [float(x) for x in mean(torch.cat(score, 1).nan_to_num(nan=0.0), numbers)]

    def _reference(self, opened: Sequence[OpenFamily], number: int, stage: Stage) -> dict[str, Any]:
        """Cross-entropy on the same tasks, at the rate that is best for this budget."""
        table = {
            family.family.name: self._rival(family, tuned, number, stage)
            for family, tuned in self._tuned(opened, stage)
        }
        return {
            "accuracy": sum(row["accuracy"] for row in table.values()) / len(table),
            "families": table,
        }

    def _rival(
        self, family: OpenFamily, tuned: Tuned, number: int, stage: Stage
    ) -> dict[str, float]:
        score = [
            # The same keys as for the losses: cross-entropy meets the same tasks.
            self.evaluation.on(family).scores(
                tuned.losses, "validation", key, stage.tasks, lr=tuned.lr
            )[0, 0]
            for key in self._keys(number, stage)
        ]
        return {
            "lr": tuned.lr,
            "accuracy": float(torch.cat(score).double().nan_to_num(nan=0.0).mean()),
        }

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

    def _keys(self, number: int, stage: Stage) -> list[Stream]:
        return [
            self.evaluation.key.at("elimination", number, repeat) for repeat in range(stage.repeats)
        ]


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
