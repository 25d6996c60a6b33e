"""The report of a recommendation by real trainings, or of the part of it that is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaloss import storage
from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation import figures
from metaloss.experiments.recommendation.held_out_answers import answer_record
from metaloss.experiments.recommendation.page import FILE, introduction, page
from metaloss.experiments.recommendation.records import CHOSEN
from metaloss.experiments.recommendation_by_training.fold_answers import answers_of
from metaloss.experiments.recommendation_by_training.folds import TrainingFolds
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFolds
from metaloss.experiments.recommendation_by_training.text import table


def held_out(judged: JudgedFolds, folds: TrainingFolds) -> list[dict[str, Any]]:
    """Recalls, confusion matrices and the most wrong images, as plain values.

    They are of cross-entropy, of a loss that was judged beside the choice, and of what each fold
    chose.

    Args:
        judged: the folds' choices and what came of them.
        folds: the images.
    """
    dataset = folds.dataset
    by = f"with {len(judged.folds[0].ce)} seeds in every fold"
    ce = answers_of(judged, [x.ce for x in judged.folds])
    ours = answers_of(judged, [x.ours for x in judged.folds])
    beside = {x: answers_of(judged, [y.beside[x] for y in judged.folds]) for x in judged.beside}
    by_all = torch.stack([x.wrong for x in (ce, ours, *beside.values())]).mean(0)
    about = f"cross-entropy at the rate chosen without the fold's images, {by}."
    records = [{**answer_record(CE, ce, dataset, by_all), "about": about}]
    for name, answers in beside.items():
        about = f"known to help on such images; at the rate chosen for cross-entropy, {by}."
        records.append({**answer_record(name, answers, dataset, by_all), "about": about})
    if all(x.survivors.best == x.survivors.ce for x in judged.folds):
        return records  # cross-entropy is what the folds chose
    chosen = ", ".join(
        f"{x.survivors.best.spec or x.survivors.best.label} without fold {n}"
        for n, x in enumerate(judged.folds, 1)
    )
    about = f"chosen anew without each fold's images, trained {by}: {chosen}."
    return [*records, {**answer_record(CHOSEN, ours, dataset, by_all), "about": about}]


def report(summary: dict[str, Any], folds: TrainingFolds, judged: JudgedFolds) -> str:
    """The HTML page.

    Args:
        summary: of the recommendation, with `held_out`, or of a part of it.
        folds: the images.
        judged: the folds' choices and what came of them.
    """
    settings = folds.settings
    trained = (
        f"Judged by real trainings: {settings.model}, {folds.steps} steps of {settings.batch} "
        f"images, {len(judged.folds[0].ce)} seeds in each fold."
    )
    scale = MetricScale.of(summary)
    pictures = figures.gains(summary["rows"], summary["verdict"], scale, judged.certainty)
    rows = [_fold_row(n, judged) for n in range(len(judged.folds))]
    tables = {"": table(summary)}
    about = introduction(summary, trained)
    return page(summary, about, tables, rows, pictures, folds.dataset)


def _fold_row(number: int, judged: JudgedFolds) -> dict[str, str]:
    """What was chosen without a fold, and what it reached on it."""
    fold = judged.folds[number]
    scale = judged.scale
    alone = replace(judged, folds=[fold])
    best, ce = fold.survivors.best, fold.survivors.ce
    return {
        "fold": str(number + 1),
        "chosen": f"{best.spec or best.label}, rate {best.lr:g}",
        f"{scale.title} of that": scale.text(alone.values(alone.ours)[0]),
        "ce": f"rate {ce.lr:g}",
        f"{scale.title} of ce": scale.text(alone.values(alone.ce)[0]),
        **{
            f"{scale.title} of {name}": scale.text(x.values(x.ours)[0])
            for name in judged.beside
            for x in [alone.fixed_to(name)]
        },
    }


def with_answers(
    summary: dict[str, Any], folds: TrainingFolds, judged: JudgedFolds
) -> dict[str, Any]:
    """The summary with what was answered to held-out images."""
    answered: dict[str, Any] = storage.json_safe({"held_out": held_out(judged, folds)})
    return {**summary, **answered}


def write_part(
    folder: Path, summary: dict[str, Any], folds: TrainingFolds, judged: JudgedFolds
) -> Path:
    """Write the report of the folds that are judged beside the trainings that are kept.

    Args:
        folder: of the trainings that are over.
        summary: of the part that is known.
        folds: the images.
        judged: the folds' choices and what came of them.

    Returns:
        the report's path.
    """
    written = with_answers(summary, folds, judged)
    storage.write(folder / "summary.json", storage.json_bytes(written))
    storage.write(folder / FILE, report(written, folds, judged).encode())
    return folder / FILE
