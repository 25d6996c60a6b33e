"""The families of a comparison, and whether a loss has learned from their test images."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core.reporting import Reporter
from metaloss.criterion.leakage import DataOverlap, data_overlap, worst_overlap
from metaloss.data.datasets import Dataset
from metaloss.errors import SettingsError
from metaloss.experiments.comparison.commands import side_by_side
from metaloss.experiments.comparison.losses import ComparedLoss
from metaloss.experiments.comparison.settings import Comparison
from metaloss.search.settings import changed
from metaloss.tasks import opening
from metaloss.tasks.opening import MixtureFamily, OpenFamily, TaskFamily, TrainingFamily


def read_families(
    comparison: Comparison, changes: Mapping[str, Any], losses: Sequence[str]
) -> list[TaskFamily | MixtureFamily]:
    """The families of episodes, and the mixtures of them.

    Raises:
        SettingsError: there is no such family, two have one name, or one is of full trainings.
    """
    families: list[TaskFamily | MixtureFamily] = []
    for name in comparison.tasks:
        family = opening.read(name, changes)
        if isinstance(family, TrainingFamily):
            line = shlex.join(
                side_by_side(family, losses, family.training.rates or comparison.rates)
            )
            raise SettingsError(
                f"{family.origin} is a family of full trainings, and compare is for episodes; "
                f"this sets the losses side by side there: {line}"
            )
        families.append(changed(family, changes))
    names = [family.name for family in families]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SettingsError(
            f"two task families are named '{repeated[0]}', and results go by the name"
        )
    return families


def check_overlaps(
    compared: Sequence[ComparedLoss],
    families: Sequence[OpenFamily],
    allow: bool,
    reporter: Reporter,
) -> list[list[DataOverlap]]:
    """What every family's data is to every loss.

    Raises:
        SettingsError: a run has learned from test images, and that is not allowed.
    """
    overlaps = [
        [
            worst_overlap(
                [
                    data_overlap(x.origin, x.criterion, images.dataset, images.rows("test"))
                    for images in episodes.image_sets
                    if isinstance(images.dataset, Dataset)
                ]
            )
            for x in compared
        ]
        for episodes in families
    ]
    for episodes, family_overlaps in zip(families, overlaps, strict=True):
        for x, overlap in zip(compared, family_overlaps, strict=True):
            if overlap.refusal and not allow:
                raise SettingsError(
                    f"{x.label} {overlap.refusal} of {episodes.family.name}  "
                    "(--allow-seen compares all the same)"
                )
            if overlap.refusal:
                reporter.on_warning(f"{x.label} {overlap.refusal} of {episodes.family.name}")
    return overlaps
