"""Which trainings belong to a cell of a published table, and how they depart from its protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloss.core import registry
from metaloss.core.tables import flatten
from metaloss.errors import SettingsError
from metaloss.experiments.reproduction.published import Column, Row, TrainingsTable
from metaloss.training.settings import Training, over, protocol, resolve

# No setting of a cell.
FREE = ("loss", "seeds", "seed", "device", "resident", "workers", "tensorboard")
# What a cell is told by.
AXES = ("data", "model", "pretrained", "subset", "augment.kind", "steps", "epochs")
SIZES = {
    "base": ("pad", "flip"),
    "cutout": ("patch",),
    "mixup": ("alpha",),
    "randaug": ("operations", "magnitude"),
}


@dataclass(frozen=True)
class CellSpec:
    """One setting of those that a cell is a mean over.

    Attributes:
        wanted: what trainings are looked for, or made; its losses mean nothing.
        plain: what the protocol asks for, one or several that `wanted` stands in for.
        changes: settings over the protocol's.
        bound: settings in which a training must agree with `wanted`.
        lacks: settings that the protocol has no value for here, and why.
    """

    wanted: Training
    plain: tuple[Training, ...]
    changes: Mapping[str, Any]
    bound: frozenset[str]
    lacks: Mapping[str, str]

    def has(self, training: Training) -> bool:
        """Whether a training of these settings belongs here."""
        return all(_bound(training, key) == _bound(self.wanted, key) for key in self.bound)

    def distance(self, training: Training) -> int:
        """In how many settings it is another than the wanted one."""
        wanted = fingerprint(self.wanted)
        settings = fingerprint(training)
        # A setting that only one of them uses is a difference, too.
        return sum(wanted.get(key) != settings.get(key) for key in wanted | settings)

    def departures(self, training: Training) -> list[str]:
        """In what a training departs from the protocol, in words."""
        settings = fingerprint(training)
        protocols = [fingerprint(x) for x in self.plain]
        differing = []
        for key, value in settings.items():
            protocol_values = list(dict.fromkeys(x.get(key, "none") for x in protocols))
            if key in self.lacks:
                differing.append(f"{key} {value} ({self.lacks[key]})")
            elif protocol_values != [value]:
                differing.append(f"{key} {value} (protocol {', '.join(protocol_values)})")
        return differing


@dataclass(frozen=True)
class ColumnRun:
    """A column of a table as it can be run here.

    Attributes:
        column: the table's.
        cell_specs: the settings that each of its cells is a mean over.
        reason: why it cannot be run; empty where it can.
    """

    column: Column
    cell_specs: tuple[CellSpec, ...]
    reason: str


@dataclass(frozen=True)
class Request:
    """What is asked of a table.

    Attributes:
        name: the table's.
        table: the published one.
        rows: those that are asked for.
        column_runs: the columns that are asked for.
        changes: settings that stand in for the protocol's.
        parent: the folder that trainings are looked for and made in.
    """

    name: str
    table: TrainingsTable
    rows: list[Row]
    column_runs: list[ColumnRun]
    changes: Mapping[str, Any]
    parent: Path


def column_runs(
    table: TrainingsTable, names: Sequence[str], changes: Mapping[str, Any]
) -> list[ColumnRun]:
    """The columns of these names, all where there are none, under settings that stand in for the
    protocol's.

    Raises:
        SettingsError: no such column or setting, or two columns come out the same.
    """
    known = {column.name.lower(): column for column in table.columns}
    for name in names:
        if name.lower() not in known:
            raise SettingsError(registry.unknown_message("column", name, known))
    columns = [known[x] for x in dict.fromkeys(map(str.lower, names))] or list(table.columns)
    runs = [_column_run(table, column, changes) for column in columns]
    seen: dict[str, str] = {}
    for column_run in runs:
        # Told by what is wanted: under stand-ins two columns may ask for the same trainings.
        key = str([spec.wanted for spec in column_run.cell_specs])
        if not column_run.reason and key in seen:
            raise SettingsError(
                f"under these settings columns '{seen[key]}' and '{column_run.column.name}' are "
                "the same: name one by --column"
            )
        seen |= {} if column_run.reason else {key: column_run.column.name}
    return runs


def _column_run(table: TrainingsTable, column: Column, changes: Mapping[str, Any]) -> ColumnRun:
    missing = [why for key, why in column.lacks.items() if key not in changes]
    specs = cell_specs(table.protocol, column.settings, table.parts, changes, column.lacks)
    return ColumnRun(column, specs, column.cannot or "; ".join(missing))


def cell_specs(
    name: str,
    settings: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    lacks: Mapping[str, str],
) -> tuple[CellSpec, ...]:
    """What a cell is a mean over.

    Args:
        name: the protocol's.
        settings: of the cell, over the protocol's.
        each: the settings it is a mean over; where a change names what all of them have, they do
            not stand.
        changes: what stands in for all of these.
        lacks: as that of `Column`.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    bound = frozenset({*AXES, *flatten(over(changes))} - set(FREE))
    replaced = bool(set.intersection(*(set(x) for x in each)) & changes.keys())
    groups: dict[str, list[CellSpec]] = {}
    for part in each:
        overrides = over(settings, {} if replaced else part, changes)
        wanted = resolve(protocol(name, overrides))
        plain = resolve(protocol(name, settings, part))
        # Parts that come out the same under the changes are one setting of several protocols.
        groups.setdefault(str(wanted), []).append(
            CellSpec(wanted, (plain,), overrides, bound, lacks)
        )
    return tuple(replace(x[0], plain=tuple(y.plain[0] for y in x)) for x in groups.values())


def _bound(training: Training, key: str) -> Any:
    # Where steps are given, epochs decide nothing.
    if key == "epochs":
        return None if training.steps else training.epochs
    # Rates to choose from take the place of a single one.
    if key in ("lr", "rates"):
        return training.rates or training.rate
    value: Any = training
    for name in key.split("."):
        value = getattr(value, name)
    return value


def fingerprint(training: Training) -> dict[str, str]:
    """What decides a training's result and is used by it, by name, as text."""
    return {key: _text(value) for key, value in _fingerprint(training)}


def _fingerprint(x: Training) -> Iterator[tuple[str, Any]]:
    # Only what is used is named: the momentum of another optimiser is no departure.
    each = f" of {x.epoch_steps} steps" if x.epoch_steps else ""
    yield from (
        (name, getattr(x, name)) for name in ("data", "model", "pretrained", "subset", "size")
    )
    yield "length", f"{x.steps} steps" if x.steps else f"{x.epochs} epochs{each}"
    yield from (
        ("batch", x.batch),
        ("optimiser", x.optimiser),
        ("rate", f"best of {_text(x.rates)}" if x.rates else x.rate),
    )
    yield from (
        (name, getattr(x, name))
        for name in (("momentum", "nesterov") if x.optimiser == "sgd" else ("betas",))
    )
    yield from (("weight_decay", x.weight_decay), ("schedule", x.schedule))
    if x.schedule == "one_cycle":
        yield "warmup", "a tenth" if x.warmup is None else x.warmup
    elif x.schedule != "constant":
        yield from (("every", x.every), ("factor", x.factor))
    yield "augment", x.augment.kind
    for part, sizes in SIZES.items():
        yield from (
            (f"augment.{name}", getattr(x.augment, name)) for name in sizes if x.augment.has(part)
        )
    yield from (("validation", x.validation), ("precision", x.precision))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
