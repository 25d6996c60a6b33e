"""The commands that make a comparison again, or the trainings that stand in for one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core import registry
from metaloss.core.tables import flatten
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.tasks.opening import TrainingFamily
from metaloss.training.settings import Training


def command(
    losses: Sequence[Any],
    compared: Sequence[ComparedLoss],
    own_settings: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> list[str]:
    """The command that makes the same comparison."""
    rest = flatten(
        {key: value for key, value in own_settings.items() if key != "tasks"} | dict(changes)
    )
    return [
        "metaloss",
        "compare",
        *specs_of(losses, compared),
        "--tasks",
        *own_settings["tasks"],
        *assignments(rest),
    ]


def side_by_side(
    family: TrainingFamily, losses: Sequence[str], rates: Sequence[float]
) -> list[str]:
    """The command that trains losses as a family of full trainings does.

    Each loss is tuned over these rates.
    """
    table = registry.table(family.training)
    defaults = registry.table(Training())
    # Rates are given as a flag of their own, and what is the default needs no flag.
    own_settings = {
        key: value
        for key, value in table.items()
        if value != defaults.get(key) and key not in ("lr", "rates")
    }
    options = [
        "--model",
        family.training.model,
        "--data",
        own_settings.pop("data", defaults["data"]),
    ]
    own_settings.pop("model", None)
    rate_options = ["--rates", *map(str, rates), "--seeds", str(family.seeds)]
    return [
        "metaloss",
        "train",
        "--loss",
        *losses,
        *options,
        *rate_options,
        *assignments(flatten(own_settings)),
    ]


def specs_of(losses: Sequence[Any], compared: Sequence[ComparedLoss]) -> list[str]:
    """Losses as they were given; one that was given as an object by its name."""
    return [
        str(x) if isinstance(x, str | Path) else y.label
        for x, y in zip(losses, compared, strict=False)
    ]


def assignments(table: Mapping[str, Any]) -> list[str]:
    """Settings as flags."""
    return [
        word for key, value in table.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
