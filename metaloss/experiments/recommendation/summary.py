"""A recommendation as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.data.datasets import Table
from metaloss.data.datasets._images import DEFAULT_OPTIONS
from metaloss.data.shapes import images_of
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.comparison.sentences import name_in_sentence
from metaloss.experiments.recommendation import code, task_sizes
from metaloss.experiments.recommendation.answer import Evidence, parts, recall_rows
from metaloss.experiments.recommendation.class_recalls import class_recalls
from metaloss.experiments.recommendation.fold_results import FoldResults
from metaloss.experiments.recommendation.folds import FoldedImages
from metaloss.experiments.recommendation.full_training import training_of
from metaloss.experiments.recommendation.losses import LOSSES, UNEVEN_LOSSES
from metaloss.experiments.recommendation.plain_words import answers_decide
from metaloss.experiments.recommendation.records import head, part, verdict_record
from metaloss.experiments.recommendation.rows import rows
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
    ScoreGain,
    Verdict,
    worth_searching,
)
from metaloss.tasks.episodic_family import TaskFamily


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
    images = sum(folded.counts)
    search = folds.of_losses_alone()
    summary: dict[str, Any] = storage.json_safe(
        {
            **_head(about, compared, folded, folds),
            "rows": rows(compared, final, folds),
            "verdict": verdict_record(verdict),
            **_answer(folded, final, folds, verdict),
            "sentences": [
                *sentences(verdict, final, images),
                *beside_losses(final, folds),
                _small(verdict.setting.steps, family, folds),
                *_share(folded),
                *_rarest(folded, folds.scale),
                *_search(final, search, folds.scale),
            ],
            "search": {
                **folds.scale.difference(asdict(search)),
                "certainty": SEARCH_CERTAINTY,
                "worth": worth_searching(search, folds.scale),
            },
            **_code(about["settings"]["data"], compared, specs, folded, final, verdict),
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
    said = [stopped(folds, folded.folds), *_rarest(folded, folds.scale)]
    summary: dict[str, Any] = storage.json_safe(
        {
            **_head(about, compared, folded, folds),
            "rows": rows(compared, folds.choices[-1], folds),
            **part(len(folds.choices), folded.folds, said),
        }
    )
    return summary


def _head(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    folded: FoldedImages,
    folds: FoldResults,
) -> dict[str, Any]:
    """What was asked, what each fold chose, and what that gained."""
    scale = folds.scale
    return {
        **head(about, compared, _images(folded), scale, folds.certainty),
        "family": registry.table(folded.family),
        "choice": scale.difference(asdict(folds.fixed_to("").whole())),
        "folds": [_fold(x, scale) for x in folds.choices],
    }


def _code(
    data: str,
    compared: Sequence[ComparedLoss],
    specs: Mapping[str, Any],
    folded: FoldedImages,
    final: LossChoice,
    verdict: Verdict,
) -> dict[str, Any]:
    """The command that trains with what is recommended, and Python that does.

    Args:
        data: what names the images.
        compared: the losses.
        specs: how each of them was asked for, by its label.
        folded: the images.
        final: the choice on all images.
        verdict: what to use.
    """
    family = folded.family
    spec = verdict.setting.spec or specs.get(verdict.loss, verdict.loss)
    training = training_of(family, sum(folded.counts), verdict.setting, verdict.rival)
    lines = code.lines(
        spec,
        verdict,
        final,
        family.inner,
        compared,
        folded.counts,
        folded.features is not None,
        _loadable(folded),
    )
    return {
        "train": code.train_command(data, spec, verdict, family.metric, training, family.groups),
        "code": [*code.fit_lines(spec, verdict, training), *lines],
    }


def _loadable(folded: FoldedImages) -> str:
    """What a line of Python loads the images by; "" where they are not a folder's pixels."""
    family = folded.family
    usual = family.image_options == DEFAULT_OPTIONS and folded.features is None
    return family.dataset if usual and family.dataset.startswith("folder:") else ""


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
        groups=folded.group_count,
        unusual=not _usual_tried(final),
    )
    return {
        "answer": parts(verdict, evidence),
        "recognised": recall_rows(shown, verdict.changes),
        "recalls": [x.plain() for x in recalls],
    }


def _usual_tried(final: LossChoice) -> bool:
    """Whether a usual loss was tried, and not only others that may be alike."""
    return any(name.partition("(")[0] in (*LOSSES, *UNEVEN_LOSSES) for name in final.settings)


def _search(final: LossChoice, gain: ScoreGain, scale: MetricScale) -> list[str]:
    """Whether a search is worth it, where what was tried can tell."""
    if not worth_searching(gain, scale) and not _usual_tried(final):
        return []
    return [search_in_words(gain, scale, _best_loss(final))]


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


def _best_loss(final: LossChoice) -> str:
    """How `LossChoice.best_loss` on all images is written."""
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
