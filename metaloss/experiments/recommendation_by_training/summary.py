"""A recommendation by real trainings as plain values, as lines to print, and as a folder."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from metaloss import storage
from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.tables import record_table
from metaloss.data.datasets import Dataset
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.summary import loss_records
from metaloss.experiments.recommendation.answer import Evidence, parts, recall_rows
from metaloss.experiments.recommendation.class_recalls import ClassRecall
from metaloss.experiments.recommendation.folds import NAMED
from metaloss.experiments.recommendation.held_out_answers import independent_images
from metaloss.experiments.recommendation.plain_words import answers_decide
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.sentences import rarest, sentences
from metaloss.experiments.recommendation.text import after_tables, answer_lines
from metaloss.experiments.recommendation.verdict import ScoreGain, Verdict
from metaloss.experiments.recommendation_by_training.commands import fit_call, train_command
from metaloss.experiments.recommendation_by_training.fold_answers import answers_of
from metaloss.experiments.recommendation_by_training.folds import TrainingFolds
from metaloss.experiments.recommendation_by_training.halving import Candidate
from metaloss.experiments.recommendation_by_training.plan import Plan, metric_table
from metaloss.experiments.recommendation_by_training.verdict import JudgedFold, JudgedFolds

CHOSEN = "chosen by the folds"


def summarise(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    specs: Mapping[str, Any],
    plan: Plan,
    final: LossChoice,
    judged: JudgedFolds,
    verdict: Verdict,
) -> dict[str, Any]:
    """Everything but single images.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        specs: how each of them was asked for, by its label.
        plan: what was to happen.
        final: the choice on all images.
        judged: the folds' choices and what came of them.
        verdict: what follows.
    """
    folds = plan.folds
    classes = folds.dataset.classes
    spec = verdict.setting.spec or specs.get(verdict.loss, verdict.loss)
    loss = os.fspath(spec) if isinstance(spec, str | os.PathLike) else verdict.loss
    # As it was judged: on all images, with nothing held out.
    training = replace(
        folds.settings,
        lr=verdict.setting.lr,
        metric=metric_table(plan.asked, folds),
        validation=0.0,
    )
    if verdict.rival is not None:
        loss, training = CE, replace(training, prior_correction=verdict.rival.value)
    result: dict[str, Any] = storage.json_safe(
        {
            **about,
            **judged.scale.entry(),
            "data": _images(folds),
            "cost": asdict(plan.cost),
            "losses": loss_records(compared),
            "rows": _rows(judged, verdict.gain, final.settings[CE].lr, folds.steps),
            "classes": _classes(judged, folds),
            "verdict": _verdict(verdict),
            **_answer(judged, folds, verdict, len(compared) - 1),
            "folds": [_fold(x, folds.steps, judged.scale) for x in judged.folds],
            "finalists": _finalists(final, judged.scale),
            "sentences": [
                *sentences(verdict, final, len(folds.everything)),
                *_at_the_end(verdict, plan.candidates),
                *([rarest(classes, folds.counts, judged.scale)] if folds.uneven else []),
                _real(folds),
            ],
            "train": train_command(loss, training),
            "code": [fit_call(loss, training)],
        }
    )
    return result


def _answer(
    judged: JudgedFolds, folds: TrainingFolds, verdict: Verdict, losses: int
) -> dict[str, Any]:
    """The answer in plain words, and the recalls that it rests on.

    Args:
        judged: the folds' choices and what came of them.
        folds: the images.
        verdict: what follows.
        losses: how many were tried beside cross-entropy.
    """
    scale = judged.scale
    groups = folds.dataset.groups if isinstance(folds.dataset, Dataset) else None
    answers = answers_of(judged, [x.ce for x in judged.folds])
    independent = independent_images(answers, groups).tolist()
    recalls = [
        ClassRecall(row["class"], row["images"], row["recall_ce"], row["recall_chosen"], size)
        for row, size in zip(_classes(judged, folds), independent, strict=True)
        if row["images"]
    ]
    shown = recalls if answers_decide(scale) else []
    evidence = Evidence(
        (judged.values(judged.ce)[0], judged.values(judged.ours)[0]),
        shown,
        len(folds.everything),
        losses,
        methods=int(folds.uneven),
        features=bool(folds.settings.features),
    )
    return {
        "answer": parts(verdict, evidence),
        "recognised": recall_rows(shown, verdict.evidence),
    }


def summarise_part(
    about: Mapping[str, Any], compared: Sequence[ComparedLoss], plan: Plan, judged: JudgedFolds
) -> dict[str, Any]:
    """What the folds say that were judged before the user stopped.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        plan: what was to happen.
        judged: the folds' choices so far and what came of them.
    """
    folds = plan.folds
    result: dict[str, Any] = storage.json_safe(
        {
            **about,
            **judged.scale.entry(),
            "data": _images(folds),
            "losses": loss_records(compared),
            "rows": _rows(judged, judged.gain(), None, folds.steps),
            "verdict": None,
            "partial": {"folds": len(judged.folds), "of": folds.folds},
            "folds": [_fold(x, folds.steps, judged.scale) for x in judged.folds],
            "sentences": [f"{partly(judged, folds)}."],
            "code": [],
        }
    )
    return result


def _finalists(final: LossChoice, scale: MetricScale) -> dict[str, Any]:
    """What was left of the halving on all images, a setting each."""
    return {
        name: setting.plain(scale)
        | ({"prior_correction": final.rivals[name].value} if name in final.rivals else {})
        for name, setting in final.settings.items()
    }


def _images(folds: TrainingFolds) -> dict[str, Any]:
    """The images and how they are cut."""
    dataset = folds.dataset
    return {
        "images": len(folds.everything),
        "per_class": dict(zip(dataset.classes, folds.counts, strict=True)),
        "copies_left_out": folds.copies,
        "folds": folds.folds,
        "splits": folds.splits,
        "origin": dataset.origin,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, its gain in the metric's own sign."""
    scale = verdict.scale
    table = asdict(verdict)
    del table["scale"], table["rival"]
    return {
        **table,
        "gain": scale.difference(table["gain"]),
        "setting": verdict.setting.plain(scale),
        "prior_correction": verdict.rival and verdict.rival.value,
        "evidence": verdict.evidence,
    }


