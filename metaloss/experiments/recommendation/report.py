"""The report of a recommendation that small tasks have judged, and what they answered."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metaloss.core.formatting import counted
from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation import figures
from metaloss.experiments.recommendation.fold_answers import answers_of
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.folds import FoldedImages
from metaloss.experiments.recommendation.held_out_answers import answer_record
from metaloss.experiments.recommendation.page import introduction, page
from metaloss.experiments.recommendation.records import CHOICE, CHOSEN
from metaloss.experiments.recommendation.rivals import setting_in_words
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.text import tables
from metaloss.experiments.recommendation.verdict import Verdict

BY_FOLD = "in every fold with what was chosen for it without the fold's images (the table below)"


def held_out(
    folded: FoldedImages, folds: FoldResults, verdict: Verdict | None
) -> list[dict[str, Any]]:
    """Recalls, confusion matrices and the most wrong images, as plain values.

    They are of cross-entropy, of what is recommended or best on all images, and of what each fold
    chose.

    Args:
        folded: the images.
        folds: what came of the folds.
        verdict: the recommendation; None where the user stopped before it.
    """
    dataset = folded.dataset
    names = [x for x in folds.judged[0].measures if all(x in y.measures for y in folds.judged)]
    answers = {x: answers_of(folds.judged, folds.of_loss(x), len(dataset.classes)) for x in names}
    by_all = torch.stack([x.wrong for x in answers.values()]).mean(0)
    best = None
    if verdict is not None:
        best = verdict.loss if verdict.changes else verdict.best
    shown = [(CE, f"cross-entropy, {BY_FOLD}.")]
    if verdict is not None and best in answers and best != CE:
        what = "recommended" if verdict.changes else "best on all images, without evidence for it"
        shown.append((best, f"{what}; here {BY_FOLD}."))
    records = [
        {**answer_record(name, answers[name], dataset, by_all), "about": about}
        for name, about in shown
    ]
    if set(folds.choice_counts) in ({CE}, {best}):
        return records  # what folds chose is shown already
    return [*records, _of_chosen(folded, folds)]


def _of_chosen(folded: FoldedImages, folds: FoldResults) -> dict[str, Any]:
    """The record of what each fold chose; the images that it gets wrong stand in the others'."""
    classes = len(folded.dataset.classes)
    answers = answers_of(folds.judged, folds.of_chosen(), classes)
    listed = ", ".join(f"{x.winner} without fold {n}" for n, x in enumerate(folds.choices, 1))
    about = f"what was chosen anew in every fold, and judged by the images of that fold: {listed}."
    return {**answer_record(CHOSEN, answers, folded.dataset), "about": about, "wrong": []}


def report(summary: Mapping[str, Any], folded: FoldedImages, choices: Sequence[LossChoice]) -> str:
    """The HTML page.

    Args:
        summary: of the recommendation, with `held_out`, or of a part of it.
        folded: the images.
        choices: one per fold.
    """
    settings = summary["settings"]
    family = folded.family
    judged = (
        f"Judged by small trainings: {family.classifier['kind']}, on "
        f"{counted(settings['test_tasks'], 'task')} of each fold, after choosing on "
        f"{settings['tuning_tasks']} of the other folds."
    )
    losses, others = tables(dict(summary))
    choice = {"loss": CHOSEN, "kind": CHOICE, "gain": summary["choice"]}
    drawn = [choice, *summary["rows"]]
    scale = MetricScale.of(summary)
    pictures = figures.gains(drawn, summary["verdict"], scale, summary["certainty"])
    shown = [x["loss"] for x in summary["held_out"] if x["loss"] != CHOSEN]
    rows = [_fold_row(n, choice, shown) for n, choice in enumerate(choices, 1)]
    reached = {"": losses, "No losses, on the same folds:": others}
    about = introduction(summary, judged)
    return page(summary, about, reached, rows, pictures, folded.dataset)


def _fold_row(number: int, choice: LossChoice, names: Sequence[str]) -> dict[str, str]:
    """What was chosen without a fold, and for each loss that is shown."""
    chosen = {name: _setting(choice, name) for name in names}
    return {"fold": str(number), "chosen": _setting(choice, choice.winner), **chosen}


def _setting(choice: LossChoice, name: str) -> str:
    """A loss, or what is none, with everything that was chosen for it."""
    if name in choice.rivals:
        own = setting_in_words(choice.rivals[name])
        return f"{name} ({own})" if own else name
    setting = choice.settings[name]
    return f"{setting.spec or name}, rate {setting.lr:g}, {setting.steps} steps"
