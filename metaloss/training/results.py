"""What trainings came to: per seed, over seeds, and one loss against another on the same seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaloss.core.proportions import wilson
from metaloss.errors import SettingsError
from metaloss.training import folders
from metaloss.training.corrections import CORRECTIONS, is_corrected
from metaloss.training.folders import TrainingRecord
from metaloss.training.models import ImageClassifier
from metaloss.training.targets import Target, target_of

# Of a training; pixels lack the second.
MEASURES = ("accuracy", "balanced_accuracy", "f1", "test_loss", "iou")


@dataclass(frozen=True)
class Fitted:
    """The trainings of one loss. Lists go over the seeds, NaN where a training failed.

    Attributes:
        loss: its label.
        lr: the learning rate, the best one where several were tried.
        seeds: of the trainings.
        accuracy: the share of right answers on the test images.
        f1: macro-F1 there.
        balanced_accuracy: the mean over the classes of their recall there; empty where every pixel
            has a class.
        recall: a list for every seed, of every class the share of its test images that is found, in
            the order of the classes; NaN for a class without one. Empty where every pixel has a
            class.
        test_loss: the mean loss there.
        history: a record of every epoch of every seed.
        tuning: validation accuracy of every rate that was tried, on the first seed.
        folder: where everything lies.
        iou: where every pixel has a class, the mean over the classes of intersection over union;
            accuracy, F1 and loss are over pixels then.
        metric: by which rates and losses are judged.
        scores: its values.
        confusion: of every seed how many test images of every class (row) got every answer
            (column).
        thresholds: of every seed the number that each class's logit gets, where they were chosen.
        with_thresholds: what the test images give with them.
        prior_correction: the same numbers of a prior correction, for all seeds alike; empty where
            there is none.
        with_prior_correction: of every seed what the test images give with it.
    """

    loss: str
    lr: float
    seeds: list[int]
    accuracy: list[float]
    f1: list[float]
    test_loss: list[float]
    history: list[dict[str, Any]]
    tuning: list[dict[str, float]]
    folder: Path
    files: dict[int, str]
    network: nn.Module | None = field(default=None, repr=False)
    iou: list[float] = field(default_factory=list)
    balanced_accuracy: list[float] = field(default_factory=list)
    recall: list[list[float]] = field(default_factory=list)
    metric: str = "accuracy"
    scores: list[float] = field(default_factory=list)
    confusion: list[list[list[int]]] = field(default_factory=list)
    thresholds: list[dict[str, float]] = field(default_factory=list)
    with_thresholds: list[dict[str, Any]] = field(default_factory=list)
    prior_correction: dict[str, float] = field(default_factory=dict)
    with_prior_correction: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean of the metric on the test images, over the seeds that did not fail."""
        return mean(self.scores)

    @property
    def std(self) -> float:
        """Standard deviation of the same over seeds; NaN of one."""
        return std(self.scores)

    def model(
        self, seed: int | None = None, thresholds: bool = False, prior_correction: bool = True
    ) -> ImageClassifier:
        """A trained classifier: takes images [N K H W] from 0 to 255 and gives logits.

        Args:
            seed: of the training; the first by default.
            thresholds: add the chosen numbers to the logits.
            prior_correction: add those of the prior correction, where it was trained with one.

        Raises:
            SettingsError: there was no such training, or it failed.
        """
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.files:
            raise SettingsError(
                f"no trained model of seed {seed}; there is one of "
                f"{', '.join(map(str, self.files))}"
            )
        classifier = folders.load(self.folder, self.files[seed], self.network)
        if not prior_correction:
            classifier.offsets = None
        if thresholds:
            if not self.thresholds:
                raise SettingsError("no thresholds were chosen: train with thresholds=True")
            sound = [x for x in self.seeds if x in self.files]
            classifier.offsets = torch.tensor(list(self.thresholds[sound.index(seed)].values()))
        return classifier


@dataclass(frozen=True)
class Fits:
    """The trainings of several losses on the same images, from the same initial weights.

    Attributes:
        losses: one result each.
        table: one row a loss: test accuracy, balanced accuracy, recall of every class, macro-F1 and
            loss, and the paired difference to the baseline.
        summary: all of it.
        folder: where everything lies.
    """

    losses: list[Fitted]
    table: list[dict[str, Any]]
    summary: dict[str, Any]
    folder: Path


def mean(values: Sequence[float]) -> float:
    """The mean of what is a number; NaN of nothing."""
    known = [x for x in values if not math.isnan(x)]
    return statistics.fmean(known) if known else math.nan


def std(values: Sequence[float]) -> float:
    """The standard deviation (n - 1) of what is a number; NaN of fewer than two."""
    known = [x for x in values if not math.isnan(x)]
    return statistics.stdev(known) if len(known) > 1 else math.nan


def rows(
    by_loss: Mapping[str, Sequence[dict[str, Any]]],
    rates: Mapping[str, float],
    base: str,
    target: Target,
) -> list[dict[str, Any]]:
    """The table: a line for every loss, and one more for its networks with corrected logits.

    Args:
        by_loss: of every loss what each seed came to on the test images.
        rates: the learning rate of each.
        base: what losses are set beside.
        target: what networks learned to tell.
    """
    lines = []
    for label, runs in by_loss.items():
        others = None if label == base else by_loss[base]
        lines.append(row(label, rates[label], runs, others, target))
        for name in CORRECTIONS:
            if any(f"with_{name}" in run for run in runs):
                moved = [{**run, **run.get(f"with_{name}", {})} for run in runs]
                line = row(label, rates[label], moved, by_loss[base], target)
                lines.append({**line, name: True})
    return lines


