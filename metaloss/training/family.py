"""A family whose tasks are full trainings: one network, one data set, one augmentation; every task is another seed."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss import registry
from metaloss.errors import SettingsError
from metaloss.training.settings import Training, resolve

SEARCH = ("loss", "seeds", "device", "devices", "tensorboard")  # settings of a training that a search decides


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingFamily:
    """The settings of a family of full trainings; a TOML file holds all but its name and origin.

    Attributes:
        training: the table of `metaloss train`; its `seed` is that of the held-out share, and cross-entropy's rate is
            chosen among its `rates`, or the run's where there are none. Candidates train with its `lr`.
        seeds: the most trainings that a loss's score is made of, however many tasks are asked for.
        workers: trainings at once on the device, each in a process of its own.
    """

    training: Training
    kind: Literal["training"] = "training"
    seeds: Annotated[int, Field(ge=2, le=1000)] = 3
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    name: str = ""
    origin: str = ""

    @property
    def dataset(self) -> str:
        """The data source's name."""
        return self.training.data


def of(table: dict[str, object], name: str, origin: str) -> TrainingFamily:
    """A family made of a table of settings.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    training = table.get("training", {})
    if not isinstance(training, dict):
        raise SettingsError(f"{origin}: training must be a table, got {training!r}")
    try:
        chosen = resolve(training)
    except SettingsError as error:
        raise SettingsError(f"{origin}: training: {str(error).removeprefix('train: ')}") from None
    for field in SEARCH:
        if getattr(chosen, field) != getattr(Training(), field):
            raise SettingsError(f"{origin}: training.{field} is decided by the search, and has no place in a family")
    family: TrainingFamily = registry.validated(
        TrainingFamily, {**table, "training": chosen, "name": name, "origin": origin}, origin
    )
    return family
