"""The three kinds of task families, read and opened alike.

They are episodes, mixtures of kinds of episodes (`kind = "mixture"`), and full trainings (`kind =
"training"`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Discriminator, Tag

from metaloss.core import plugins
from metaloss.core.reporting import Reporter
from metaloss.storage.environment import describe_environment
from metaloss.tasks import episodic_family, family_files, mixture_family
from metaloss.tasks import training_family as training
from metaloss.tasks.episodic import Episodes, open_episodes
from metaloss.tasks.episodic_family import TaskFamily
from metaloss.tasks.full_training import FullTrainingTasks, open_full_training
from metaloss.tasks.mixture import Mixture
from metaloss.tasks.mixture_family import MixtureFamily
from metaloss.tasks.mixture_opening import open_mixture
from metaloss.tasks.training_family import TrainingFamily
from metaloss.tasks.uneven import FROM_DATA

__all__ = [
    "EPISODE_SETTINGS",
    "Episodes",
    "Families",
    "Family",
    "FullTrainingTasks",
    "Mixture",
    "MixtureFamily",
    "OpenFamily",
    "TaskFamily",
    "TrainingFamily",
    "of",
    "open_family",
    "read",
]

Family = TaskFamily | TrainingFamily | MixtureFamily
OpenFamily = Episodes | FullTrainingTasks | Mixture

FIELDS = {
    field
    for cls in (TaskFamily, TrainingFamily, MixtureFamily)
    for field in cls.__dataclass_fields__
}
# What a user may set of families of episodes and of mixtures of them.
EPISODE_SETTINGS = {
    field for cls in (TaskFamily, MixtureFamily) for field in cls.__dataclass_fields__
} - {"kind", "name", "origin"}
# What holds for all families of a run where it is given without a name.
SETTINGS = FIELDS - {"kind", "name", "origin"}


def _kind(family: Any) -> str:
    kind = family.get("kind") if isinstance(family, Mapping) else getattr(family, "kind", None)
    known = {"training": "TrainingFamily", "mixture": "MixtureFamily"}
    return known.get(str(kind), "TaskFamily")


Families = tuple[
    Annotated[
        Annotated[TaskFamily, Tag("TaskFamily")]
        | Annotated[TrainingFamily, Tag("TrainingFamily")]
        | Annotated[MixtureFamily, Tag("MixtureFamily")],
        Discriminator(_kind),
    ],
    ...,
]


def read(spec: str, changes: Mapping[str, Any] | None = None) -> Family:
    """The family that NAME, PATH.toml, folder:PATH or file:PATH means.

    Args:
        spec: what names it.
        changes: settings that will replace its own, as for `episodic_family.read`.

    Raises:
        SettingsError: no such family, or a file that does not describe one.
        DataError: folder:PATH or file:PATH holds no usable data.
    """
    return (
        episodic_family.read(spec, changes)
        if spec.startswith(FROM_DATA)
        else of(*family_files.written(spec))
    )


def of(table: dict[str, Any], name: str, origin: str) -> Family:
    """A family made of a table of settings.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    if table.get("kind") == "training":
        return training.of(table, name, origin)
    if table.get("kind") == "mixture":
        return mixture_family.of(table, name, origin)
    return episodic_family.of(table, name, origin)


def open_family(
    family: Family,
    device: torch.device | str = "cpu",
    where: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
) -> OpenFamily:
    """Load a family's images onto a device, and check that there are enough of them.

    Args:
        family: the settings.
        device: where classifiers train.
        where: where its data lie, by their role, if not where the family says.
        reporter: is told of the progress where a network computes features.

    Raises:
        SettingsError: its network does not fit the images, or Lightning is not installed.
        DataError: images are missing, or too few.
    """
    if isinstance(family, TrainingFamily):
        return open_full_training(family, device, (where or {}).get(family.name, ""))
    if isinstance(family, MixtureFamily):
        return open_mixture(family, device, where, reporter)
    return open_episodes(family, device, where, reporter)


def conditions(
    episodes: Sequence[OpenFamily], device: torch.device, others: Sequence[tuple[str, str]] = ()
) -> dict[str, str]:
    """What must be the same for a resumed run to go on as if it had not stopped.

    Args:
        episodes: the families with their images.
        device: where classifiers train.
        others: further parts, each a kind and a name, whose versions matter where they are plugins.
    """
    data = {name: digest for family in episodes for name, digest in family.fingerprints().items()}
    parts = [part for family in episodes for part in family.family.parts]
    return {**describe_environment(device), **data, **plugins.versions([*parts, *others])}


def with_training_cache(
    folder: Path, families: Sequence[OpenFamily], device: torch.device
) -> list[OpenFamily]:
    """Families whose full trainings, each as it ends, are kept in a folder that this process has
    locked.

    Raises:
        DamagedFile: what is kept there does not check out.
    """
    return [family.with_cache(folder, partial(conditions, [family], device)) for family in families]
