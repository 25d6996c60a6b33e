"""Which engine trains, as the user says it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry

# What a function of the package takes: a kind by its name, or a table of settings.
EngineTable = str | Mapping[str, Any] | None
Seconds = Annotated[float, Field(gt=0, le=1e7)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class EngineSettings:
    """Where trainings run; no result depends on it.

    Attributes:
        kind: "local", this process, or "ray", actors of a Ray cluster.
        address: of that cluster: "auto", the one that this machine belongs to; HOST:PORT; "local",
            the default, one that is started on this machine and ends with the job.
        actors: how many, each with one core or, on GPUs, a share of one; 0: as many as the cluster
            has cores, or GPUs, also where these become more.
        per_gpu: actors that share a GPU.
        patience: seconds that a job without any actor waits for one.
        silence: seconds after which an actor that has not answered counts as hung, if others need
            less than a tenth of them.
    """

    kind: Literal["local", "ray"] = "local"
    address: str = "local"
    actors: Annotated[int, Field(ge=0, le=100_000)] = 0
    per_gpu: Annotated[int, Field(ge=1, le=64)] = 1
    patience: Seconds = 300.0
    silence: Seconds = 600.0

    @model_validator(mode="after")
    def _needs_ray(self) -> Self:
        changed = [x.name for x in fields(self) if getattr(self, x.name) != x.default]
        if self.kind == "local" and changed:
            raise ValueError(f"{changed[0]} is of kind = 'ray' alone: --engine ray")
        return self


def engine_settings(table: EngineTable) -> EngineSettings:
    """The settings that a name or a table means.

    Raises:
        SettingsError: it means none.
    """
    given: Mapping[str, Any] = (
        {"kind": table} if isinstance(table, str) else {} if table is None else table
    )
    result: EngineSettings = registry.from_table(EngineSettings, given, "engine")
    return result
