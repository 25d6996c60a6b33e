"""A recommendation as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.data.datasets import Table
from metaloss.data.datasets._images import DEFAULT_OPTIONS
from metaloss.data.shapes import images_of
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.sentences import name_in_sentence
from metaloss.experiments.comparison.summary import loss_records
from metaloss.experiments.recommendation import code, task_sizes
from metaloss.experiments.recommendation.answer import Evidence, parts, recall_rows
from metaloss.experiments.recommendation.class_recalls import class_recalls
from metaloss.experiments.recommendation.folds import FoldedImages
from metaloss.experiments.recommendation.full_training import training_of
from metaloss.experiments.recommendation.plain_words import answers_decide
from metaloss.experiments.recommendation.rivals import RivalChoice, setting_in_words
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.sentences import (
    beside_losses,
    rarest,
    search_in_words,
    sentences,
    small,
    stopped,
)
from metaloss.experiments.recommendation.verdict import (
    SEARCH_CERTAINTY,
    FoldResults,
    Verdict,
    accuracy,
    worth_searching,
)
from metaloss.inner.observers import Measures
from metaloss.tasks.episodic_family import TaskFamily

LOSS = "loss"  # the kind of a row that is one


def summarise(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    specs: Mapping[str, Any],
    folded: FoldedImages,
    final: LossChoice,
    folds: FoldResults,
    verdict: Verdict,
) -> dict[str, Any]:
    """Everything but single tasks.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        specs: how each of them was asked for, by its label.
        folded: the images.
        final: the choice on all images.
        folds: the choices and what came of them.
        verdict: what follows.
    """
    family = folded.family
    images = _images(folded)
    training = training_of(family, images["images"], verdict.setting, verdict.rival)
    search = folds.of_losses_alone()
    spec = verdict.setting.spec or specs.get(verdict.loss, verdict.loss)
    summary: dict[str, Any] = storage.json_safe(
        {
            **about,
            **folds.scale.entry(),
            "family": registry.table(family),
            "data": images,
            "losses": loss_records(compared),
            "rows": _rows(compared, final, folds),
            "verdict": _verdict(verdict),
            **_answer(folded, final, folds, verdict),
            "certainty": folds.certainty,
            "folds": [_fold(x, folds.scale) for x in folds.choices],
            "sentences": [
                *sentences(verdict, final, images["images"]),
                *beside_losses(final, folds),
                _small(verdict.setting.steps, family, folds),
                *_share(folded),
                *_rarest(folded, folds.scale),
                search_in_words(search, folds.scale, _best_loss(final)),
            ],
            "search": {
                **folds.scale.difference(asdict(search)),
                "certainty": SEARCH_CERTAINTY,
                "worth": worth_searching(search, folds.scale),
            },
            "train": code.train_command(
                about["settings"]["data"], spec, verdict, family.metric, training
            ),
            "code": [
                *code.fit_lines(spec, verdict, training),
                *code.lines(
                    spec,
                    verdict,
                    final,
                    family.inner,
                    compared,
                    folded.counts,
                    folded.features is not None,
                    _loadable(folded),
                ),
            ],
        }
    )
    return summary


def summarise_part(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    folded: FoldedImages,
    folds: FoldResults,
) -> dict[str, Any]:
    """What the folds say that were judged before the user stopped.

    Args:
        about: settings, command and conditions.
        compared: the losses.
        folded: the images.
        folds: the choices so far and what came of them.
    """
    last = folds.choices[-1]
    summary: dict[str, Any] = storage.json_safe(
        {
            **about,
            **folds.scale.entry(),
            "family": registry.table(folded.family),
            "data": _images(folded),
            "losses": loss_records(compared),
            "rows": _rows(compared, last, folds),
            "verdict": None,
            "partial": {"folds": len(folds.choices), "of": folded.folds},
            "certainty": folds.certainty,
            "folds": [_fold(x, folds.scale) for x in folds.choices],
            "sentences": [stopped(folds, folded.folds), *_rarest(folded, folds.scale)],
            "code": [],
        }
    )
    return summary


def _loadable(folded: FoldedImages) -> str:
    """What a line of Python loads the images by; "" where they are not a folder's pixels."""
    family = folded.family
    usual = family.image_options == DEFAULT_OPTIONS and folded.features is None
    return family.dataset if usual and family.dataset.startswith("folder:") else ""


def _rows(
    compared: Sequence[ComparedLoss], final: LossChoice, folds: FoldResults
) -> list[dict[str, Any]]:
    """The table: losses, and then what is none."""
    return [
        *(_row(x.label, final, folds) for x in compared),
        *_late(final, folds),
        *(_rival(final.rivals[x], folds) for x in folds.rivals if x in final.rivals),
    ]


def _answer(
    folded: FoldedImages, final: LossChoice, folds: FoldResults, verdict: Verdict
) -> dict[str, Any]:
    """The answer in plain words, and the recalls that it rests on."""
    family = folded.family
    recalls = class_recalls(folded.dataset.classes, folds, folded.dataset.groups)
    shown = recalls if answers_decide(folds.scale) else []
    features = folded.features is not None or isinstance(folded.dataset, Table)
    small = f"a small network ({family.classifier['kind']}) that trains for seconds"
    evidence = Evidence(
        (folds.value(folds.of_loss(CE)), folds.value(folds.of_chosen())),
        shown,
        sum(folded.counts),
        losses=len(final.settings) - 1,
        methods=len(folds.rivals),
        longer=final.late,
        network="" if features else small,
        features=features,
        search=worth_searching(folds.of_losses_alone(), folds.scale),
    )
    return {
        "answer": parts(verdict, evidence),
        "recognised": recall_rows(shown, verdict.changes),
        "recalls": [x.plain() for x in recalls],
    }