def row(
    label: str,
    lr: float,
    runs: Sequence[dict[str, Any]],
    base: Sequence[dict[str, Any]] | None,
    target: Target,
) -> dict[str, Any]:
    """A loss's line of the table.

    Args:
        label: the loss's.
        lr: its learning rate.
        runs: what each seed came to on the test images.
        base: the same of the baseline; None for the baseline itself.
        target: what networks learned to tell.
    """
    cells: dict[str, Any] = {
        "loss": label,
        "lr": lr,
        "n": len(runs),
        "failed": sum(bool(x["failed"]) for x in runs),
    }
    cells["one_answer"] = sum(x["only_answer"] is not None for x in runs)
    for key in dict.fromkeys((*MEASURES, target.metric.key)):
        if key in runs[0]:
            values = [x[key] for x in runs]
            cells |= {key: mean(values), f"{key}_std": std(values)}
    if "recall" in runs[0]:
        cells["recall"] = {
            name: mean([x["recall"][name] for x in runs]) for name in runs[0]["recall"]
        }
        cells |= _of_classes(runs)
    if base is not None:
        key = target.metric.key
        differences = [a[key] - b[key] for a, b in zip(runs, base, strict=True)]
        cells |= {
            "difference": mean(differences),
            "difference_std": std(differences),
            "differences": differences,
        }
    return cells


def _of_classes(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean confusion matrix, and of every class's mean recall the 95 % interval.

    The interval is over the test images of the class, which all seeds share; where they have
    groups, over these: as many images as the seeds say, in the mean, are independent.
    """
    tables = [run["confusion"] for run in runs if run.get("confusion")]
    if not tables:
        return {}
    names = list(runs[0]["recall"])
    recall = {name: mean([run["recall"][name] for run in runs]) for name in names}
    lines = [[statistics.fmean(cell) for cell in zip(*line, strict=True)]
             for line in zip(*tables, strict=True)]  # fmt: skip
    # Images of one group say less than as many of their own.
    grouped = [run["independent_images"] for run in runs if "independent_images" in run]
    independent = {name: mean([x[name] for x in grouped]) for name in names} if grouped else {}
    sizes: Mapping[str, float] = independent or dict(zip(names, map(sum, tables[0]), strict=True))
    intervals = {name: list(wilson(recall[name], sizes[name])) for name in names}
    counted = {"independent_images": independent} if independent else {}
    return {"confusion": lines, "recall_interval": intervals, **counted}


def baseline(labels: Sequence[str]) -> str:
    """What losses are set beside: cross-entropy where it is among them, else the first."""
    return "ce" if "ce" in labels else labels[0]


def fits(
    folder: Path,
    trainings: Sequence[TrainingRecord],
    table: dict[str, Any],
    network: nn.Module | None,
) -> Fits:
    """The result of a finished folder, from its records and its summary."""
    records: dict[str, list[TrainingRecord]] = {}
    for record in trainings:
        records.setdefault(record.loss, []).append(record)
    fitted = [
        _fitted(loss_row, records.get(loss_row["loss"], []), folder, table, network)
        for loss_row in table["table"]
        if not is_corrected(loss_row)
    ]
    return Fits(fitted, table["table"], table, folder)


def _fitted(
    loss_row: Mapping[str, Any],
    records: Sequence[TrainingRecord],
    folder: Path,
    table: dict[str, Any],
    network: nn.Module | None,
) -> Fitted:
    """One loss's result.

    Args:
        loss_row: its line of the table.
        records: its trainings, those of rates that were not chosen, too.
        folder: where everything lies.
        table: the folder's summary.
        network: that was trained, where it was the user's.
    """
    label = loss_row["loss"]
    runs = [x for x in table["trainings"] if x["loss"] == label]
    metric = target_of({**table, **table["trainings"][0]}).metric
    return Fitted(
        loss=label,
        lr=loss_row["lr"],
        seeds=[x["seed"] for x in runs],
        history=_history(records, runs),
        tuning=table["tuning"].get(label, []),
        folder=folder,
        files={x["seed"]: x["file"] for x in runs if x["file"]},
        network=network,
        recall=[list(map(_number, x["recall"].values())) for x in runs if "recall" in x],
        metric=metric.key,
        scores=[_number(x[metric.key]) for x in runs],
        confusion=[x["confusion"] for x in runs if x.get("confusion")],
        thresholds=_each(runs, "thresholds"),
        with_thresholds=_each(runs, "with_thresholds"),
        prior_correction=next(iter(_each(runs, "prior_correction")), {}),
        with_prior_correction=_each(runs, "with_prior_correction"),
        **{key: [_number(x[key]) for x in runs] for key in MEASURES if key in runs[0]},
    )


def _history(
    records: Sequence[TrainingRecord], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The epochs of the trainings at the loss's rate, each with its seed."""
    final = {(x["seed"], x["lr"]) for x in runs}
    of_rate = [x for x in records if (x.seed, x.lr) in final]
    return [{"seed": x.seed, **epoch} for x in of_rate for epoch in x.epochs]


def _each(runs: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """What every seed that has this came to."""
    return [x[key] for x in runs if key in x]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
