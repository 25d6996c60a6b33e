"""A family of full trainings: one network, one data set, one augmentation.

Every task is another seed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry
from metaloss.data.places import sources_of
from metaloss.errors import SettingsError
from metaloss.training.settings import Training, over, protocol, resolve

# Settings of a training that a search decides.
SEARCH = ("loss", "seeds", "device", "devices", "tensorboard")
# Those that say how finished networks are judged, or that losses would be weighed twice.
JUDGED = ("metric", "class_weights", "thresholds", "prior_correction", "features")


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingFamily:
    """The settings of a family of full trainings; a TOML file holds all but its name and origin.

    It may also name a `protocol`, as `metaloss list protocols` does, whose settings lie under
    `training`.

    Attributes:
        training: the table of `metaloss train`; its `seed` is that of the held-out share, and
            cross-entropy's rate is chosen among its `rates`, or the run's where there are none.
            Candidates train with its `lr`.
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

    @property
    def sources(self) -> dict[str, str]:
        """Where its data come from, by their role in a run."""
        return sources_of(self.name, self.dataset)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """None: how many classes there are is known when the images are read."""
        return ()

    @property
    def past_obstacle(self) -> str:
        """Why a loss cannot see what was predicted for an image before; "" where it can."""
        return self.training.past_obstacle

    @property
    def gradient_obstacle(self) -> str:
        """What no gradient goes through."""
        return "full trainings, only through episodes"

    @property
    def screened_steps(self) -> int:
        """0: no shorter training stands in for a full one."""
        return 0

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The replaceable parts that it is made of, each as its kind and its name."""
        return [("datasets", self.dataset.partition(":")[0])]

    def describe(self) -> str:
        """The family in a few words."""
        settings = self.training
        kind = settings.augment.kind
        return f"{settings.model} on {settings.data}, a full training, augmentation {kind}"


def of(table: Mapping[str, Any], name: str, origin: str) -> TrainingFamily:
    """A family made of a table of settings; `protocol` lays a paper's under its own, losses and
    seeds left out.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    rest = {key: value for key, value in table.items() if key != "protocol"}
    family: TrainingFamily = registry.from_table(
        TrainingFamily,
        {**rest, "training": _training(table, origin), "name": name, "origin": origin},
        origin,
    )
    return family


def _training(table: Mapping[str, Any], origin: str) -> Training:
    training = table.get("training", {})
    if not isinstance(training, Mapping):
        raise SettingsError(f"{origin}: training must be a table, got {training!r}")
    if (paper := table.get("protocol", "")) and not isinstance(paper, str):
        raise SettingsError(f"{origin}: protocol must be a name, got {paper!r}")
    try:
        below = (
            {key: value for key, value in protocol(paper).items() if key not in SEARCH}
            if paper
            else {}
        )
        settings_of_training = resolve(over(below, training))
    except SettingsError as error:
        raise SettingsError(f"{origin}: training: {str(error).removeprefix('train: ')}") from None
    for field in (*SEARCH, *JUDGED):
        if getattr(settings_of_training, field) != getattr(Training(), field):
            why = (
                "is decided by the search"
                if field in SEARCH
                else "does not go with trainings whose accuracy is a loss's fitness"
            )
            raise SettingsError(f"{origin}: training.{field} {why}, and has no place in a family")
    if not settings_of_training.validation:
        raise SettingsError(
            f"{origin}: training.validation = 0 holds out no images, and a loss's fitness is "
            "measured on them: a validation above 0"
        )
    return settings_of_training
