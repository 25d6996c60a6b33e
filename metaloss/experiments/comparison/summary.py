"""What a comparison found, as plain values: its tables, sentences, learning curves and ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss import storage
from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.criterion.leakage import DataOverlap
from metaloss.evaluation.statistics import critical_difference, mean_ranks
from metaloss.experiments.comparison.family_results import FamilyResults
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.comparison.results import (
    LossResult,
    as_row,
    holm_corrected,
    mean_scores,
)
from metaloss.experiments.comparison.rivals import FamilyRivals
from metaloss.experiments.comparison.rivals import as_row as as_rival_row
from metaloss.experiments.comparison.sentences import mixture_sentence, sentence
from metaloss.tasks.opening import Mixture, OpenFamily


def summarise(
    about: Mapping[str, Any],
    compared: Sequence[ComparedLoss],
    families: Sequence[OpenFamily],
    overlaps: Sequence[Sequence[DataOverlap]],
    results: Sequence[FamilyResults],
    rivals: Sequence[FamilyRivals] = (),
) -> dict[str, Any]:
    """Everything but single tasks, as plain values.

    Args:
        about: how the comparison was made, the `baseline` among it.
        compared: the losses.
        families: the families.
        overlaps: per family what its data is to every loss.
        results: of every family.
        rivals: of every family what is no loss; none where that was not asked for.
    """
    labels = [item.label for item in compared]
    # Corrected here, where the tests of all families are known.
    corrected = holm_corrected([item.rows for item in results])
    rows = []
    sentences = []
    for episodes, family, family_rows, family_overlaps in zip(
        families, results, corrected, overlaps, strict=True
    ):
        name = episodes.family.name
        baseline = next(row.name for row in family_rows if row.loss == about["baseline"])
        for row, overlap in zip(family_rows, family_overlaps, strict=True):
            seen = overlap.refusal or None
            rows.append({**as_row(row, name, episodes.scale), "data": overlap.text, "seen": seen})
            # The baseline has no difference from itself to tell of.
            if row.vs_baseline:
                text = (
                    mixture_sentence(row, baseline, family.by_kind, episodes.scale)
                    if isinstance(episodes, Mixture)
                    else sentence(row, baseline, episodes.steps, family.strongest, episodes.scale)
                )
                sentences.append({"family": name, "loss": row.loss, "text": text})
    rows_of_rivals, sentences_of_rivals = _of_rivals(families, rivals)
    result = {
        **about,
        "families": [
            _about(episodes, item) for episodes, item in zip(families, results, strict=True)
        ],
        "losses": loss_records(compared),
        "rows": rows + rows_of_rivals,
        "sentences": sentences + sentences_of_rivals,
        "curves": {
            episodes.family.name: _bands(item, episodes.scale)
            for episodes, item in zip(families, results, strict=True)
        },
        "ranks": _ranks(labels, corrected),
    }
    plain: dict[str, Any] = storage.json_safe(result)
    return plain


def _of_rivals(
    families: Sequence[OpenFamily], rivals: Sequence[FamilyRivals]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows and sentences of what is no loss."""
    # Corrected apart from the losses: what is said of a loss must not hang on them.
    corrected = holm_corrected([of_family.rows for of_family in rivals])
    rows = []
    sentences = []
    for episodes, of_family, family_rows in zip(families, rivals, corrected, strict=False):
        name = episodes.family.name
        rows += [as_rival_row(row, name, episodes.scale) for row in family_rows]
        if of_family.sentence:
            sentences.append({"family": name, "loss": "", "text": of_family.sentence})
    return rows, sentences


def loss_records(compared: Sequence[ComparedLoss]) -> list[dict[str, Any]]:
    """Label, formula and origin of every loss, and what was tried of its own parameters."""
    return [
        {"loss": x.label, "formula": x.formula, "about": x.criterion.about}
        | ({"variants": x.specs} if x.specs else {})
        for x in compared
    ]


def _about(episodes: OpenFamily, results: FamilyResults) -> dict[str, Any]:
    settings = registry.table(episodes.family)
    images = episodes.image_sets
    return {
        **settings,
        **episodes.scale.entry(),
        "data": episodes.data_origin,
        "fingerprint": ", ".join(x.dataset.fingerprint() for x in images),
        "test_images": sum(len(x.rows("test")) for x in images),
        "strongest": results.strongest.plain(episodes.scale),
        **({"by_kind": results.by_kind} if results.by_kind else {}),
    }


def _bands(family: FamilyResults, scale: MetricScale) -> dict[str, Any]:
    """Mean learning curves, and the tasks' standard deviation about them."""
    bands: dict[str, Any] = {"steps": list(family.moments), "losses": {}}
    # Kinds of a mixture have no common curve.
    for label, curve in family.curves.items() if family.moments else ():
        curve_of_tasks = curve.double().nan_to_num(nan=0.0)
        mean = [[scale.value(x) for x in side] for side in curve_of_tasks.mean(1).T.tolist()]
        std = curve_of_tasks.std(1).T.tolist()
        bands["losses"][label] = {"train": [mean[0], std[0]], "validation": [mean[1], std[1]]}
    return bands


def _ranks(labels: Sequence[str], rows: Sequence[Sequence[LossResult]]) -> dict[str, Any] | None:
    """Mean ranks over the families, and how far apart two must lie; None with one family."""
    if len(rows) < 2:
        return None
    ranks = dict(zip(labels, mean_ranks(mean_scores(rows)), strict=True))
    return {
        "mean": ranks,
        "critical_difference": critical_difference(len(labels), len(rows)),
        "families": len(rows),
    }
