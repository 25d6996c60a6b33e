"""A recommendation by real trainings as plain values."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from metaloss import storage
from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.answer import Evidence, parts, recall_rows
from metaloss.experiments.recommendation.class_recalls import ClassRecall
from metaloss.experiments.recommendation.folds import NAMED
from metaloss.experiments.recommendation.held_out_answers import independent_images
from metaloss.experiments.recommendation.plain_words import answers_decide
from metaloss.experiments.recommendation.records import head, part, verdict_record
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.sentences import rarest, sentences
from metaloss.experiments.recommendation.verdict import Verdict
from metaloss.experiments.recommendation_by_training.commands import fit_call, train_command
from metaloss.experiments.recommendation_by_training.fold_answers import answers_of
from metaloss.experiments.recommendation_by_training.folds import TrainingFolds
from metaloss.experiments.recommendation_by_training.halving import Candidate
from metaloss.experiments.recommendation_by_training.judged_folds import JudgedFold, JudgedFolds
from metaloss.experiments.recommendation_by_training.plan import Plan, metric_table
from metaloss.experiments.recommendation_by_training.rows import rows


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
    result: dict[str, Any] = storage.json_safe(
        {
            **_head(about, compared, plan, judged, final.settings[CE].lr),
            "cost": asdict(plan.cost),
            "classes": _classes(judged, folds),
            "verdict": _verdict(verdict),
            **_answer(judged, folds, verdict, len(compared) - 1),
            "finalists": _finalists(final, judged.scale),
            "sentences": [
                *sentences(verdict, final, len(folds.everything)),
                *_at_the_end(verdict, plan.candidates),
                *([rarest(classes, folds.counts, judged.scale)] if folds.uneven else []),
                _real(folds),
            ],
            **_code(specs, plan, verdict),
        }
    )
    return result


def _code(specs: Mapping[str, Any], plan: Plan, verdict: Verdict) -> dict[str, Any]:
    """The command that trains with what is recommended, and Python that does.

    Args:
        specs: how each loss was asked for, by its label.
        plan: what was to happen.
        verdict: what to use.
    """
    spec = verdict.setting.spec or specs.get(verdict.loss, verdict.loss)
    loss = os.fspath(spec) if isinstance(spec, str | os.PathLike) else verdict.loss
    # As it was judged: on all images, with nothing held out.
    training = replace(
        plan.folds.settings,
        lr=verdict.setting.lr,
        metric=metric_table(plan.asked, plan.folds),
        groups=plan.asked.groups,
        validation=0.0,
    )
    if verdict.rival is not None:
        loss, training = CE, replace(training, prior_correction=verdict.rival.value)
    return {"train": train_command(loss, training), "code": [fit_call(loss, training)]}


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
    # The numbers are of what is recommended.
    shown = judged.fixed_to(verdict.loss) if verdict.expected else judged
    independent = [
        independent_images(answers_of(judged, [logits]), folds.dataset.groups)
        for logits in (judged.ce, shown.ours)
    ]
    recalls = [
        ClassRecall(row["class"], row["images"], row["recall_ce"], row["recall_chosen"], *sizes)
        for row, *sizes in zip(_classes(shown, folds), *independent, strict=True)
        if row["images"] and answers_decide(scale)
    ]
    evidence = Evidence(
        (judged.values(judged.ce)[0], shown.values(shown.ours)[0]),
        recalls,
        len(folds.everything),
        losses,
        methods=int(folds.uneven),
        features=bool(folds.settings.features),
        groups=folds.group_count,
    )
    return {
        "answer": parts(verdict, evidence),
        "recognised": recall_rows(recalls, verdict.changes),
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
    said = [f"{partly(judged, plan.folds)}."]
    result: dict[str, Any] = storage.json_safe(
        {
            **_head(about, compared, plan, judged, None),
            **part(len(judged.folds), plan.folds.folds, said),
        }
    )
    return result


def _head(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    plan: Plan,
    judged: JudgedFolds,
    lr: float | None,
) -> dict[str, Any]:
    """What was asked, what each fold chose, and what came of it.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        plan: what was to happen.
        judged: the folds' choices and what came of them.
        lr: cross-entropy's rate on all images; None where none is chosen yet.
    """
    steps = plan.folds.steps
    return {
        **head(about, compared, _images(plan.folds), judged.scale, judged.certainty),
        "rows": rows(judged, lr, steps),
        "folds": [_fold(x, steps, judged.scale) for x in judged.folds],
    }


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
    """The verdict as plain values."""
    return verdict_record(verdict) | {"prior_correction": verdict.rival and verdict.rival.value}


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
    label = CE if verdict.expected else verdict.loss  # whose rate it has
    rates = sorted({x.lr for x in candidates if x.label == label})
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
    known = [f"{name} {_gain(judged.fixed_to(name))}" for name in judged.beside]
    gains = ", ".join([f"choosing gains {_gain(judged)} over cross-entropy", *known])
    return (
        f"{len(judged.folds)} of {folds.folds} folds are judged: there {gains}; nothing is "
        "recommended yet"
    )


def _gain(judged: JudgedFolds) -> str:
    return judged.scale.interval(judged.scale.difference(asdict(judged.whole())))


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
