"""What a training has to say, as lines of text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metaloss._version import __version__
from metaloss.core import tables
from metaloss.core.streams import Stream
from metaloss.training.corrections import offsets_of, row_name
from metaloss.training.defaults import SHARE
from metaloss.training.losses import class_weights
from metaloss.training.results import Fits
from metaloss.training.session import TrainingSession
from metaloss.training.targets import ACCURACY, Target, TargetMetric, target_of

NAME = 26  # characters of a loss
CLASSES = 10  # of which recalls are printed side by side
# Of an epoch: where it stands, what the validation images say, and its time.
PLACE_CELLS = "{:26} {:>5}   {:7} {:>7} {:>7}   {:>10}"
VALIDATION_CELLS = " {:>8}   {:>8}   {:>{wide}}"
PLACE = ("loss", "seed", "rate", "epoch", "step", "train loss")


def heading(session: TrainingSession) -> list[str]:
    """What is about to be trained, on what, and where everything goes."""
    settings = session.settings
    dataset = session.images.dataset
    shares = session.images.shares
    whole = len(shares.train)
    validation = len(shares.validation)
    test = len(shares.test)
    train = session.image_count
    schedule = session.schedule
    share = (
        f"a tenth of {train} training images"
        if schedule.batch == train // SHARE
        else f"of {train} training images"
    )
    length = f"{schedule.steps} steps: {schedule.epochs} epochs of {schedule.epoch_steps}"
    clip = f" · gradients up to {settings.clip:g} long" if settings.clip else ""
    rates = " ".join(f"{x:g}" for x in settings.rates or (settings.rate,))
    subset = "" if settings.subset is None else f" ({settings.subset}, of {whole})"
    images = (
        f"{train} images to train on{subset}, {validation or 'none'} to validate, {test} to test"
    )
    size = "x".join(map(str, session.images.seen_size(settings.size)))
    seen = f"on {session.images.channels} features" if session.images.features else f"at {size}"
    device = (
        f"{settings.devices} x {session.device}" if settings.devices > 1 else str(session.device)
    )
    titles = ["val loss", *(title for _, title in session.images.target.progress)]
    trainings = len(session.losses) * (settings.seeds + max(0, len(settings.rates) - 1))
    return [
        f"metaloss {__version__} · {settings.model} {seen} · {settings.optimiser}, "
        f"{settings.schedule} · augment "
        f"{settings.augment.kind} · {trainings} training{'s' if trainings > 1 else ''} · {device}",
        f"data    {dataset.name}: {images}; {dataset.origin}",
        (
            f"steps   batch {schedule.batch} ({share}) · rate{'s' if settings.rates else ''} "
            f"{rates}{clip} · {length}"
        ),
        f"folder  {session.folder}",
        *_grouped(session.images.group_counts),
        *_judged(session),
        _line(session.images.target, PLACE, titles if validation else [], "s/epoch"),
    ]


def _grouped(counts: Mapping[str, int]) -> list[str]:
    """Of how many groups the shares are, where images have groups."""
    if not counts:
        return []
    held = f", {counts['validation']} to validate" if counts["validation"] else ""
    return [
        f"groups  {counts['train']} to train on{held}, {counts['test']} to test, each whole in one "
        "share; the intervals of recalls count groups"
    ]


def _line(target: Target, place: Sequence[Any], validation: Sequence[str], seconds: str) -> str:
    """A line of the table of epochs.

    Args:
        target: what networks learn to tell.
        place: loss, seed, rate, epoch, step and training loss.
        validation: what the validation images say; empty where there are none.
        seconds: of the epoch.
    """
    wide = max(9, len(target.progress[1][1]))
    seen = VALIDATION_CELLS.format(*validation, wide=wide) if validation else ""
    return f"{PLACE_CELLS.format(*place)}{seen}   {seconds:>7}"


def _judged(session: TrainingSession) -> list[str]:
    """What networks are judged by and what is done about uneven classes, where it is not usual."""
    settings = session.settings
    parts = []
    if not session.images.target.scale.is_accuracy:
        parts.append(f"by {session.images.target.scale.title}")
    if settings.class_power:
        counts = session.images.class_counts(settings.per_class, Stream(settings.seed))
        labels = torch.repeat_interleave(torch.tensor(list(counts.values())))
        weights = class_weights(labels, len(counts), settings.class_power).tolist()
        named = [f"{name} {x:.3g}" for name, x in zip(counts, weights, strict=True)]
        parts.append(f"class weights {_some(named)}")
    if settings.sampling == "balanced":
        parts.append("batches with as many images of every class")
    if (offsets := offsets_of(settings, session.images)) is not None:
        values = zip(session.images.dataset.classes, offsets.tolist(), strict=True)
        named = [f"{name} {x:+.3g}" for name, x in values]
        parts.append(f"prior correction {settings.prior_correction:g}: {_some(named)}")
    if settings.thresholds:
        parts.append(f"thresholds chosen on {len(session.images.shares.validation)} images")
    return [f"judged  {' · '.join(parts)}"] if parts else []


def _some(texts: Sequence[str]) -> str:
    """A text for every class; of many classes those of the first."""
    more = f" and {len(texts) - CLASSES} more" if len(texts) > CLASSES else ""
    return f"{', '.join(texts[:CLASSES])}{more}"


def epoch(record: dict[str, Any], epochs: int, seconds: float, target: Target | None = None) -> str:
    """One epoch of one training."""
    target = target or target_of(record)
    name = record["loss"] if len(record["loss"]) <= NAME else f"{record['loss'][: NAME - 1]}…"
    validation = []
    if "val_loss" in record:
        first, second = (record[f"val_{key}"] for key, _ in target.progress)
        validation = [_number(record["val_loss"]), _percent(first), _number(second, 3)]
    place = (
        name,
        record["seed"],
        f"{record['rate']:g}",
        f"{record['epoch']}/{epochs}",
        record["step"],
        _number(record["train_loss"]),
    )
    return _line(target, place, validation, f"{seconds:.1f}")


def table(fits: Fits) -> list[str]:
    """Every loss on the test images, as mean and standard deviation over the seeds."""
    heading, cells = results_table(fits)
    return [f"test    {heading}", *tables.table(cells), *_recalls(fits.table)]


def results_table(fits: Fits) -> tuple[str, list[list[str]]]:
    """What the table of the test says in a line, and its rows, their heading first."""
    summary = fits.summary
    base = next(row for row in fits.table if row["loss"] == summary["baseline"])
    target = target_of({**summary, **base})
    rows = [_row(row, base, target) for row in fits.table]
    columns = [
        name
        for name in dict.fromkeys(x for row in rows for x in row)
        if any(row.get(name) for row in rows)
    ]
    cells = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    seeds = len(summary["seeds"])
    spread = "mean ± standard deviation over seeds" if seeds > 1 else "one seed: no spread is known"
    metric = target.metric
    title = metric.title if target.scale.is_accuracy else target.scale.title
    of = "" if metric is ACCURACY else f"{title}, "
    against = (
        f"; Δ: {of}paired with {summary['baseline']}, seed by seed"
        f"{', in points' if metric.percent else ''}"
        if len(rows) > 1
        else ""
    )
    images = summary["images"]["test"]
    return f"{images} images, looked at once; n = {seeds}, {spread}{against}", cells


def _recalls(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The recall of every class; of many classes the lowest."""
    if not rows or "recall" not in rows[0]:
        return []
    classes = list(rows[0]["recall"])
    if len(classes) <= CLASSES:
        cells = [
            ["recall", *classes],
            *([row_name(row), *(recall_cell(row, name) for name in classes)] for row in rows),
        ]
        return tables.table(cells)
    return [
        f"recall, the lowest {CLASSES} of {len(classes)} classes",
        *(_lowest(row) for row in rows),
    ]


