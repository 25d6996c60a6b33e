"""The settings of a study: which losses are trained, how, and how their scores are compared."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings_class

from metaloss.core import registry
from metaloss.core.config import merge_tables, parse_assignment
from metaloss.data.places import sources_of
from metaloss.errors import SettingsError
from metaloss.inner.optimiser_settings import LearningRate
from metaloss.search.settings import Count

KINDS = ("tasks", "train")


@settings_class(frozen=True, config=ConfigDict(extra="forbid"))
class Study:
    """What decides a study's result.

    Attributes:
        losses: by name, path or formula; "random:N" stands for N formulas that a genome draws and
            its filters pass.
        settings: tables as `read` gives them: what the losses are trained under, the cheap ones
            first.
        best: rank correlation is given for all losses and for so many that are best under the first
            setting of a pair. None: 50, as Morgan's; of fewer than 100 losses the better half,
            which is ours.
        rates: learning rates among which every loss's is chosen, on the images it is scored on,
            under settings without rates of their own; none: the setting's own rate, as Morgan's.
        tasks: meta-validation tasks that a task family scores a loss on.
        clusters: into how many a pair's losses are parted; 1: none. Morgan's picture shows four.
        genome: what draws random formulas; "graph" is Morgan's search space.
        resamples: of the bootstrap over losses.
        seed: of every random draw, where a setting has none of its own.
        device: where to train.
        memory: bytes that episodes may take.
    """

    losses: Annotated[tuple[str, ...], Field(min_length=1)]
    settings: Annotated[tuple[dict[str, Any], ...], Field(min_length=2)]
    best: Annotated[int, Field(ge=2)] | None = None
    rates: tuple[LearningRate, ...] = ()
    tasks: Annotated[int, Field(ge=2, le=1_000_000)] = 32
    clusters: Annotated[int, Field(ge=1, le=20)] = 4
    genome: dict[str, Any] = Field(default_factory=lambda: {"kind": "graph"})
    resamples: Count = 2000
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30

    @model_validator(mode="after")
    def _distinct(self) -> "Study":
        for what, names in (("loss", self.losses), ("setting", [x["name"] for x in self.settings])):
            if repeated := [x for x in names if list(names).count(x) > 1]:
                raise ValueError(f"the {what} '{repeated[0]}' is given twice")
        return self

    @property
    def sources(self) -> dict[str, str]:
        """The family or data set whose images a setting uses, and a file of features, by role."""
        sources: dict[str, str] = {}
        for x in self.settings:
            data = str(x.get("family") or x.get("data") or "")
            sources |= sources_of(x["name"], data, str(x.get("features", "")))
        return sources

    def table(self) -> dict[str, Any]:
        """All settings as plain values, for TOML."""
        return registry.table(self)


def resolve(table: Mapping[str, Any]) -> Study:
    """The settings that a table describes.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    settings = {**table, "settings": tuple(read(x) for x in table.get("settings", ()))}
    for what, least in (("losses", 1), ("settings", 2)):
        if (count := len(settings.get(what, ()))) < least:
            raise SettingsError(
                f"a study orders losses under several settings: give {least} or more {what}, "
                f"got {count}"
            )
    study: Study = registry.from_table(Study, settings, "study")
    return study


def read(spec: Any) -> dict[str, Any]:
    """A setting as a table with its kind and name.

    >>> read("tasks:fashionmnist,inner.steps=40")["inner"]
    {'steps': 40}

    Args:
        spec: "tasks:FAMILY", with any of the family's settings behind it, as `inner.steps=40`; or
            "train:" and any settings of a full-size training, as `model=convnet,augment=cutout`;
            both may have `rates=[0.03,0.1]`. Or a table: `kind`, "tasks" or "train", those settings
            (`family` among them), and a `name` if wanted.

    Raises:
        SettingsError: it is neither.
    """
    table = (
        _table(spec) if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    )
    if table.get("kind") not in KINDS:
        raise SettingsError(
            f"a setting is 'tasks:FAMILY' or 'train:data=NAME,…', or such a table, got '{spec}'"
        )
    if table["kind"] == "tasks" and not isinstance(table.get("family"), str):
        raise SettingsError(f"setting '{spec}' names no task family  (metaloss list tasks)")
    # With a loss or a device of its own a setting could not be compared with the others.
    if table["kind"] == "train" and (reserved := {"loss", "device"} & table.keys()):
        raise SettingsError(
            f"setting '{spec}' has a {min(reserved)} of its own; that is the study's"
        )
    if isinstance(table.get("rates"), float | int):
        table["rates"] = [table["rates"]]
    return {**table, "name": str(table.get("name") or _name(table))}


def _table(spec: str) -> dict[str, Any]:
    kind, colon, rest = spec.strip().partition(":")
    if kind not in KINDS or not colon:
        return {}
    # Not at commas within brackets.
    parts = [x.strip() for x in re.split(r",(?![^\[]*\])", rest) if x.strip()]
    named = {"family": parts.pop(0)} if kind == "tasks" and parts and "=" not in parts[0] else {}
    if wrong := [x for x in parts if "=" not in x]:
        raise SettingsError(
            f"setting '{spec}': expected name=value between commas, got '{wrong[0]}'"
        )
    # augment=cutout is short for augment.kind=cutout, as the flag --augment is.
    tables = [
        parse_assignment(f"augment.kind={x[8:]}" if x.startswith("augment=") else x) for x in parts
    ]
    return {"name": f"{kind}:{rest.strip()}", **merge_tables({"kind": kind, **named}, *tables)}


def _name(table: Mapping[str, Any]) -> str:
    words = [f"{key}={value}" for key, value in table.items() if key not in ("kind", "family")]
    return (
        f"{table['kind']}:{','.join([*([table['family']] if 'family' in table else []), *words])}"
    )