def _fold(fold: JudgedFold, steps: int, scale: MetricScale) -> dict[str, Any]:
    """A fold's choice: what was left of its halving, and how many candidates each stage had."""
    survivors = fold.survivors
    return {
        "chosen": _candidate(survivors.best),
        "ce": _candidate(survivors.ce),
        "stages": survivors.stages,
        "left": [
            {**_candidate(x), scale.kind: scale.value(score)}
            for x, score in survivors.scores.items()
        ],
        "steps": steps,
    }


def _candidate(x: Candidate) -> dict[str, Any]:
    return {"loss": x.spec or x.label, "lr": x.lr}


def _rows(
    judged: JudgedFolds, gain: ScoreGain, lr: float | None, steps: int
) -> list[dict[str, Any]]:
    """Cross-entropy, and what the folds chose, on images that neither has seen.

    Args:
        judged: the folds.
        gain: of choosing.
        lr: cross-entropy's rate on all images; None where none is chosen yet.
        steps: of a training.
    """
    scale = judged.scale
    ce, ce_accuracy = judged.values(judged.ce)
    ours, accuracy = judged.values(judged.ours)
    folds = len(judged.folds)
    own = judged.chosen.get(CE, 0)
    return [
        {
            "loss": CE,
            "lr": lr,
            "steps": steps,
            "accuracy": ce_accuracy,
            scale.kind: ce,
            "gain": None,
            "chosen": own,
        },
        {
            "loss": CHOSEN,
            "lr": None,
            "steps": steps,
            "accuracy": accuracy,
            scale.kind: ours,
            "gain": scale.difference(asdict(gain)),
            "chosen": folds - own,
        },
    ]


