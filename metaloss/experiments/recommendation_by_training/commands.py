"""The commands of a recommendation by real trainings: its own, and the training that it names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaloss.core import registry
from metaloss.core.tables import flatten
from metaloss.experiments.comparison.commands import assignments
from metaloss.training.settings import Training

# Flags of `metaloss train` by the setting that they give; all others are given by --set.
FLAGS = {
    "lr": "--lr",
    "batch": "--batch",
    "steps": "--steps",
    "augment.kind": "--augment",
    "metric.kind": "--metric",
    "features": "--features",
    "groups": "--groups",
    "size": "--size",
    "optimiser": "--optimiser",
    "momentum": "--momentum",
    "prior_correction": "--prior-correction",
    "schedule": "--schedule",
    "weight_decay": "--weight-decay",
}
# What is said before, and what a training of the user's own need not share.
LEFT_OUT = ("data", "model", "loss", "rates", "seed", "seeds", "device", "workers", "resident")


def recommend_command(table: Mapping[str, Any], losses: Sequence[str]) -> list[str]:
    """The command that makes the same recommendation."""
    rest = {key: value for key, value in table.items() if key not in ("data", "train")}
    named = ["--losses", *losses] if losses else []
    begin = ["metaloss", "recommend", "--data", table["data"], "--train", table["train"]]
    return [*begin, *named, *assignments(dict(sorted(flatten(rest).items())))]


def train_command(loss: str, settings: Training) -> list[str]:
    """The command that trains with this loss as a recommendation's trainings do."""
    rest = flatten(_changes(settings))
    flags = [
        word for key, flag in FLAGS.items() if key in rest for word in (flag, _word(rest.pop(key)))
    ]
    pretrained = ["--pretrained"] if rest.pop("pretrained", False) else []
    begin = ["metaloss", "train", "--data", settings.data, "--model", settings.model]
    whole = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in rest.items()
    }
    return [*begin, "--loss", loss, *flags, *pretrained, *assignments(whole)]


def fit_call(loss: str, settings: Training) -> str:
    """The same in Python."""
    changes = _changes(settings)
    names = [json.dumps(x, ensure_ascii=False) for x in (loss, settings.model, settings.data)]
    options = [f"{key}={value!r}" for key, value in changes.items()]
    return f"fitted = metaloss.fit({', '.join([*names, *options])})"


def _changes(settings: Training) -> dict[str, Any]:
    """What differs from the defaults of `metaloss train`."""
    if settings.schedule != "step":  # epochs mean nothing to the rate
        settings = replace(settings, epoch_steps=None)
    defaults = registry.table(Training())
    table = registry.table(settings)
    return {
        key: _different(value, defaults.get(key))
        for key, value in table.items()
        if value != defaults.get(key) and key not in LEFT_OUT
    }


def _different(value: Any, default: Any) -> Any:
    """A table's entries that are not the default's; any other value as it is."""
    if not isinstance(value, Mapping) or not isinstance(default, Mapping):
        return value
    return {key: x for key, x in value.items() if x != default[key]}


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