def _lowest(row: dict[str, Any]) -> str:
    """The classes that a loss's networks find least."""
    known = [(name, value) for name, value in row["recall"].items() if not _none(value)]
    worst = sorted(known, key=lambda x: x[1])[:CLASSES]
    return f"{row_name(row)}  " + ", ".join(f"{name} {recall_cell(row, name)}" for name, _ in worst)


def recall_cell(row: Mapping[str, Any], name: str) -> str:
    """A class's recall, with its 95 % interval where there is one."""
    low, high = row.get("recall_interval", {}).get(name, (None, None))
    text = _percent(row["recall"][name])
    return text if _none(low) or _none(high) else f"{text} [{100 * low:.0f}, {100 * high:.0f}]"


def _row(row: dict[str, Any], base: dict[str, Any], target: Target) -> dict[str, str]:
    cells = {
        "loss": row_name(row),
        "rate": f"{row['lr']:g}",
        **{metric.title: _cell(row, metric) for metric in target.metrics},
        "loss on test": f"{_number(row['test_loss'])}{_spread(row['test_loss_std'], 1.0, 3)}",
        "failed": f"{row['failed']} of {row['n']}" if row["failed"] else "",
        "one answer": f"{row['one_answer']} of {row['n']}" if row.get("one_answer") else "",
    }
    if row.get("difference") is not None:
        factor, digits = (100.0, 2) if target.metric.percent else (1.0, 3)
        difference = f"{factor * row['difference']:+.{digits}f}"
        cells["Δ"] = f"{difference}{_spread(row['difference_std'], factor, digits)}"
        if all(x.get("one_answer") == x["n"] - x["failed"] for x in (row, base)):
            cells["Δ"] = "– (one answer each)"  # a difference of 0 that says nothing of the losses
    return cells


def _cell(row: dict[str, Any], metric: TargetMetric) -> str:
    """A metric with its spread over the seeds; empty where an older folder lacks it."""
    if metric.key not in row:
        return ""
    value = row[metric.key]
    spread = row[f"{metric.key}_std"]
    if metric.percent:
        return _percent(value) + _spread(spread, 100.0, 2)
    return _number(value, 3) + _spread(spread, 1.0, 3)


def _percent(value: float | None) -> str:
    return "–" if _none(value) else f"{100 * float(value or 0):.2f} %"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if _none(value) else f"{value:.{digits}f}"


def _spread(value: float | None, factor: float, digits: int) -> str:
    return "" if _none(value) else f" ± {factor * float(value or 0):.{digits}f}"


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)