def _classes(judged: JudgedFolds, folds: TrainingFolds) -> list[dict[str, Any]]:
    """Every class with its recall and its answers, means over the seeds."""
    confusions = {"ce": judged.confusion(judged.ce), "chosen": judged.confusion(judged.ours)}
    rows = []
    for label, name in enumerate(folds.dataset.classes):
        row: dict[str, Any] = {"class": name, "images": int((judged.label == label).sum())}
        for key, table in confusions.items():
            row[f"recall_{key}"] = float(table[label, label] / table[label].sum())
            row[f"answers_{key}"] = table[label].tolist()
        rows.append(row)
    return rows


def _at_the_end(verdict: Verdict, candidates: Sequence[Candidate]) -> list[str]:
    """That a better rate may lie beyond those that were tried."""
    rates = sorted({x.lr for x in candidates if x.label == verdict.loss})
    lr = verdict.setting.lr
    if len(rates) < 2 or lr not in (rates[0], rates[-1]):
        return []
    tried = ", ".join(f"{x:g}" for x in rates)
    return [
        f"The rate {lr:g} is at the end of those tried ({tried}); --set rates=[…] tries others."
    ]


def _real(folds: TrainingFolds) -> str:
    """That the numbers are of real trainings, though on fewer images."""
    settings = folds.settings
    share = (folds.folds - 1) / folds.folds
    return (
        f"Judged by trainings as the command makes them: {settings.model}, {folds.steps} steps, "
        f"batch {settings.batch}, on the {percent(share)} of the images outside a fold."
    )


def partly(judged: JudgedFolds, folds: TrainingFolds) -> str:
    """What is known where the work ends early."""
    gain = judged.scale.difference(asdict(judged.gain()))
    return (
        f"{len(judged.folds)} of {folds.folds} folds are judged: there choosing gains "
        f"{judged.scale.interval(gain)} over cross-entropy; nothing is recommended yet"
    )


def fold_in_words(judged: JudgedFolds) -> str:
    """What the fold that was judged last has shown."""
    last = JudgedFolds(judged.folds[-1:], judged.metric, judged.scale, judged.certainty, judged.key)
    scale = judged.scale
    best, ce = last.folds[0].survivors.best, last.folds[0].survivors.ce
    text = f"cross-entropy at {ce.lr:g}: {scale.named(last.values(last.ce)[0])}"
    if best == ce:
        return text
    return (
        f"{text}; {best.spec or best.label} at {best.lr:g}: {scale.text(last.values(last.ours)[0])}"
    )


def copies_in_words(folds: TrainingFolds) -> str:
    """The images that were left out, the first of them by name."""
    return ", ".join(folds.copies[:NAMED]) + (", …" if len(folds.copies) > NAMED else "")


def lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """The table, the answer and the command, as they are printed."""
    return [*record_table(table(summary), width), "", *answer_lines(_printed(summary), width)]


def report(summary: dict[str, Any]) -> list[str]:
    """All that can be said: the table, the answer, notes for experts, and the code."""
    return [*record_table(table(summary)), *after_tables(_printed(summary))]


def _printed(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with its command as one line."""
    return {**summary, "train": shlex.join(summary["train"])}


def table(summary: dict[str, Any]) -> list[dict[str, str]]:
    """What was reached on images that no choice has seen, a row each with texts by columns."""
    scale = MetricScale.of(summary)
    folds = len(summary["folds"])
    certainty = 100 * summary["settings"]["certainty"]
    return [
        {
            "loss": row["loss"],
            scale.title: scale.text(row[scale.kind]),
            "accuracy": percent(row["accuracy"]),
            f"Δ to ce [{certainty:g} % CI]": scale.interval(row["gain"]) if row["gain"] else "",
            "chosen": f"{row['chosen']}/{folds}",
        }
        for row in summary["rows"]
    ]