def _images(folded: FoldedImages) -> dict[str, Any]:
    """The images and how they are cut."""
    return {
        "images": sum(map(len, folded.rows)),
        "per_class": dict(zip(folded.dataset.classes, map(len, folded.rows), strict=True)),
        "copies_left_out": folded.copies,
        "folds": folded.folds,
        "held_out_val": folded.val,
        "origin": folded.dataset.origin,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, its gains in the metric's own sign."""
    scale = verdict.scale
    table: dict[str, Any] = {f.name: getattr(verdict, f.name) for f in fields(verdict)}
    del table["scale"], table["rival"]
    return {
        **table,
        "kind": verdict.rival.kind if verdict.rival else LOSS,
        "gain": scale.difference(asdict(verdict.gain)),
        "late": scale.difference(asdict(verdict.late)) if verdict.late else None,
        "setting": verdict.setting.plain(scale),
        "evidence": verdict.evidence,
    }


def _best_loss(final: LossChoice) -> str:
    """How the loss is written that was best on all images, whatever else is no loss."""
    name = final.best_loss
    return final.settings[name].spec or name_in_sentence(name)


def _fold(choice: LossChoice, scale: MetricScale) -> dict[str, Any]:
    """A fold's choice, with every loss's setting."""
    return {
        "chosen": choice.winner,
        "settings": {loss: setting.plain(scale) for loss, setting in choice.settings.items()},
        "late": choice.late.plain(scale) if choice.late else None,
        "rivals": {
            name: {x.constant: x.value} if x.constant else {} for name, x in choice.rivals.items()
        },
    }


def _row(name: str, final: LossChoice, folds: FoldResults) -> dict[str, Any]:
    """A loss: its setting on all images, and what it reached with each fold's setting."""
    setting = final.settings[name]
    measures = folds.of_loss(name)
    diverged = torch.cat([x.diverged for x in measures]).double().mean()
    return {
        "loss": name,
        "kind": LOSS,
        "lr": setting.lr,
        "steps": setting.steps,
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
        "gain": None if name == CE else folds.scale.difference(asdict(folds.gain(name))),
        "chosen": folds.choice_counts[name],
        "diverged": float(diverged),
        "rates": [x.settings[name].lr for x in folds.choices],
        **({"spec": setting.spec} if setting.spec else {}),
    }


def _late(final: LossChoice, folds: FoldResults) -> list[dict[str, Any]]:
    """Cross-entropy with its best number of steps."""
    measures = folds.of_late()
    gain = folds.late_over_own()
    setting = final.late
    if setting is None or gain is None:
        return []
    diverged = float(torch.cat([x.diverged for x in measures]).double().mean())
    row = {
        "loss": f"{CE}, best steps",
        "kind": LOSS,
        "lr": setting.lr,
        "steps": setting.steps,
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
    }
    rates = [x.late.lr for x in folds.choices if x.late]
    return [
        {
            **row,
            "gain": folds.scale.difference(asdict(gain)),
            "chosen": None,
            "diverged": diverged,
            "rates": rates,
        }
    ]


def _rival(rival: RivalChoice, folds: FoldResults) -> dict[str, Any]:
    """What is no loss: what was chosen for it on all images, and what it reached."""
    measures = folds.of_loss(rival.name)
    return {
        "loss": rival.name,
        "kind": rival.kind,
        "setting": setting_in_words(rival),
        folds.scale.kind: folds.value(measures),
        **_beside(measures, folds.scale),
        "gain": folds.scale.difference(asdict(folds.gain(rival.name))),
        "chosen": folds.choice_counts[rival.name],
        "diverged": float(torch.cat([x.diverged for x in measures]).double().mean()),
    }


def _beside(measures: Sequence[Measures], scale: MetricScale) -> dict[str, float]:
    """The accuracy, where losses are compared by another metric."""
    return {} if scale.is_accuracy else {"accuracy": accuracy(measures)}


def _small(steps: int, family: TaskFamily, folds: FoldResults) -> str:
    return small(
        family.ways,
        images_of(family.shots),
        steps,
        family.classifier["kind"],
        folds.value(folds.of_loss(CE)),
        folds.scale,
    )


def _rarest(folded: FoldedImages, scale: MetricScale) -> list[str]:
    """What the smallest class can tell, where classes are uneven."""
    if not task_sizes.drawn_as_is(folded.family):
        return []
    return [rarest(folded.dataset.classes, folded.counts, scale)]


def _share(folded: FoldedImages) -> list[str]:
    """How much of what the user has a task trains on."""
    shots = folded.family.shots
    scarcest = folded.scarcest
    if task_sizes.drawn_as_is(folded.family):
        return [
            f"Tasks are as uneven as your images: each trains on {images_of(shots)} class outside "
            "a fold; --set shots=N draws N of every class instead."
        ]
    if not isinstance(shots, int) or 2 * shots >= scarcest:
        return []
    # As many as fit outside the largest fold, with one image left to validate on.
    most = scarcest - -(-scarcest // folded.folds) - 1
    option = f"--set shots={min(most, 2 * shots)}"
    return [
        f"A task trained on {images_of(shots)} class, of {scarcest} or more that are here; "
        f"{option} is nearer to all."
    ]
